#include <algorithm>
#include <cmath>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "core/run/names.h"
#include "core/run/run.h"

namespace ckpt::run {
namespace {

/// How often a reader begins again when what it reads is rotated away; each time a newer one was saved meanwhile.
constexpr int kAttempts = 100;

/// Those with a manifest that has the metric, best first; NaN is never best.
std::vector<const Checkpoint*> best_first(const Scan& scan, const Monitor& monitor) {
  std::vector<Candidate> candidates;
  std::vector<const Checkpoint*> checkpoints;
  for (const Checkpoint& one : scan.checkpoints) {
    if (!one.manifest) continue;
    candidates.push_back(one.manifest->candidate());
    checkpoints.push_back(&one);
  }
  std::vector<const Checkpoint*> ordered;
  for (size_t i : ranked(candidates, monitor)) {
    if (!std::isnan(candidates[i].metrics.at(monitor.metric))) ordered.push_back(checkpoints[i]);
  }
  return ordered;
}

/// What a reader may take, in the order to try; and those whose place in that order nobody knows.
struct Choice {
  std::vector<const Checkpoint*> in_order;
  std::vector<const Checkpoint*> unknown;
};

Choice choice_of(const Scan& scan, const Wanted& wanted, const std::string& path) {
  Choice choice;
  if (wanted.which == Which::kIteration) {
    for (const Checkpoint& one : scan.checkpoints) {
      if (one.iteration == wanted.iteration) choice.in_order.push_back(&one);
    }
    return choice;
  }
  for (const Checkpoint& one : scan.checkpoints) (one.manifest ? choice.in_order : choice.unknown).push_back(&one);
  if (wanted.which == Which::kLatest) return choice;

  const std::optional<Monitor> monitor = scan.monitor();
  if (!monitor && !choice.in_order.empty()) {
    throw Error(ErrorCode::kNotFound, path, "no metric was ever monitored, so none is the best");
  }
  const bool some_readable = !choice.in_order.empty();
  choice.in_order = monitor ? best_first(scan, *monitor) : std::vector<const Checkpoint*>();
  // A run that can be read, and none has the metric: there is no best, whatever the unreadable ones were.
  if (some_readable && choice.in_order.empty()) choice.unknown.clear();
  return choice;
}

std::string reason_of(const Problem& problem, size_t count) {
  std::string reason = problem.file.empty() ? "" : quote(problem.file) + ": ";
  if (!problem.damage.record.empty()) reason += "record " + quote(problem.damage.record) + ": ";
  if (!problem.damage.tensor.empty()) reason += "tensor " + quote(problem.damage.tensor) + ": ";
  reason += problem.damage.reason + " (byte " + std::to_string(problem.damage.offset) + ")";
  if (count > 1) reason += ", and " + std::to_string(count - 1) + " more";
  return reason;
}

enum class Outcome { kGood, kBad, kGone };

/// Looks at the checkpoint again, by its descriptor, and replaces `checkpoint` by what is there.
Outcome examine(const io::Directory& run, const Wanted& wanted, unsigned threads, Checkpoint& checkpoint) {
  try {
    checkpoint = read_checkpoint(run, checkpoint.name);
    if (checkpoint.state != State::kGood) return Outcome::kBad;
    if (!wanted.verify) return Outcome::kGood;
    const io::Directory directory = run.open_dir(checkpoint.name);
    const std::vector<Problem> problems = verify(directory, threads);
    // What was verified must be what is reported.
    if (!still_named(run, checkpoint.name, directory)) return Outcome::kGone;
    if (problems.empty()) {
      return read_manifest(directory).save_id == checkpoint.manifest->save_id ? Outcome::kGood : Outcome::kGone;
    }
    checkpoint.state = State::kDamaged;
    checkpoint.reason = reason_of(problems.front(), problems.size());
    return Outcome::kBad;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kNotFound) return Outcome::kGone;
    throw;
  }
}

/// One try with one scan. `again`: something vanished, and another scan shows what took its place.
std::optional<Selection> select_from(const io::Directory& run, const Scan& scan, const Wanted& wanted, unsigned threads,
                                     bool& again) {
  const Choice choice = choice_of(scan, wanted, run.path());
  Selection selection;
  const auto pass_over = [&](const Checkpoint& one) { selection.passed_over.push_back({one.path, one.reason}); };
  for (const Checkpoint* one : choice.unknown) pass_over(*one);
  for (const Checkpoint* one : choice.in_order) {
    selection.checkpoint = *one;
    const Outcome outcome = examine(run, wanted, threads, selection.checkpoint);
    if (outcome == Outcome::kGood) return selection;
    if (outcome == Outcome::kGone) {
      again = true;
      return std::nullopt;
    }
    pass_over(selection.checkpoint);
  }
  if (selection.passed_over.empty()) return std::nullopt;

  const PassedOver& first = selection.passed_over.front();
  std::vector<std::string> details;
  for (const PassedOver& one : selection.passed_over) details.push_back(one.path + ": " + one.reason);
  throw Error(ErrorCode::kCorrupt, run.path(),
              "no checkpoint " + std::string(wanted.which == Which::kLatest ? "" : "of those asked for ") +
                  "is good: " + std::to_string(details.size()) + " found, the first " + io::file_name(first.path) +
                  ": " + first.reason,
              {.offset = std::nullopt, .tensor = {}, .details = std::move(details)});
}

}  // namespace

std::optional<Selection> select(const io::Directory& run, const Wanted& wanted, unsigned threads) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    bool again = false;
    std::optional<Selection> selection = select_from(run, scan(run), wanted, threads, again);
    if (!again) return selection;
  }
  throw Error(ErrorCode::kIo, run.path(), "its checkpoints are replaced faster than they can be read");
}

}  // namespace ckpt::run
