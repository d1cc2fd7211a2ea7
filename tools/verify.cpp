// ckpt verify PATH...: reads every byte of runs, checkpoints and files.
#include <memory>

#include "args.h"
#include "checks.h"
#include "command.h"
#include "core/base/parallel.h"
#include "core/base/quote.h"
#include "core/run/names.h"
#include "core/run/run.h"
#include "core/weights/stats.h"
#include "core/weights/weights.h"
#include "text.h"

namespace ckpt::tool {
namespace {

struct Flags {
  std::vector<std::string> paths;
  bool strict = false, nan = false;
};

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

/// `path` is the checkpoint or the file that they were found in; `label` is what it is therefore.
void add_problems(const std::vector<run::Problem>& problems, const std::string& path, bool is_file, const char* label,
                  Findings& findings, Output& output) {
  const auto text = [](const std::string& value) { return value.empty() ? nlohmann::json() : nlohmann::json(value); };
  output.line(output.paint(Style::kRed, label) + "  " + printable(path));
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

/// Every floating tensor of a file, or of the file `file` of a checkpoint.
std::vector<run::Problem> check_finite(const std::string& path, const std::string& file) {
  const weights::Weights weights =
      weights::Weights::open(file.empty() ? path : path + "/" + file, {.whole = true, .verify = false});
  const auto& tensors = weights.tensors();
  std::vector<weights::Stats> stats(tensors.size());
  parallel_for(tensors.size(), default_threads(), [&](size_t i) {
    const format::StoredTensor& stored = tensors[i].stored;
    const bool may_be = is_floating(stored.dtype) || is_complex(stored.dtype);
    if (may_be && stored.layout == format::TensorLayout::kStrided) stats[i] = weights::stats(weights, tensors[i]);
  });
  std::vector<run::Problem> problems;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (stats[i].nan + stats[i].inf == 0) continue;
    const format::StoredTensor& stored = tensors[i].stored;
    problems.push_back({path,
                        file,
                        {stored.record, tensors[i].name, stored.file_offset,
                         std::to_string(stats[i].nan) + " NaN and " + std::to_string(stats[i].inf) + " infinite of " +
                             std::to_string(stored.elements) + " values"}});
  }
  return problems;
}

/// What is wrong with whole bytes: with --nan, values that are no numbers. True where nothing is.
bool values_are_fine(const Flags& flags, const std::string& path, const std::string& file, Findings& findings,
                     Output& output) {
  if (!flags.nan) return true;
  const std::vector<run::Problem> problems = check_finite(path, file);
  if (problems.empty()) return true;
  add_problems(problems, path, /*is_file=*/file.empty(), "invalid", findings, output);
  findings.errors.emplace_back(ErrorCode::kInvalid, path, "holds no numbers: " + describe(problems.front()));
  return false;
}

/// Globals that a pickle names and that are not understood: with --strict it is unsafe. True where all is fine.
bool globals_are_fine(const Flags& flags, const std::string& path, const std::vector<std::string>& foreign,
                      Findings& findings, Output& output) {
  if (foreign.empty()) return true;
  std::string names;
  for (const std::string& name : foreign) names += (names.empty() ? "" : ", ") + quote(name);
  if (!flags.strict) {
    output.warn(printable(path) + ": names what is not understood, and was neither imported nor run: " + names);
    return true;
  }
  const run::Problem problem{path, "", {"", "", 0, "names what no file of weights needs: " + names}};
  add_problems({problem}, path, /*is_file=*/true, "unsafe", findings, output);
  findings.errors.emplace_back(ErrorCode::kUnsafe, path, problem.damage.reason);
  return false;
}

void report_damage(const std::vector<run::Problem>& problems, const std::string& path, bool is_file, Findings& findings,
                   Output& output) {
  add_problems(problems, path, is_file, "damaged", findings, output);
  findings.errors.emplace_back(ErrorCode::kCorrupt, path, "damaged: " + describe(problems.front()));
}

void verify_run(const Flags& flags, const std::string& path, Findings& findings, Output& output) {
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
      if (!values_are_fine(flags, checkpoint.path, std::string(run::kStateName), findings, output)) continue;
      ++whole;
      bytes += checkpoint.bytes;
    } else {
      ++damaged;
      add_problems(*problems, checkpoint.path, /*is_file=*/false, "damaged", findings, output);
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

void verify_path(const Flags& flags, const std::string& path, Findings& findings, Output& output) {
  switch (kind_of(path)) {
    case PathKind::kRun:
      verify_run(flags, path, findings, output);
      return;
    case PathKind::kCheckpoint: {
      output.progress("verifying " + printable(path));
      const auto problems = run::verify(io::Directory::open(path), default_threads());
      if (!problems.empty()) {
        report_damage(problems, path, /*is_file=*/false, findings, output);
      } else if (values_are_fine(flags, path, std::string(run::kStateName), findings, output)) {
        add_ok(path, "checkpoint", output);
      }
      return;
    }
    case PathKind::kFile: {
      output.progress("verifying " + printable(path));
      const FileCheck check = check_file(path);
      for (const std::string& warning : check.warnings) output.warn(warning);
      if (!check.problems.empty()) {
        report_damage(check.problems, path, /*is_file=*/true, findings, output);
      } else if (globals_are_fine(flags, path, check.foreign, findings, output) &&
                 values_are_fine(flags, path, "", findings, output)) {
        add_ok(path, check.what, output);
      }
      return;
    }
  }
}

int verify(const Flags& flags, Output& output) {
  Findings findings;
  for (const std::string& given : flags.paths) {
    try {
      verify_path(flags, without_trailing_slash(given), findings, output);
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
  auto flags = std::make_shared<Flags>();
  app.description(
      "Reads every byte of runs, checkpoints and files (torch.save old and new, TorchScript, .pt2, archives,\n"
      "safetensors, manifests; told by their content) and names what is damaged: file, record, tensor, and the byte\n"
      "where the smallest range known to be damaged begins. Nothing in a file is ever imported or run.");
  app.add_option("PATH", flags->paths, "run, checkpoint or file")->required();
  app.add_flag("--strict", flags->strict, "a pickle that names what no file of weights needs is unsafe (exit code 4)");
  app.add_flag("--nan", flags->nan, "a NaN or infinity in a floating tensor is invalid (exit code 1)");
  app.footer(
      "Temporaries of a dead or running writer are listed as leftovers and are no problem. safetensors and torch "
      "files\n"
      "before 1.6 have no checksums: their structure is checked.\n"
      "\n"
      "Examples:\n"
      "  ckpt verify runs/digits\n"
      "  ckpt verify --strict downloaded.pth\n"
      "  ckpt verify --nan runs/digits/step-000000001500 model.pt weights.safetensors\n"
      "  ckpt verify --json runs/digits | jq -r '.problems[].path'\n"
      "\n"
      "Exit codes:\n"
      "  0  all is whole\n"
      "  1  NaN or infinity (--nan)\n"
      "  2  usage\n"
      "  3  something cannot be read\n"
      "  4  something is damaged, or unsafe (--strict)\n"
      "  6  a path does not exist, or a run is empty\n"
      "  7  a file is of a kind that has nothing to check\n"
      "With several, the first of 4, 3, 7, 6, 1 that occurs.");
  return [flags](Output& output) { return verify(*flags, output); };
}

}  // namespace ckpt::tool
