#include <algorithm>
#include <set>

#include "ckpt/error.h"
#include "core/run/writer_impl.h"

namespace ckpt::run {

RunWriter::Pruned RunWriter::Impl::prune(const KeepRules& rules, bool damaged, bool dry_run, unsigned threads) {
  rules.check();
  const Scan found = scan(run);
  remember(found);
  for (const Checkpoint& one : found.checkpoints) {
    if (one.state != State::kGood) continue;
    try {
      if (verify(run.open_dir(one.name), threads).empty()) break;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNotFound) throw;
    }
    std::find_if(known.begin(), known.end(), [&](const Known& its) { return its.name == one.name; })->good = false;
  }
  std::vector<std::string> leaving = victims(rules);
  for (const Known& one : known) {
    if (damaged && !one.good) leaving.push_back(one.name);
  }

  Pruned pruned;
  std::vector<std::string> gone = leaving;
  if (!dry_run) {
    renew_links(leaving, pruned.warnings);
    gone = remove(leaving, pruned.warnings);
  }
  const std::set<std::string_view> deleted(gone.begin(), gone.end());
  for (const Checkpoint& one : found.checkpoints) {
    (deleted.contains(one.name) ? pruned.deleted : pruned.kept).push_back(one.path);
  }
  return pruned;
}

RunWriter::Pruned RunWriter::prune(const KeepRules& rules, bool damaged, bool dry_run, unsigned threads) {
  return impl_->prune(rules, damaged, dry_run, threads);
}

}  // namespace ckpt::run
