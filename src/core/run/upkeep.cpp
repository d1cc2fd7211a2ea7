#include <algorithm>
#include <chrono>
#include <set>

#include "ckpt/error.h"
#include "core/run/names.h"
#include "core/run/writer_impl.h"

namespace ckpt::run {
namespace {

Known known_of(const Checkpoint& checkpoint) {
  Known known{.name = checkpoint.name, .good = checkpoint.state == State::kGood, .candidate = {}, .monitor = {}};
  if (checkpoint.manifest) {
    known.candidate = checkpoint.manifest->candidate();
    known.monitor = checkpoint.manifest->monitor;
  }
  known.candidate.iteration = checkpoint.iteration;
  return known;
}

/// Points a link somewhere, or removes it, if it is not so already.
void set_link(const io::Directory& run, std::string_view link, const std::string* target,
              std::vector<std::string>& warnings) {
  try {
    const std::optional<std::string> now = run.read_link(link);
    if (target && now != *target) run.replace_link(link, *target);
    if (!target && now) run.remove_file(link);
  } catch (const Error& error) {
    warnings.push_back("the link " + std::string(link) + " was not renewed: " + error.what());
  }
}

}  // namespace

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void RunWriter::Impl::remember(const Scan& scan) {
  known.clear();
  for (const Checkpoint& one : scan.checkpoints) known.push_back(known_of(one));
  must_rescan = false;
}

void RunWriter::Impl::refresh() {
  if (must_rescan) return remember(scan(run));
  std::set<std::string, std::less<>> there;
  for (io::Entry& entry : run.list()) {
    if (iteration_of(entry.name)) there.insert(std::move(entry.name));
  }
  std::erase_if(known, [&](const Known& one) { return there.erase(one.name) == 0; });
  for (const std::string& added : there) {
    try {
      known.push_back(known_of(read_checkpoint(run, added)));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNotFound) throw;
    }
  }
}

uint64_t RunWriter::Impl::next_sequence() const {
  uint64_t highest = 0;
  for (const Known& one : known) highest = std::max(highest, one.candidate.sequence);
  if (highest == UINT64_MAX)
    throw Error(ErrorCode::kInvalid, run.path(), "the sequence numbers of this run are used up");
  return highest + 1;
}

std::optional<Monitor> RunWriter::Impl::newest_monitor() const {
  const Known* newest = nullptr;
  for (const Known& one : known) {
    if (one.monitor && (!newest || one.candidate.sequence > newest->candidate.sequence)) newest = &one;
  }
  return newest ? newest->monitor : std::nullopt;
}

std::vector<std::string> RunWriter::Impl::victims(const KeepRules& rules) const {
  std::vector<Candidate> candidates;
  std::vector<const Known*> good;
  for (const Known& one : known) {
    if (!one.good) continue;
    candidates.push_back(one.candidate);
    good.push_back(&one);
  }
  const std::vector<bool> kept = keep(candidates, rules, unix_time());
  std::vector<std::string> leaving;
  for (size_t i = 0; i < good.size(); ++i) {
    if (!kept[i]) leaving.push_back(good[i]->name);
  }
  return leaving;
}

void RunWriter::Impl::upkeep(const KeepRules& rules, const std::string& replaced, Committed& done) {
  std::vector<std::string> leaving;
  try {
    refresh();
    leaving = victims(rules);
  } catch (const Error& error) {
    done.warnings.push_back(std::string("old checkpoints were not looked through: ") + error.what());
  }
  renew_links(leaving, done.warnings);  // 7
  if (!replaced.empty()) leaving.push_back(replaced);
  for (const std::string& name : remove(leaving, done.warnings)) {  // 8
    if (name != replaced) done.deleted.push_back(run.path_of(name));
  }
}

void RunWriter::Impl::renew_links(const std::vector<std::string>& leaving, std::vector<std::string>& warnings) const {
  std::vector<Candidate> candidates;
  std::vector<const Known*> staying;
  const std::set<std::string_view> gone(leaving.begin(), leaving.end());
  for (const Known& one : known) {
    if (!one.good || gone.contains(one.name)) continue;
    candidates.push_back(one.candidate);
    staying.push_back(&one);
  }
  const auto older = [](const Known* a, const Known* b) {
    return std::pair(a->candidate.sequence, a->candidate.iteration) <
           std::pair(b->candidate.sequence, b->candidate.iteration);
  };
  const auto latest = std::max_element(staying.begin(), staying.end(), older);
  set_link(run, kLatestName, latest != staying.end() ? &(*latest)->name : nullptr, warnings);

  const std::optional<Monitor> monitor = newest_monitor();
  const std::optional<size_t> best = monitor ? best_of(candidates, *monitor) : std::nullopt;
  set_link(run, kBestName, best ? &staying[*best]->name : nullptr, warnings);
}

std::vector<std::string> RunWriter::Impl::remove(const std::vector<std::string>& names,
                                                 std::vector<std::string>& warnings) {
  std::vector<std::string> gone;
  std::vector<std::string> trash;
  std::set<std::string_view> forgotten;
  const auto warn = [&](const Error& error) { warnings.push_back(std::string("not deleted: ") + error.what()); };
  for (const std::string& name : names) {
    std::string step;
    const Leftover kind = leftover_of(name, &step);
    // A temporary name never comes back as it is.
    const std::string to = kind == Leftover::kTemporary ? name : trash_name(kind == Leftover::kNone ? name : step);
    try {
      if (to != name) run.rename(name, to);
      gone.push_back(name);
      trash.push_back(to);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kNotFound) {
        warn(error);
        continue;
      }
    }
    forgotten.insert(name);
  }
  std::erase_if(known, [&](const Known& one) { return forgotten.contains(one.name); });
  if (trash.empty()) return gone;
  try {
    // Else a power cut could bring back the name with half of the files.
    run.sync();
    for (const std::string& name : trash) run.remove_tree(name);
  } catch (const Error& error) {
    warn(error);
  }
  return gone;
}

}  // namespace ckpt::run
