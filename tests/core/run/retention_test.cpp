#include "core/run/retention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "ckpt/error.h"

namespace ckpt::run {
namespace {

const Monitor kAccuracy{"accuracy", Mode::kMax};
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Candidate candidate(uint64_t sequence, uint64_t iteration, std::optional<double> accuracy = {}, double time = 0) {
  Candidate made{.sequence = sequence, .iteration = iteration, .time = time, .metrics = {}};
  if (accuracy) made.metrics["accuracy"] = *accuracy;
  return made;
}

using Kept = std::vector<bool>;

TEST(Retention, NoRuleKeepsAll) { EXPECT_EQ(keep({candidate(1, 1), candidate(2, 2)}, {}, 0), (Kept{true, true})); }

TEST(Retention, NoCandidates) { EXPECT_TRUE(keep({}, {.last = 1}, 0).empty()); }

TEST(Retention, LastIsByCommitOrderNotByIteration) {
  // Rewound from 300 to 100: 200 was saved last.
  EXPECT_EQ(keep({candidate(1, 100), candidate(3, 200), candidate(2, 300)}, {.last = 1}, 0),
            (Kept{false, true, false}));
}

TEST(Retention, NewestStaysWhateverTheRules) {
  const std::vector<Candidate> all{candidate(1, 10), candidate(2, 11)};
  EXPECT_EQ(keep(all, {.last = 0}, 0), (Kept{false, true}));
  EXPECT_EQ(keep(all, {.every = 10}, 0), (Kept{true, true}));
  EXPECT_EQ(keep(all, {.hours = 0}, 1e9), (Kept{false, true}));
}

TEST(Retention, BestTiesGoToTheNewer) {
  EXPECT_EQ(
      keep({candidate(1, 1, 0.5), candidate(2, 2, 0.5), candidate(3, 3, 0.1)}, {.best = 1, .monitor = kAccuracy}, 0),
      (Kept{false, true, true}));
}

TEST(Retention, NanFillsAFreePlaceAndAMissingMetricNever) {
  const std::vector<Candidate> all{candidate(1, 1, kNaN), candidate(2, 2), candidate(3, 3, -kInfinity),
                                   candidate(4, 4)};
  EXPECT_EQ(keep(all, {.best = 1, .monitor = kAccuracy}, 0), (Kept{false, false, true, true}));
  EXPECT_EQ(keep(all, {.best = 2, .monitor = kAccuracy}, 0), (Kept{true, false, true, true}));
  EXPECT_EQ(keep(all, {.best = 9, .monitor = kAccuracy}, 0), (Kept{true, false, true, true}));
}

TEST(Retention, BestOfIsNeverNanOrMissing) {
  EXPECT_EQ(best_of({}, kAccuracy), std::nullopt);
  EXPECT_EQ(best_of({candidate(1, 1), candidate(2, 2, kNaN)}, kAccuracy), std::nullopt);
  EXPECT_EQ(best_of({candidate(1, 1, -kInfinity), candidate(2, 2, kNaN)}, kAccuracy), 0u);
  EXPECT_EQ(best_of({candidate(1, 1, 3), candidate(2, 2, 1), candidate(3, 3, 1)}, Monitor{"accuracy", Mode::kMin}), 2u);
}

TEST(Retention, RulesThatMakeNoSenseAreRefused) {
  for (const KeepRules& rules :
       {KeepRules{.best = 1}, KeepRules{.every = 0}, KeepRules{.hours = -1}, KeepRules{.hours = kNaN}}) {
    EXPECT_THROW(keep({}, rules, 0), Error);
  }
}

// --- against a model that asks of each candidate, by counting, whether some rule keeps it ---------------------------

bool is_newer(const Candidate& a, const Candidate& b) {
  return a.sequence > b.sequence || (a.sequence == b.sequence && a.iteration > b.iteration);
}

/// Whether `a` comes before `b` when the best are counted.
bool is_better(const Candidate& a, const Candidate& b, const Monitor& monitor) {
  const double x = a.metrics.at(monitor.metric), y = b.metrics.at(monitor.metric);
  if (std::isnan(x) && std::isnan(y)) return is_newer(a, b);
  if (std::isnan(x)) return false;
  if (std::isnan(y)) return true;
  if (x == y) return is_newer(a, b);
  return (x > y) == (monitor.mode == Mode::kMax);
}

bool model_keeps(const std::vector<Candidate>& all, const Candidate& one, const KeepRules& rules, double now) {
  uint64_t newer = 0, better = 0;
  for (const Candidate& other : all) {
    newer += is_newer(other, one);
    if (rules.best && one.metrics.contains(rules.monitor->metric) && other.metrics.contains(rules.monitor->metric)) {
      better += is_better(other, one, *rules.monitor);
    }
  }
  if (rules.keeps_all() || newer == 0) return true;
  if (rules.last && newer < *rules.last) return true;
  if (rules.best && one.metrics.contains(rules.monitor->metric) && better < *rules.best) return true;
  if (rules.every && one.iteration % *rules.every == 0) return true;
  return rules.hours && now - one.time <= *rules.hours * 3600;
}

class RandomHistory {
 public:
  explicit RandomHistory(uint32_t seed) : random_(seed) {}

  uint64_t below(uint64_t limit) { return std::uniform_int_distribution<uint64_t>(0, limit - 1)(random_); }

  KeepRules rules() {
    KeepRules made;
    if (below(2)) made.last = below(4);
    if (below(2)) {
      made.best = below(4);
      made.monitor = Monitor{below(2) ? "accuracy" : "loss", below(2) ? Mode::kMax : Mode::kMin};
    }
    if (below(3) == 0) made.every = 1 + below(5);
    if (below(3) == 0) made.hours = static_cast<double>(below(4)) * 0.5;
    return made;
  }

  Candidate next(uint64_t sequence, double time) {
    Candidate made{.sequence = sequence, .iteration = below(30), .time = time, .metrics = {}};
    for (const char* name : {"accuracy", "loss"}) {
      const double values[] = {kNaN, kInfinity, -kInfinity, 0.0, -0.0, 0.25, 0.5, 0.75};
      if (below(4)) made.metrics[name] = values[below(std::size(values))];
    }
    return made;
  }

 private:
  std::mt19937 random_;
};

/// A whole life: saves one by one, iterations that come again replace, what is not kept goes.
TEST(Retention, AgreesWithTheModelOnRandomHistories) {
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    RandomHistory history(seed);
    const KeepRules rules = history.rules();
    std::vector<Candidate> run;
    double now = 0;
    const uint64_t saves = 1 + history.below(25);
    for (uint64_t sequence = 1; sequence <= saves; ++sequence) {
      now += static_cast<double>(history.below(3)) * 900;
      const Candidate saved = history.next(sequence, now);
      std::erase_if(run, [&](const Candidate& one) { return one.iteration == saved.iteration; });
      run.insert(run.begin() + static_cast<std::ptrdiff_t>(history.below(run.size() + 1)), saved);

      const std::vector<bool> kept = keep(run, rules, now);
      ASSERT_EQ(kept.size(), run.size());
      std::vector<Candidate> remaining;
      for (size_t i = 0; i < run.size(); ++i) {
        ASSERT_EQ(kept[i], model_keeps(run, run[i], rules, now))
            << "seed " << seed << " iteration " << run[i].iteration;
        if (kept[i]) remaining.push_back(run[i]);
      }
      // Asked again, nothing more goes.
      ASSERT_EQ(keep(remaining, rules, now), Kept(remaining.size(), true)) << "seed " << seed;
      run = remaining;
    }
  }
}

}  // namespace
}  // namespace ckpt::run
