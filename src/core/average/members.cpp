#include "core/average/members.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "core/average/exact_sum.h"
#include "core/base/quote.h"
#include "core/format/content.h"
#include "core/run/names.h"
#include "core/run/run.h"
#include "core/weights/python_checkpoint.h"

namespace ckpt::average {
namespace {

/// A path to open, and the iteration that is known of it.
struct Found {
  std::string path;
  std::optional<uint64_t> iteration = std::nullopt;
  bool is_checkpoint = false;
};

/// Errors that are told together.
class Problems {
 public:
  void attempt(const std::function<void()>& body) {
    try {
      body();
    } catch (const Error& error) {
      errors_.push_back(error);
    }
  }
  /// The only one as it is; several with the code of the first.
  void report() const {
    if (errors_.empty()) return;
    const Error& first = errors_.front();
    if (errors_.size() == 1) throw first;
    std::vector<std::string> details;
    for (const Error& error : errors_) details.emplace_back(error.what());
    throw Error(first.code(), first.path(),
                first.message() + ", and " + std::to_string(errors_.size() - 1) + " more inputs",
                {.offset = first.offset(), .tensor = first.tensor(), .details = std::move(details)});
  }

 private:
  std::vector<Error> errors_;
};

bool chosen_by_name(const AverageSelection& select) { return !select.iterations.empty(); }

void check_selection(const AverageSelection& select) {
  const int set = int{select.best.has_value()} + int{select.last.has_value()} + int{select.range.has_value()} +
                  int{chosen_by_name(select)};
  const auto refuse = [](const char* why) { throw Error(ErrorCode::kInvalid, "", std::string("selection: ") + why); };
  if (set > 1) refuse("best, last, range and iterations exclude each other");
  if (select.best == 0) refuse("best is 0, expected at least 1");
  if (select.last == 0) refuse("last is 0, expected at least 1");
  if (select.range && select.range->second < select.range->first) refuse("the range ends before it begins");
}

using Checkpoints = std::vector<const run::Checkpoint*>;

/// Those that have the metric, best first.
Checkpoints best_of(const Checkpoints& all, const run::Monitor& monitor) {
  std::vector<run::Candidate> candidates;
  for (const run::Checkpoint* one : all) candidates.push_back(one->manifest->candidate());
  Checkpoints ordered;
  for (const size_t i : run::ranked(candidates, monitor)) ordered.push_back(all[i]);
  return ordered;
}

class Chooser {
 public:
  Chooser(const std::string& path, const AverageSelection& select, std::vector<std::string>& warnings)
      : path_(path), select_(select), scan_(run::scan(io::Directory::open(path))), warnings_(warnings) {}

  std::vector<Found> choose() {
    if (scan_.checkpoints.empty()) throw Error(ErrorCode::kNotFound, path_, "holds no checkpoint");
    if (chosen_by_name(select_)) return listed();
    Checkpoints good = good_ones();
    if (good.empty()) {
      throw Error(ErrorCode::kCorrupt, path_, "none of its checkpoints is whole: " + scan_.checkpoints[0].reason);
    }
    if (select_.best) {
      good = best_of(good, monitor());
      if (good.empty()) throw Error(ErrorCode::kNotFound, path_, "no checkpoint has the metric");
      good.resize(std::min<size_t>(good.size(), *select_.best));
    }
    if (select_.last) good.resize(std::min<size_t>(good.size(), *select_.last));
    std::sort(good.begin(), good.end(), [](const run::Checkpoint* a, const run::Checkpoint* b) {
      return std::pair(a->manifest->sequence, a->iteration) < std::pair(b->manifest->sequence, b->iteration);
    });
    std::vector<Found> found;
    for (const run::Checkpoint* one : good) {
      if (!in_range(*one)) continue;
      found.push_back({one->path, one->iteration, true});
    }
    if (found.empty()) throw Error(ErrorCode::kNotFound, path_, "holds no checkpoint in the range");
    return found;
  }

 private:
  bool in_range(const run::Checkpoint& one) const {
    return !select_.range || (one.iteration >= select_.range->first && one.iteration <= select_.range->second);
  }

  /// Newest first. What is not whole is passed over where it could have been chosen.
  Checkpoints good_ones() {
    Checkpoints good;
    for (const run::Checkpoint& one : scan_.checkpoints) {
      if (one.state == run::State::kGood) {
        good.push_back(&one);
      } else if (in_range(one)) {
        warnings_.push_back("passed over " + quote(one.path) + ": " + one.reason);
      }
    }
    return good;
  }

  run::Monitor monitor() const {
    if (!select_.metric.empty()) return {select_.metric, select_.mode};
    const std::optional<run::Monitor> monitor = scan_.monitor();
    if (!monitor) throw Error(ErrorCode::kNotFound, path_, "no metric was ever monitored, so none is the best");
    return *monitor;
  }

  std::vector<Found> listed() const {
    std::vector<Found> found;
    std::vector<std::string> missing;
    for (const uint64_t iteration : select_.iterations) {
      const auto one = std::find_if(scan_.checkpoints.begin(), scan_.checkpoints.end(),
                                    [&](const run::Checkpoint& it) { return it.iteration == iteration; });
      if (one == scan_.checkpoints.end()) {
        missing.push_back("iteration " + std::to_string(iteration));
      } else {
        found.push_back({one->path, iteration, true});
      }
    }
    if (missing.empty()) return found;
    const std::string message = "holds no checkpoint of " + missing[0];
    throw Error(ErrorCode::kNotFound, path_, message,
                {.offset = std::nullopt, .tensor = {}, .details = std::move(missing)});
  }

