#include "core/average/best.h"

#include <algorithm>
#include <functional>
#include <map>

#include "core/average/average.h"
#include "core/base/json.h"
#include "core/format/safetensors.h"
#include "core/run/names.h"
#include "core/run/run.h"

namespace ckpt::average {
namespace {

constexpr const char* kCheckpointsKey = "ckpt.checkpoints";

/// Oldest first.
std::vector<run::Checkpoint> best_of(const io::Directory& directory, const BestWanted& wanted) {
  run::Scan scan = run::scan(directory);
  std::erase_if(scan.checkpoints, [](const run::Checkpoint& one) { return one.state != run::State::kGood; });
  std::vector<run::Candidate> candidates;
  for (const run::Checkpoint& one : scan.checkpoints) candidates.push_back(one.manifest->candidate());
  std::vector<size_t> order = run::ranked(candidates, wanted.monitor);
  order.resize(std::min<size_t>(order.size(), wanted.count));
  std::sort(order.begin(), order.end(), std::greater<>());  // the scan has the newest first
  std::vector<run::Checkpoint> best;
  for (const size_t i : order) best.push_back(std::move(scan.checkpoints[i]));
  return best;
}

/// Whether the file is the average of `checkpoints` already.
bool is_of(const io::Directory& averaged, std::string_view name, const std::string& checkpoints) {
  try {
    const std::map<std::string, std::string> metadata = format::read_safetensors(averaged.open_file(name)).metadata;
    const auto found = metadata.find(kCheckpointsKey);
    return found != metadata.end() && found->second == checkpoints;
  } catch (const Error&) {  // not there, or no longer whole: written anew
    return false;
  }
}

void remove_temporaries(const io::Directory& averaged) {
  for (const io::Entry& entry : averaged.list()) {
    for (const std::string_view name : {run::kWeightsName, run::kAveragedEmaName}) {
      if (entry.name.starts_with(std::string(name) + ".tmp-")) averaged.remove_file(entry.name);
    }
  }
}

}  // namespace

std::vector<std::string> update_average_of_best(const io::Directory& run, const BestWanted& wanted) {
  std::vector<std::string> warnings;
  const auto attempt = [&](const std::string& what, const std::function<void()>& body) {
    try {
      body();
    } catch (const std::exception& error) {
      warnings.push_back(what + " was not renewed: " + error.what());
    }
  };
  attempt("the average of the best", [&] {
    const std::vector<run::Checkpoint> best = best_of(run, wanted);
    if (best.empty()) return;
    std::vector<std::string> paths;
    nlohmann::json ids = nlohmann::json::object();
    for (const run::Checkpoint& one : best) {
      paths.push_back(one.path);
      ids[one.name] = one.manifest->save_id;
    }
    const std::string checkpoints = dump_json(ids);
    const io::Directory averaged = io::Directory::open_or_create(run.path_of(run::kAveragedName));
    remove_temporaries(averaged);
    for (const auto& [name, ema] : {std::pair(run::kWeightsName, false), std::pair(run::kAveragedEmaName, true)}) {
      if ((ema && !wanted.ema) || is_of(averaged, name, checkpoints)) continue;
      const std::string path = averaged.path_of(name);
      attempt(path, [&, ema = ema] {
        average(paths, path, {.ema = ema, .metadata = {{kCheckpointsKey, checkpoints}}});
      });
    }
  });
  return warnings;
}

}  // namespace ckpt::average
