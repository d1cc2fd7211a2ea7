#include "core/run/retention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ckpt/error.h"

namespace ckpt::run {
namespace {

constexpr double kSecondsPerHour = 3600;

bool newer(const Candidate& a, const Candidate& b) {
  return a.sequence != b.sequence ? a.sequence > b.sequence : a.iteration > b.iteration;
}

std::vector<size_t> newest_first(const std::vector<Candidate>& candidates) {
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return newer(candidates[a], candidates[b]); });
  return order;
}

}  // namespace

void KeepRules::check() const {
  if (best && !monitor) throw Error(ErrorCode::kInvalid, "", "keeping the best needs a metric to monitor");
  if (every && *every == 0) throw Error(ErrorCode::kInvalid, "", "keeping every M iterations: expected M > 0, got 0");
  if (hours && !(*hours >= 0)) {
    throw Error(ErrorCode::kInvalid, "",
                "keeping for some hours: expected a number >= 0, got " + std::to_string(*hours));
  }
}

std::vector<bool> keep(const std::vector<Candidate>& candidates, const KeepRules& rules, double now) {
  rules.check();
  if (rules.keeps_all()) return std::vector<bool>(candidates.size(), true);

  std::vector<bool> kept(candidates.size(), false);
  const std::vector<size_t> order = newest_first(candidates);
  const uint64_t last = std::max<uint64_t>(rules.last.value_or(0), 1);
  for (size_t i = 0; i < order.size() && i < last; ++i) kept[order[i]] = true;
  if (rules.best) {
    const std::vector<size_t> best = ranked(candidates, *rules.monitor);
    for (size_t i = 0; i < best.size() && i < *rules.best; ++i) kept[best[i]] = true;
  }
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (rules.every && candidates[i].iteration % *rules.every == 0) kept[i] = true;
    if (rules.hours && candidates[i].time >= now - *rules.hours * kSecondsPerHour) kept[i] = true;
  }
  return kept;
}

std::vector<size_t> ranked(const std::vector<Candidate>& candidates, const Monitor& monitor) {
  std::vector<size_t> order = newest_first(candidates);
  std::erase_if(order, [&](size_t i) { return !candidates[i].metrics.contains(monitor.metric); });
  // Stable, and newest first before: ties stay newest first.
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const double x = candidates[a].metrics.at(monitor.metric);
    const double y = candidates[b].metrics.at(monitor.metric);
    if (std::isnan(x) || std::isnan(y)) return !std::isnan(x) && std::isnan(y);
    return monitor.mode == Mode::kMax ? x > y : x < y;
  });
  return order;
}

std::optional<size_t> best_of(const std::vector<Candidate>& candidates, const Monitor& monitor) {
  const std::vector<size_t> order = ranked(candidates, monitor);
  if (order.empty() || std::isnan(candidates[order.front()].metrics.at(monitor.metric))) return std::nullopt;
  return order.front();
}

}  // namespace ckpt::run
