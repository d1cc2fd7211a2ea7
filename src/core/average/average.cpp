#include "core/average/average.h"

#include <algorithm>
#include <numeric>

#include "core/average/members.h"
#include "core/average/plan.h"
#include "core/average/tiles.h"
#include "core/base/json.h"
#include "core/base/parallel.h"
#include "core/base/quote.h"
#include "core/weights/convert.h"
#include "core/weights/training_files.h"

namespace ckpt::average {
namespace {

using format::TensorToWrite;

/// What a person should know of the result, or why there is none.
void judge(const Tiles::Outcome& outcome, const Members& members, const Plan& plan, const AverageOptions& options,
           std::vector<std::string>& warnings) {
  const auto refuse = [](ErrorCode code, const std::string& what, std::vector<std::string> details) {
    std::string message = what + ": " + details[0];
    if (details.size() > 1) message += ", and " + std::to_string(details.size() - 1) + " more";
    throw Error(code, "", message, {.offset = std::nullopt, .tensor = {}, .details = std::move(details)});
  };
  std::vector<std::string> details;
  for (const size_t item : outcome.disagreements) {
    details.push_back(quote(plan.items[item].name) + ": " + std::string(name(plan.items[item].first().stored.dtype)) +
                      " values that are not the same in all");
  }
  if (!details.empty()) refuse(ErrorCode::kMismatch, "the inputs do not agree", std::move(details));

  std::vector<std::string> allowed, refused;
  std::vector<std::string>& of_nonfinite = options.allow_nonfinite ? allowed : refused;
  for (const auto& [place, count] : outcome.nonfinite) {
    of_nonfinite.push_back(members.list[place.first].path + ": " + quote(plan.items[place.second].name) + ": " +
                           std::to_string(count) + (count == 1 ? " number is" : " numbers are") + " NaN or infinite");
  }
  const bool all_finite = refused.empty();
  for (const size_t item : outcome.overflows) {
    // Integers that do not fit have no value at all; an infinity is one.
    const bool is_integer = plan.items[item].action != Action::kMean;
    (is_integer ? refused : of_nonfinite)
        .push_back(quote(plan.items[item].name) + ": the result is beyond what " +
                   std::string(name(plan.items[item].to)) + " can hold");
  }
  if (!refused.empty()) {
    refuse(ErrorCode::kInvalid, all_finite ? "cannot be averaged" : "not all numbers are finite", std::move(refused));
  }
  for (std::string& one : allowed) warnings.push_back(std::move(one));
}

/// What the result was made of, as JSON.
nlohmann::json provenance(const Members& members, const std::vector<std::string>& hashes,
                          const AverageOptions& options) {
  std::vector<nlohmann::json> inputs;
  for (size_t m = 0; m < members.list.size(); ++m) {
    inputs.push_back({{"name", io::file_name(members.list[m].path)},
                      {"hash", hashes[m]},
                      {"weight", json_number(members.list[m].weight)}});
  }
  nlohmann::json json{{"method", members.method}};
  if (options.ema_decay) {
    json["decay"] = *options.ema_decay;
  } else {
    // The order of the inputs does not show.
    std::sort(inputs.begin(), inputs.end(), [](const nlohmann::json& a, const nlohmann::json& b) {
      const auto key = [](const nlohmann::json& one) {
        return std::tuple(one.at("hash").get<std::string>(), one.at("weight").get<double>(),
                          one.at("name").get<std::string>());
      };
      return key(a) < key(b);
    });
  }
  json["inputs"] = inputs;
  return json;
}

/// The order in which a writer will ask for the data of items.
std::vector<size_t> expected_order(const Plan& plan, Format format) {
  std::vector<size_t> order;
  std::vector<TensorToWrite> kept(format == Format::kSafetensors ? plan.items.size() : 0);
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const Item& item = plan.items[i];
    const size_t first = item.tied_to < 0 ? i : static_cast<size_t>(item.tied_to);
    if (item.tied_to < 0 && item.first().stored.elements != 0) order.push_back(i);
    if (format != Format::kSafetensors) continue;
    // Safetensors keeps the first by name of tied ones.
    if (i == first || item.name < kept[first].name) kept[first].name = item.name;
    kept[first].dtype = item.to;
  }
  if (format == Format::kSafetensors) {
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return format::safetensors_before(kept[a], kept[b]); });
  }
  return order;
}