  const std::string& path_;
  const AverageSelection& select_;
  run::Scan scan_;
  std::vector<std::string>& warnings_;
};

/// `iterations` of a training checkpoint of Python. What is wrong with the file is for who opens its weights.
std::optional<uint64_t> python_iterations(const std::string& path) {
  try {
    io::File file = io::File::open(path);
    const format::Content content = format::content_of(file);
    if (content != format::Content::kZip && content != format::Content::kPickle) return std::nullopt;
    const format::TorchFile torch = format::TorchFile::open(std::move(file));
    if (!weights::is_python_checkpoint(torch)) return std::nullopt;
    const format::PickleNode found = torch.find(torch.root(), "iterations");
    if (found == format::kNoNode || torch.kind(found) != format::TorchKind::kInt) return std::nullopt;
    const int64_t iterations = torch.pickle().integer(found);
    return iterations < 0 ? std::nullopt : std::optional(static_cast<uint64_t>(iterations));
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::vector<Found> find(const std::string& input, const AverageSelection& select, std::vector<std::string>& warnings) {
  const std::optional<io::Stat> stat = io::stat(input);
  if (!stat) throw Error(ErrorCode::kIo, input, "does not exist");
  if (stat->type != io::FileType::kDirectory) return {{input, python_iterations(input)}};
  if (!run::is_checkpoint_directory(input)) return Chooser(input, select, warnings).choose();
  const run::Checkpoint checkpoint = run::read_checkpoint(io::Directory::open(input));
  if (checkpoint.state != run::State::kGood) throw Error(ErrorCode::kCorrupt, input, checkpoint.reason);
  return {{input, checkpoint.manifest->iteration, true}};
}

Member open_member(const Found& found, const AverageOptions& options, std::vector<std::string>& warnings) {
  // Not verified as a whole: that would be a second reading. Every checksum is looked at on the way, but those of a
  // checkpoint that is a copy of its weights alone: they are in the manifest.
  const bool verify = found.is_checkpoint && !io::stat(found.path + "/" + std::string(run::kStateName));
  Member member{.path = found.path,
                .iteration = found.iteration,
                .weight = 1,
                .weights = weights::Weights::open(
                    found.path, {.key = options.key, .ema = options.ema, .whole = false, .verify = verify}),
                .as_opened = {}};
  for (const auto& file : member.weights.files()) member.as_opened.push_back(file->stat());
  for (const std::string& warning : member.weights.warnings()) warnings.push_back(found.path + ": " + warning);
  return member;
}

/// Sets weights and method.
void weigh(Members& members, const AverageOptions& options) {
  const size_t count = members.list.size();
  const auto refuse = [](const std::string& why) { throw Error(ErrorCode::kInvalid, "", why); };
  members.method = "mean";
  if (options.ema_decay) {
    const double decay = *options.ema_decay;
    if (!options.weights.empty()) refuse("weights and a decay exclude each other");
    if (!(decay >= 0 && decay < 1)) refuse("the decay is " + std::to_string(decay) + ", expected 0 <= decay < 1");
    members.method = "ema";
    for (size_t i = 0; i < count; ++i) {
      const double left = std::pow(decay, static_cast<double>(count - 1 - i));
      members.list[i].weight = i == 0 ? left : (1 - decay) * left;
    }
  } else if (!options.weights.empty()) {
    if (options.weights.size() != count) {
      throw Error(ErrorCode::kMismatch, "",
                  std::to_string(options.weights.size()) + " weights for " + std::to_string(count) + " inputs");
    }
    const bool finite = std::all_of(options.weights.begin(), options.weights.end(),
                                    [](double weight) { return std::isfinite(weight); });
    const ExactNumber sum = finite ? exact_sum(options.weights) : ExactNumber();
    if (sum.size == 0 || sum.negative) refuse("expected finite weights with a sum above 0");
    members.method = "weighted";
    for (size_t i = 0; i < count; ++i) members.list[i].weight = options.weights[i];
  }
}

}  // namespace

Members open_members(const std::vector<std::string>& inputs, const AverageOptions& options) {
  check_selection(options.select);
  if (inputs.empty()) throw Error(ErrorCode::kInvalid, "", "there is nothing to average");
  Members members;
  Problems problems;
  for (const std::string& input : inputs) {
    problems.attempt([&] {
      for (const Found& found : find(input, options.select, members.warnings)) {
        problems.attempt([&] { members.list.push_back(open_member(found, options, members.warnings)); });
      }
    });
  }
  problems.report();
  weigh(members, options);
  return members;
}

void require_unchanged(const Members& members) {
  for (const Member& member : members.list) {
    for (size_t i = 0; i < member.as_opened.size(); ++i) {
      const io::File& file = *member.weights.files()[i];
      const io::Stat &before = member.as_opened[i], now = file.stat();
      if (now.bytes == before.bytes && now.modified_ns == before.modified_ns) continue;
      throw Error(ErrorCode::kIo, file.path(), "was changed while it was read");
    }
  }
}

}  // namespace ckpt::average
