#include <set>

#include "ckpt/error.h"
#include "core/base/log.h"
#include "core/run/names.h"
#include "core/run/writer_impl.h"

namespace ckpt::run {

void RunWriter::Impl::recover() {
  std::set<std::string, std::less<>> steps;
  std::vector<std::string> leftovers;
  for (io::Entry& entry : run.list()) {
    if (iteration_of(entry.name)) {
      steps.insert(std::move(entry.name));
    } else if (leftover_of(entry.name) != Leftover::kNone) {
      leftovers.push_back(std::move(entry.name));
    }
  }
  if (leftovers.empty()) return;

  // The dead writer may not have come to its fsync: a checkpoint that we see in place of a leftover could still lose
  // its name in a power cut, after the leftover is gone for good.
  run.sync();
  bool put_back = false;
  std::erase_if(leftovers, [&](const std::string& name) {
    std::string step;
    if (leftover_of(name, &step) != Leftover::kReplaced || !steps.insert(step).second) return false;
    run.rename(name, step);
    log(LogLevel::kWarning, run.path_of(step) + ": put back, as its replacement was never finished");
    return put_back = true;
  });
  if (put_back) run.sync();

  for (const std::string& name : leftovers) {
    try {
      run.remove_tree(name);
    } catch (const Error& error) {
      // It does no harm, and training must go on.
      log(LogLevel::kWarning, std::string("left behind by a dead writer and not removed: ") + error.what());
    }
  }
}

}  // namespace ckpt::run