std::vector<TensorToWrite> tensors_of(const Plan& plan, Tiles& tiles) {
  std::vector<TensorToWrite> tensors;
  tensors.reserve(plan.items.size());
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const Item& item = plan.items[i];
    TensorToWrite& made = tensors.emplace_back();
    made.name = item.name;
    made.dtype = item.to;
    made.shape = item.first().stored.shape;
    made.is_parameter = item.is_parameter;
    made.tied_to = item.tied_to;
    if (item.tied_to >= 0) continue;
    const uint64_t elements = item.first().stored.elements;
    made.data = {elements * width(item.to), [&tiles, i, elements](const format::ByteSink& sink) {
                   if (elements != 0) tiles.produce(i, sink);
                 }};
  }
  return tensors;
}

/// The data of one average on its way into a file.
class Writing {
 public:
  Writing(const Members& members, const Plan& plan, const AverageOptions& options, Format format, AverageReport& report)
      : members_(members),
        plan_(plan),
        options_(options),
        report_(report),
        tiles_(members, plan, expected_order(plan, format), options.threads ? options.threads : default_threads()) {}

  void write(const std::string& out, Format format, std::optional<uint64_t> iteration) {
    std::vector<TensorToWrite> tensors = tensors_of(plan_, tiles_);
    if (format == Format::kCheckpoint) {
      report_.output = write_checkpoint(out, std::move(tensors), iteration.value());
      return;
    }
    const std::vector<std::string> no_hashes(members_.list.size(), std::string(32, '0'));
    const format::LateText late{.key = kAverageProvenance,
                                .sample = dump_json(provenance(members_, no_hashes, options_)),
                                .make = [this] { return dump_json(finish()); }};
    report_.output =
        weights::write_weights(std::move(tensors), out, {.to = format}, options_.metadata, plan_.module_metadata, &late)[0];
  }

 private:
  std::string write_checkpoint(const std::string& run, std::vector<TensorToWrite> tensors, uint64_t iteration) {
    run::CheckpointHead head{.iteration = iteration};
    head.complete = [this](nlohmann::json& metadata) { metadata[kAverageProvenance] = finish(); };
    run::Committed committed = weights::commit_weights(run, std::move(tensors), plan_.module_metadata, head);
    report_.warnings.insert(report_.warnings.end(), committed.warnings.begin(), committed.warnings.end());
    return committed.path;
  }

  /// When all data were asked for: judges what was met, and says what the result was made of.
  nlohmann::json finish() {
    // Otherwise the writer has failed and will say so.
    std::vector<std::string> hashes(members_.list.size(), std::string(32, '0'));
    if (!tiles_.complete()) return provenance(members_, hashes, options_);
    const Tiles::Outcome outcome = tiles_.outcome();
    require_unchanged(members_);
    judge(outcome, members_, plan_, options_, report_.warnings);
    for (size_t m = 0; m < members_.list.size(); ++m) report_.inputs[m].hash = outcome.hashes[m];
    return provenance(members_, outcome.hashes, options_);
  }

  const Members& members_;
  const Plan& plan_;
  const AverageOptions& options_;
  AverageReport& report_;
  Tiles tiles_;
};

}  // namespace

Format output_format(const std::string& out, const AverageOptions& options) {
  if (options.format) {
    for (const Format format : {Format::kSafetensors, Format::kTorch, Format::kArchive, Format::kCheckpoint}) {
      if (*options.format == format) return format;
    }
    throw Error(ErrorCode::kInvalid, out, "cannot be written as " + std::string(to_string(*options.format)));
  }
  for (const char* ending : {".pt", ".pth", ".bin"}) {
    if (out.ends_with(ending)) return Format::kTorch;
  }
  if (out.ends_with(".safetensors")) return Format::kSafetensors;
  throw Error(ErrorCode::kInvalid, out, "the name does not tell the format (.safetensors, .pt, .pth, .bin)");
}

AverageReport average(const std::vector<std::string>& inputs, const std::string& out, const AverageOptions& options) {
  const Format format = output_format(out, options);
  const Members members = open_members(inputs, options);
  const Plan plan = make_plan(members, options, format);
  AverageReport report{.output = out,
                       .method = members.method,
                       .inputs = {},
                       .tensors = plan.items.size(),
                       .bytes = 0,
                       .decisions = plan.decisions,
                       .warnings = members.warnings};
  for (const Member& member : members.list) report.inputs.push_back({member.path, member.iteration, member.weight, ""});
  for (const Item& item : plan.items) {
    if (item.tied_to < 0) report.bytes += item.first().stored.elements * width(item.to);
  }
  std::optional<uint64_t> iteration;
  for (const Member& member : members.list) iteration = std::max(iteration, member.iteration);
  if (format == Format::kCheckpoint && !iteration) {
    throw Error(ErrorCode::kInvalid, out, "no input has an iteration that the checkpoint could have");
  }
  if (options.dry_run) {
    const Combiner refuses_what_has_no_mean(members, plan);
    return report;
  }
  Writing(members, plan, options, format, report).write(out, format, iteration);
  return report;
}

}  // namespace ckpt::average
