// ckpt prune RUN KEEP: retention by itself.
#include <memory>

#include "args.h"
#include "command.h"
#include "core/base/parallel.h"
#include "core/run/run.h"
#include "core/run/writer.h"
#include "text.h"

namespace ckpt::tool {
namespace {

struct Flags {
  std::string run;
  KeepFlags keep;
  bool damaged = false;
  bool dry_run = false;
};

int prune(const Flags& flags, Output& output) {
  const run::KeepRules rules = flags.keep.rules();
  const std::string path = without_trailing_slash(flags.run);
  require_run(path);
  // Before the writer, which would take a lock and leave its file in a directory that is no run.
  if (run::scan(io::Directory::open(path)).checkpoints.empty()) {
    throw Error(ErrorCode::kNotFound, path, "holds no checkpoint");
  }

  output.progress("verifying " + printable(path));
  const auto pruned = run::RunWriter(path).prune(rules, flags.damaged, flags.dry_run, default_threads());
  output.progress("");
  for (const std::string& warning : pruned.warnings) output.warn(warning);
  output.object({{"kept", pruned.kept}, {"deleted", pruned.deleted}});
  for (const std::string& deleted : pruned.deleted) {
    output.line((flags.dry_run ? "would delete " : "deleted ") + printable(deleted));
  }
  output.line(std::string(flags.dry_run ? "would keep " : "kept ") + counted(pruned.kept.size(), "checkpoint") +
              (pruned.deleted.empty() ? ", nothing to delete" : ""));
  return 0;
}

}  // namespace

Action declare_prune(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.description(
      "Deletes the checkpoints of a run that no rule keeps. The newest one that verifies is kept always; damaged ones\n"
      "that are met on the way to it count for no rule and stay unless --damaged is given.");
  app.add_option("RUN", flags->run, "run directory")->required();
  flags->keep.declare(app);
  app.add_flag("--damaged", flags->damaged, "delete damaged and partial checkpoints too");
  app.add_flag("--dry-run", flags->dry_run, "say what would go, delete nothing");
  app.footer(
      "Examples:\n"
      "  ckpt prune runs/digits --keep-last 3\n"
      "  ckpt prune runs/digits --keep-last 1 --keep-best 3 --monitor accuracy --mode max\n"
      "  ckpt prune runs/digits --keep-every 10000 --keep-hours 24 --dry-run\n"
      "\n"
      "Exit codes:\n"
      "  0  pruned\n"
      "  2  usage\n"
      "  3  a writer holds the run, or a file cannot be read or deleted\n"
      "  6  there is no such run, or it is empty");
  return [flags](Output& output) { return prune(*flags, output); };
}

}  // namespace ckpt::tool
