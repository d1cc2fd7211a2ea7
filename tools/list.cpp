// ckpt list RUN: the checkpoints of a run, newest first.
#include <chrono>
#include <memory>
#include <set>

#include "args.h"
#include "checks.h"
#include "command.h"
#include "core/base/json.h"
#include "core/run/run.h"
#include "text.h"

namespace ckpt::tool {
namespace {

constexpr size_t kMetricColumns = 4;
constexpr size_t kSparklineWidth = 48;

struct Listing {
  std::string run;
  std::vector<run::Checkpoint> checkpoints;  // newest first
  std::optional<run::Monitor> monitor;       // of the newest manifest that has one
  std::optional<size_t> latest, best;        // among the good ones
};

void verify_all(const io::Directory& directory, std::vector<run::Checkpoint>& checkpoints, Output& output) {
  for (size_t i = 0; i < checkpoints.size(); ++i) {
    run::Checkpoint& checkpoint = checkpoints[i];
    if (checkpoint.state != run::State::kGood) continue;
    output.progress("verifying " + std::to_string(i + 1) + " of " + std::to_string(checkpoints.size()) + ": " +
                    checkpoint.name + " (" + human_bytes(checkpoint.bytes) + ")");
    const auto problems = check_step(directory, checkpoint.name);
    if (!problems || problems->empty()) continue;
    checkpoint.state = run::State::kDamaged;
    checkpoint.reason = describe(problems->front());
    if (problems->size() > 1) checkpoint.reason += ", and " + std::to_string(problems->size() - 1) + " more";
  }
  output.progress("");
}

void find_marks(Listing& listing) {
  std::vector<run::Candidate> candidates;
  std::vector<size_t> places;
  for (size_t i = 0; i < listing.checkpoints.size(); ++i) {
    const run::Checkpoint& checkpoint = listing.checkpoints[i];
    if (!checkpoint.manifest) continue;
    const run::Manifest& manifest = *checkpoint.manifest;
    if (checkpoint.state != run::State::kGood) continue;
    if (!listing.latest) listing.latest = i;
    candidates.push_back({manifest.sequence, manifest.iteration, manifest.time, manifest.metrics});
    places.push_back(i);
  }
  if (!listing.monitor) return;
  if (const auto best = run::best_of(candidates, *listing.monitor)) listing.best = places[*best];
}

Listing read_listing(const std::string& path, bool verify, Output& output) {
  require_run(path);
  const io::Directory directory = io::Directory::open(path);
  Listing listing;
  listing.run = path;
  run::Scan scan = run::scan(directory);
  listing.monitor = scan.monitor();
  listing.checkpoints = std::move(scan.checkpoints);
  if (verify) verify_all(directory, listing.checkpoints, output);
  find_marks(listing);
  return listing;
}

nlohmann::json to_json(const Listing& listing) {
  nlohmann::json rows = nlohmann::json::array();
  for (size_t i = 0; i < listing.checkpoints.size(); ++i) {
    const run::Checkpoint& checkpoint = listing.checkpoints[i];
    nlohmann::json metrics = nlohmann::json::object();
    if (checkpoint.manifest) {
      for (const auto& [name, value] : checkpoint.manifest->metrics) metrics[name] = json_number(value);
    }
    rows.push_back({{"path", checkpoint.path},
                    {"iteration", checkpoint.iteration},
                    {"epoch", checkpoint.manifest ? nlohmann::json(checkpoint.manifest->epoch) : nlohmann::json()},
                    {"metrics", metrics},
                    {"bytes", checkpoint.bytes},
                    {"state", run::to_string(checkpoint.state)},
                    {"latest", listing.latest == i},
                    {"best", listing.best == i}});
  }
  return {{"checkpoints", rows}};
}

/// The monitored metric first, then the others by name.
std::vector<std::string> metric_names(const Listing& listing) {
  std::set<std::string> all;
  for (const auto& checkpoint : listing.checkpoints) {
    if (!checkpoint.manifest) continue;
    for (const auto& metric : checkpoint.manifest->metrics) all.insert(metric.first);
  }
  std::vector<std::string> names;
  if (listing.monitor && all.erase(listing.monitor->metric)) names.push_back(listing.monitor->metric);
  names.insert(names.end(), all.begin(), all.end());
  return names;
}

/// "accuracy (max)  ▁▃▅█  0.91 to 0.98, best 0.98 at iteration 1500"; empty where nothing is monitored.
std::string monitor_line(const Listing& listing, const Output& output) {
  if (!listing.monitor) return "";
  std::vector<double> values;
  for (auto checkpoint = listing.checkpoints.rbegin(); checkpoint != listing.checkpoints.rend(); ++checkpoint) {
    if (!checkpoint->manifest) continue;
    const auto metric = checkpoint->manifest->metrics.find(listing.monitor->metric);
    if (metric != checkpoint->manifest->metrics.end()) values.push_back(metric->second);
  }
  if (values.empty()) return "";
  std::string text = printable(listing.monitor->metric) + (listing.monitor->mode == Mode::kMax ? " (max)" : " (min)");
  text += "  " + output.paint(Style::kGreen, sparkline(values, output.utf8(), kSparklineWidth));
  text += "  last " + human_number(values.back());
  if (listing.best) {
    const run::Manifest& best = *listing.checkpoints[*listing.best].manifest;
    text += ", best " + human_number(best.metrics.at(listing.monitor->metric)) + " at iteration " +
            std::to_string(best.iteration);
  }
  return text;
}

std::string notes_of(const Listing& listing, size_t i, const Output& output) {
  const run::Checkpoint& checkpoint = listing.checkpoints[i];
  if (checkpoint.state != run::State::kGood) return checkpoint.reason;
  std::string text;
  if (listing.latest == i) text = output.paint(Style::kBold, "latest");
  if (listing.best == i) text += (text.empty() ? "" : " ") + output.paint(Style::kGreen, "best");
  return text;
}

std::string state_of(const run::Checkpoint& checkpoint, const Output& output) {
  const std::string text(run::to_string(checkpoint.state));
  switch (checkpoint.state) {
    case run::State::kGood:
      return text;
    case run::State::kDamaged:
      return output.paint(Style::kRed, text);
    case run::State::kPartial:
      return output.paint(Style::kYellow, text);
  }
  return text;
}

double now() {
  using std::chrono::system_clock;
  return std::chrono::duration<double>(system_clock::now().time_since_epoch()).count();
}

void print_table(const Listing& listing, Output& output) {
  std::vector<std::string> names = metric_names(listing);
  const size_t left_out = names.size() > kMetricColumns ? names.size() - kMetricColumns : 0;
  names.resize(names.size() - left_out);

  Table table;
  table.add_column("iteration", Table::Align::kRight);
  table.add_column("epoch", Table::Align::kRight);
  for (const std::string& name : names) table.add_column(printable(name), Table::Align::kRight);
  table.add_column("size", Table::Align::kRight);
  table.add_column("age", Table::Align::kRight);
  table.add_column("state", Table::Align::kLeft);
  table.add_column("", Table::Align::kLeft);
  for (size_t i = 0; i < listing.checkpoints.size(); ++i) {
    const run::Checkpoint& checkpoint = listing.checkpoints[i];
    const auto& manifest = checkpoint.manifest;
    std::vector<std::string> cells{std::to_string(checkpoint.iteration),
                                   manifest ? std::to_string(manifest->epoch) : "-"};
    for (const std::string& name : names) {
      const bool has = manifest && manifest->metrics.contains(name);
      cells.push_back(has ? human_number(manifest->metrics.at(name)) : "-");
    }
    cells.push_back(human_bytes(checkpoint.bytes));
    cells.push_back(manifest ? human_age(now() - manifest->time) : "-");
    cells.push_back(state_of(checkpoint, output));
    cells.push_back(notes_of(listing, i, output));
    table.add_row(std::move(cells));
  }

  const std::string monitored = monitor_line(listing, output);
  if (!monitored.empty()) output.line(monitored);
  std::vector<std::string> lines = table.lines();
  lines[0] = output.paint(Style::kDim, lines[0]);
  for (const std::string& line : lines) output.line(line);
  if (left_out) output.note(counted(left_out, "more metric") + ": see --json");
}

int list(const std::string& run, bool verify, Output& output) {
  const Listing listing = read_listing(run, verify, output);
  output.object(to_json(listing));
  if (listing.checkpoints.empty()) {
    output.note(printable(run) + ": no checkpoint yet");
  } else {
    print_table(listing, output);
  }
  return 0;
}

}  // namespace

Action declare_list(CLI::App& app) {
  struct Flags {
    std::string run;
    bool verify = false;
  };
  auto flags = std::make_shared<Flags>();
  app.description("Lists the checkpoints of a run, newest first: iteration, epoch, metrics, size, age, state.");
  app.add_option("RUN", flags->run, "run directory")->required();
  app.add_flag("--verify", flags->verify, "read every byte; without it state comes from sizes and manifests");
  app.footer(
      "state: good; damaged (a manifest is invalid or a size is wrong; with --verify any byte); partial (no "
      "manifest).\n"
      "\n"
      "Examples:\n"
      "  ckpt list runs/digits\n"
      "  ckpt list --verify runs/digits\n"
      "  ckpt list --json runs/digits | jq -r '.checkpoints[] | select(.best) | .path'\n"
      "\n"
      "Exit codes:\n"
      "  0  listed; an empty run has no rows\n"
      "  2  usage\n"
      "  3  the run cannot be read\n"
      "  6  there is no such run");
  return [flags](Output& output) { return list(without_trailing_slash(flags->run), flags->verify, output); };
}

}  // namespace ckpt::tool
