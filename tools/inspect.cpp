// ckpt inspect PATH: what is in a run, a checkpoint or a file. Reads indexes only, no tensor.
#include <algorithm>
#include <ctime>
#include <memory>
#include <utility>

#include "args.h"
#include "checks.h"
#include "command.h"
#include "core/base/json.h"
#include "core/base/parallel.h"
#include "core/base/quote.h"
#include "core/format/archive.h"
#include "core/format/safetensors.h"
#include "core/run/names.h"
#include "core/run/run.h"
#include "text.h"

namespace ckpt::tool {
namespace {

struct Contents {
  std::string path;
  std::string format;
  std::vector<format::NamedTensor> tensors;
  nlohmann::json metadata = nlohmann::json::object();
};

/// Everything in the tree that is no tensor, as JSON; empty levels are left out.
nlohmann::json values_of(const format::Archive& archive, bool escaped) {
  nlohmann::json values = nlohmann::json::object();
  for (const auto& [stored, value] : archive.members) {
    const std::string name = escaped ? format::unescape_name(stored) : stored;
    if (std::holds_alternative<std::monostate>(value)) values[name] = nullptr;
    if (const auto* flag = std::get_if<bool>(&value)) values[name] = *flag;
    if (const auto* number = std::get_if<int64_t>(&value)) values[name] = *number;
    if (const auto* number = std::get_if<double>(&value)) values[name] = json_number(*number);
    if (const auto* text = std::get_if<std::string>(&value)) values[name] = *text;
    if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) values[name] = *list;
    if (const auto* list = std::get_if<std::vector<double>>(&value)) {
      for (const double number : *list) values[name].push_back(json_number(number));
    }
    if (const auto* nested = std::get_if<std::shared_ptr<const format::Archive>>(&value)) {
      nlohmann::json below = values_of(**nested, escaped);
      if (!below.empty()) values[name] = std::move(below);
    }
  }
  return values;
}

/// A state.pt describes itself and each of its parts by a JSON text inside the archive: shown as what it says.
void unfold_descriptions(nlohmann::json& values, const std::string& path) {
  for (auto& part : values) {
    if (!part.is_object()) continue;
    const auto description = part.find("description");
    if (description == part.end() || !description->is_string()) continue;
    *description = parse_json(description->get<std::string>(), path);
  }
}

Contents read_archive(const std::string& path) {
  const format::ArchiveFile archive = format::ArchiveFile::open(path);
  const bool own = format::is_training_state(archive.root());
  Contents contents{path, "archive", format::tensors_of(archive.root(), own), values_of(archive.root(), own)};
  if (own) unfold_descriptions(contents.metadata, path);
  return contents;
}

Contents read_file(const std::string& path) {
  const io::File file = io::File::open(path);
  switch (content_of(file)) {
    case Content::kZip:
      return read_archive(path);
    case Content::kSafetensors: {
      format::SafetensorsIndex index = format::read_safetensors(file);
      return {path, "safetensors", std::move(index.tensors), index.metadata};
    }
    case Content::kManifest:
      throw Error(ErrorCode::kUnsupported, path, "is the manifest of a checkpoint; inspect its directory");
    case Content::kPickle:
      throw Error(ErrorCode::kUnsupported, path, "is a bare pickle (torch.save before 1.6, or Python's own)");
    case Content::kEmpty:
      throw Error(ErrorCode::kCorrupt, path, "is empty");
    case Content::kUnknown:
      break;
  }
  throw Error(ErrorCode::kUnsupported, path, "is no archive of LibTorch and no safetensors file");
}

Contents read_checkpoint(const run::Checkpoint& checkpoint) {
  if (!checkpoint.manifest) {
    throw Error(ErrorCode::kCorrupt, checkpoint.path,
                std::string(to_string(checkpoint.state)) + ": " + checkpoint.reason);
  }
  const run::Manifest& manifest = *checkpoint.manifest;
  Contents contents = read_archive(checkpoint.path + "/" + std::string(run::kStateName));
  contents.path = checkpoint.path;
  contents.format = "checkpoint";

  nlohmann::json metrics = nlohmann::json::object();
  for (const auto& [name, value] : manifest.metrics) metrics[name] = json_number(value);
  nlohmann::json files = nlohmann::json::object();
  for (const run::ManifestFile& file : manifest.files) files[file.path] = file.bytes;
  nlohmann::json monitor;
  if (manifest.monitor) {
    monitor = {{"metric", manifest.monitor->metric}, {"mode", manifest.monitor->mode == Mode::kMax ? "max" : "min"}};
  }
  contents.metadata = {{"path", checkpoint.path},     {"iteration", manifest.iteration},
                       {"epoch", manifest.epoch},     {"metrics", metrics},
                       {"monitor", monitor},          {"metadata", manifest.metadata},
                       {"save_id", manifest.save_id}, {"sequence", manifest.sequence},
                       {"time", manifest.time},       {"files", files},
                       {"state", contents.metadata}};
  return contents;
}

Contents read_run(const std::string& path, Output& output) {
  const io::Directory directory = io::Directory::open(path);
  const auto selection = run::select(directory, {.verify = false}, default_threads());
  if (!selection) throw Error(ErrorCode::kNotFound, path, "holds no checkpoint");
  for (const auto& passed : selection->passed_over) {
    output.warn("passed over " + printable(passed.path) + ": " + passed.reason);
  }
  Contents contents = read_checkpoint(selection->checkpoint);
  contents.format = "run";
  contents.metadata["checkpoints"] = run::scan(directory).checkpoints.size();
  return contents;
}

Contents read_contents(const std::string& given, Output& output) {
  switch (kind_of(given)) {
    case PathKind::kRun:
      return read_run(given, output);
    case PathKind::kCheckpoint: {
      const std::string path = resolve_link(given);
      return read_checkpoint(run::read_checkpoint(io::Directory::open(io::parent_path(path)), io::file_name(path)));
    }
    case PathKind::kFile:
      break;
  }
  return read_file(given);
}

nlohmann::json to_json(const Contents& contents) {
  nlohmann::json tensors = nlohmann::json::array();
  for (const auto& [name, tensor] : contents.tensors) {
    tensors.push_back(
        {{"name", name}, {"dtype", ckpt::name(tensor.dtype)}, {"shape", tensor.shape}, {"bytes", tensor.bytes}});
  }
  return {{"format", contents.format}, {"tensors", tensors}, {"metadata", contents.metadata}};
}

/// "2026-11-25 02:21:12 UTC" for Unix seconds.
std::string utc_text(double seconds) {
  const auto time = static_cast<std::time_t>(std::clamp(seconds, 0.0, 253402300799.0));  // to the end of year 9999
  std::tm parts = {};
  gmtime_r(&time, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%F %T UTC", &parts)};
}

/// A leaf of the metadata on one line.
std::string leaf(const nlohmann::json& value) {
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    return text.empty() ? "\"\"" : printable(text);
  }
  if (value.is_number_float()) return human_number(value.get<double>());
  return dump_json(value);
}

/// "key  value" lines, nested objects indented below their key; null and empty ones are left out.
void print_values(const nlohmann::json& values, size_t depth, Output& output) {
  for (const auto& [key, value] : values.items()) {
    if (value.is_null() || ((value.is_object() || value.is_array()) && value.empty())) continue;
    const std::string indent(2 * depth, ' ');
    const std::string shown = printable(key);
    if (value.is_object() && depth < 8) {
      output.line(indent + shown);
      print_values(value, depth + 1, output);
    } else {
      const std::string gap(shown.size() < 18 ? 18 - shown.size() : 1, ' ');
      output.line(indent + shown + gap + leaf(value));
    }
  }
}

void print_table(const Table& table, Output& output) {
  std::vector<std::string> lines = table.lines();
  lines[0] = output.paint(Style::kDim, lines[0]);
  output.line("");
  for (const std::string& line : lines) output.line(line);
}

/// "lr 0.002, betas [0.9,0.999]": the flat members of an object.
std::string flat_values(const nlohmann::json& values) {
  std::string text;
  for (const auto& [key, value] : values.items()) {
    if (value.is_object() || value.is_null()) continue;
    text += (text.empty() ? "" : ", ") + printable(key) + " " + leaf(value);
  }
  return text;
}

/// What the description of a part says beyond its type, on one line.
std::string part_details(const nlohmann::json& description) {
  if (!description.is_object()) return "";
  const auto groups = description.find("groups");
  if (groups == description.end() || !groups->is_array()) {
    nlohmann::json flat = description;
    flat.erase("type");
    for (const char* key : {"hyperparameters", "counters"}) {
      if (flat.contains(key) && flat[key].is_object()) flat.update(flat[key]);
    }
    return flat_values(flat);
  }
  std::string text;
  for (const auto& group : *groups) {
    const std::string options = group.is_object() ? flat_values(group.value("options", nlohmann::json())) : "";
    text += (text.empty() ? "" : "; ") + options;
  }
  return text;
}

/// The parts of a state.pt, a row each.
void print_parts(const nlohmann::json& state, const Contents& contents, Output& output) {
  Table table;
  table.add_column("part", Table::Align::kLeft);
  table.add_column("kind", Table::Align::kLeft);
  table.add_column("tensors", Table::Align::kRight);
  table.add_column("size", Table::Align::kRight);
  table.add_column("", Table::Align::kLeft);
  for (const auto& [name, part] : state["ckpt"]["description"]["parts"].items()) {
    uint64_t count = 0, bytes = 0;
    for (const auto& [tensor_name, tensor] : contents.tensors) {
      if (!tensor_name.starts_with(name + ".")) continue;
      ++count;
      bytes += tensor.bytes;
    }
    const auto text = [&](const char* key) { return part.is_object() && part.contains(key) ? leaf(part[key]) : ""; };
    const nlohmann::json own = state.value(name, nlohmann::json::object());
    const std::string details = own.is_object() ? part_details(own.value("description", nlohmann::json())) : "";
    const std::string type = text("type");
    table.add_row({printable(name), text("kind") + (type.empty() ? "" : " " + type), std::to_string(count),
                   human_bytes(bytes), details});
  }
  print_table(table, output);
}

/// The description of a state.pt, or null: in an archive at the top, in a checkpoint below "state".
nlohmann::json state_of(const nlohmann::json& metadata) {
  const nlohmann::json state = metadata.is_object() && metadata.contains("state") ? metadata["state"] : metadata;
  const nlohmann::json::json_pointer parts("/ckpt/description/parts");
  return state.is_object() && state.contains(parts) && state[parts].is_object() ? state : nlohmann::json();
}

void print_tensors(const Contents& contents, Output& output) {
  Table table;
  table.add_column("tensor", Table::Align::kLeft);
  table.add_column("dtype", Table::Align::kLeft);
  table.add_column("shape", Table::Align::kLeft);
  table.add_column("size", Table::Align::kRight);
  for (const auto& [name, tensor] : contents.tensors) {
    table.add_row(
        {printable(name), std::string(ckpt::name(tensor.dtype)), human_shape(tensor.shape), human_bytes(tensor.bytes)});
  }
  print_table(table, output);
}

void print_text(const Contents& contents, Output& output) {
  uint64_t bytes = 0, elements = 0;
  for (const auto& [name, tensor] : contents.tensors) {
    bytes += tensor.bytes;
    elements += tensor.elements;
  }
  output.line(output.paint(Style::kBold, printable(contents.path)) + "  " + contents.format + ", " +
              counted(contents.tensors.size(), "tensor") + ", " + std::to_string(elements) + " elements, " +
              human_bytes(bytes));
  nlohmann::json shown = contents.metadata;
  const nlohmann::json state = state_of(shown);
  if (state.is_object()) {
    // The table of parts says what a person wants to know of it; --json has all.
    if (shown.contains("state")) {
      shown.erase("state");
    } else {
      shown = state["ckpt"]["description"];
      shown.erase("parts");
    }
  }
  if (shown.contains("time") && shown["time"].is_number()) shown["time"] = utc_text(shown["time"].get<double>());
  if (!shown.empty()) {
    output.line("");
    print_values(shown, 0, output);
  }
  if (state.is_object()) print_parts(state, contents, output);
  if (!contents.tensors.empty()) print_tensors(contents, output);
}

}  // namespace

Action declare_inspect(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  app.description(
      "Shows what is in a checkpoint, a run (its newest checkpoint) or a file (an archive of torch::serialize,\n"
      "safetensors): format, metadata, and name, dtype, shape and size of every tensor. Reads no tensor.");
  app.add_option("PATH", *path, "run, checkpoint or file")->required();
  app.footer(
      "Examples:\n"
      "  ckpt inspect runs/digits\n"
      "  ckpt inspect runs/digits/step-000000001500\n"
      "  ckpt inspect --json model.pt | jq -r '.tensors[].name'\n"
      "\n"
      "Exit codes:\n"
      "  0  shown\n"
      "  2  usage\n"
      "  3  it cannot be read\n"
      "  4  it is damaged (verify says where), or asks for what a reader must not do\n"
      "  6  it does not exist, or the run is empty\n"
      "  7  it is of a kind that cannot be read here");
  return [path](Output& output) {
    const Contents contents = read_contents(without_trailing_slash(*path), output);
    output.object(to_json(contents));
    print_text(contents, output);
    return 0;
  };
}

}  // namespace ckpt::tool
