// ckpt verify PATH...: reads every byte of runs, checkpoints and files.
#include <memory>

#include "args.h"
#include "checks.h"
#include "command.h"
#include "core/base/parallel.h"
#include "core/run/run.h"
#include "text.h"

namespace ckpt::tool {
namespace {

struct Findings {
  nlohmann::json problems = nlohmann::json::array();
  std::vector<std::string> leftovers;
  std::vector<Error> errors;
};

/// The first of 4, 5, 3, 7, 6, 1 decides the exit code.
const Error& foremost(const std::vector<Error>& errors) {
  for (const int code : {4, 5, 3, 7, 6, 1}) {
    for (const Error& error : errors) {
      if (exit_code(error.code()) == code) return error;
    }
  }
  return errors.front();
}

/// `path` is the checkpoint or the file that they were found in.
void add_problems(const std::vector<run::Problem>& problems, const std::string& path, bool is_file, Findings& findings,
                  Output& output) {
  const auto text = [](const std::string& value) { return value.empty() ? nlohmann::json() : nlohmann::json(value); };
  output.line(output.paint(Style::kRed, "damaged") + "  " + printable(path));
  for (const run::Problem& problem : problems) {
    output.line("  " + describe(problem));
    const bool in_a_file = is_file || !problem.file.empty();
    findings.problems.push_back({{"path", path},
                                 {"file", text(problem.file)},
                                 {"record", text(problem.damage.record)},
                                 {"tensor", text(problem.damage.tensor)},
                                 {"offset", in_a_file ? nlohmann::json(problem.damage.offset) : nlohmann::json()},
                                 {"reason", problem.damage.reason}});
  }
}

void add_ok(const std::string& path, const std::string& what, Output& output) {
  output.line(output.paint(Style::kGreen, "ok") + "       " + printable(path) + "  " + what);
}

void report_one(const std::vector<run::Problem>& problems, const std::string& path, bool is_file,
                const std::string& what, Findings& findings, Output& output) {
  if (problems.empty()) {
    add_ok(path, what, output);
    return;
  }
  add_problems(problems, path, is_file, findings, output);
  findings.errors.emplace_back(ErrorCode::kCorrupt, path, "damaged: " + describe(problems.front()));
}

void verify_run(const std::string& path, Findings& findings, Output& output) {
  const io::Directory directory = io::Directory::open(path);
  const run::Scan scan = run::scan(directory);
  for (const std::string& name : scan.leftovers) {
    findings.leftovers.push_back(path + "/" + name);
    output.line("leftover " + printable(findings.leftovers.back()));
  }
  if (scan.checkpoints.empty()) throw Error(ErrorCode::kNotFound, path, "holds no checkpoint");

  size_t whole = 0, damaged = 0, index = 0;
  uint64_t bytes = 0;
  for (const run::Checkpoint& checkpoint : scan.checkpoints) {
    output.progress("verifying " + std::to_string(++index) + " of " + std::to_string(scan.checkpoints.size()) + ": " +
                    printable(checkpoint.path) + " (" + human_bytes(checkpoint.bytes) + ")");
    auto problems = check_step(directory, checkpoint.name);
    if (!problems) continue;
    if (problems->empty()) {
      ++whole;
      bytes += checkpoint.bytes;
    } else {
      ++damaged;
      add_problems(*problems, checkpoint.path, /*is_file=*/false, findings, output);
    }
  }
  output.progress("");
  if (damaged) {
    findings.errors.emplace_back(ErrorCode::kCorrupt, path,
                                 std::to_string(damaged) + " of " + counted(whole + damaged, "checkpoint") +
                                     (damaged == 1 ? " is" : " are") + " damaged");
  }
  if (whole) add_ok(path, counted(whole, "checkpoint") + ", " + human_bytes(bytes), output);
}

void verify_path(const std::string& path, Findings& findings, Output& output) {
  switch (kind_of(path)) {
    case PathKind::kRun:
      verify_run(path, findings, output);
      return;
    case PathKind::kCheckpoint: {
      output.progress("verifying " + printable(path));
      const auto problems = run::verify(io::Directory::open(path), default_threads());
      report_one(problems, path, /*is_file=*/false, "checkpoint", findings, output);
      return;
    }
    case PathKind::kFile: {
      output.progress("verifying " + printable(path));
      const FileCheck check = check_file(path);
      for (const std::string& warning : check.warnings) output.warn(warning);
      report_one(check.problems, path, /*is_file=*/true, check.what, findings, output);
      return;
    }
  }
}

int verify(const std::vector<std::string>& paths, Output& output) {
  Findings findings;
  for (const std::string& given : paths) {
    try {
      verify_path(without_trailing_slash(given), findings, output);
    } catch (const Error& error) {
      findings.errors.push_back(error);
    }
  }
  nlohmann::json result{
      {"ok", findings.errors.empty()}, {"problems", findings.problems}, {"leftovers", findings.leftovers}};
  if (findings.errors.empty()) {
    output.object(std::move(result));
    return 0;
  }
  const Error& first = foremost(findings.errors);
  for (const Error& error : findings.errors) {
    if (&error != &first) output.complain(error);
  }
  return output.fail(first, std::move(result));
}

}  // namespace

Action declare_verify(CLI::App& app) {
  auto paths = std::make_shared<std::vector<std::string>>();
  app.description(
      "Reads every byte of runs, checkpoints and files (archives, safetensors, manifests; told by their content) and\n"
      "names what is damaged: file, record, tensor, and the byte where the smallest range known to be damaged begins.");
  app.add_option("PATH", *paths, "run, checkpoint or file")->required();
  app.footer(
      "Temporaries of a dead or running writer are listed as leftovers and are no problem.\n"
      "\n"
      "Examples:\n"
      "  ckpt verify runs/digits\n"
      "  ckpt verify runs/digits/step-000000001500 model.pt weights.safetensors\n"
      "  ckpt verify --json runs/digits | jq -r '.problems[].path'\n"
      "\n"
      "Exit codes:\n"
      "  0  all is whole\n"
      "  2  usage\n"
      "  3  something cannot be read\n"
      "  4  something is damaged\n"
      "  6  a path does not exist, or a run is empty\n"
      "  7  a file is of a kind that has nothing to check\n"
      "With several, the first of 4, 3, 7, 6 that occurs.");
  return [paths](Output& output) { return verify(*paths, output); };
}

}  // namespace ckpt::tool
