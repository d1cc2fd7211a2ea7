#include "core/average/soup.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ckpt/error.h"
#include "core/average/average.h"
#include "core/io/file.h"

namespace ckpt::average {
namespace {

constexpr uint32_t kPrivate = 0700;

/// Where candidates are written; removed with all that an evaluator left in it.
class Kitchen {
 public:
  explicit Kitchen(const std::string& out)
      : beside_(io::Directory::open(io::parent_path(out))),
        name_(io::file_name(out) + ".tmp-" + io::random_name()),
        directory_(beside_.create_dir(name_, kPrivate)) {}
  ~Kitchen() {
    try {
      beside_.remove_tree(name_);
    } catch (const Error&) {  // what ended the soup is the one to tell
    }
  }
  Kitchen(const Kitchen&) = delete;
  Kitchen& operator=(const Kitchen&) = delete;

  std::string path_of(const std::string& name) const { return directory_.path_of(name); }

 private:
  io::Directory beside_;
  std::string name_;
  io::Directory directory_;
};

const char* candidate_name(Format format) {
  return format == Format::kTorch || format == Format::kArchive ? "candidate.pt" : "candidate.safetensors";
}

class Cook {
 public:
  Cook(const std::string& out, const SoupOptions& options, const SoupMetric& metric)
      : options_(options), metric_(metric), kitchen_(out) {
    candidate_ = options.average;
    candidate_.select = {};
    candidate_.format = output_format(out, options.average);
    if (candidate_.format == Format::kCheckpoint) candidate_.format = Format::kSafetensors;
    path_ = kitchen_.path_of(candidate_name(*candidate_.format));
  }

  /// The metric of the mean of `inputs`.
  double taste(const std::vector<std::string>& inputs) {
    average(inputs, path_, candidate_);
    return metric_(path_);
  }

  /// NaN is worse than any number, and no better than itself.
  bool worse(double a, double b) const {
    if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && !std::isnan(b);
    return options_.mode == Mode::kMax ? a < b : a > b;
  }

 private:
  const SoupOptions& options_;
  const SoupMetric& metric_;
  Kitchen kitchen_;
  AverageOptions candidate_;
  std::string path_;
};

}  // namespace

SoupReport soup(const std::vector<std::string>& inputs, const std::string& out, const SoupOptions& options,
                const SoupMetric& metric) {
  if (!options.average.weights.empty() || options.average.ema_decay) {
    throw Error(ErrorCode::kInvalid, out, "a greedy soup is a plain mean; it takes neither weights nor a decay");
  }
  AverageOptions look = options.average;
  look.dry_run = true;
  SoupReport report{.average = average(inputs, out, look), .metric = 0, .trials = {}};
  if (options.average.dry_run) return report;

  Cook cook(out, options, metric);
  for (const AverageInput& input : report.average.inputs) {
    report.trials.push_back({{input.path}, cook.taste({input.path}), false});
  }
  std::vector<size_t> order(report.trials.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return cook.worse(report.trials[b].metric, report.trials[a].metric); });
  std::vector<std::string> kept = report.trials[order[0]].inputs;
  report.trials[order[0]].kept = true;
  report.metric = report.trials[order[0]].metric;
  for (size_t i = 1; i < order.size(); ++i) {
    std::vector<std::string> next = kept;
    next.push_back(report.trials[order[i]].inputs[0]);
    const double value = cook.taste(next);
    const bool keep = !cook.worse(value, report.metric);
    report.trials.push_back({next, value, keep});
    if (!keep) continue;
    kept = std::move(next);
    report.metric = value;
  }
  AverageOptions last = options.average;
  last.select = {};
  report.average = average(kept, out, last);
  return report;
}

}  // namespace ckpt::average
