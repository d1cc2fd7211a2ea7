// The text of `ckpt inspect`: a headline, metadata, the parts of a training state, a table of tensors.
#include <algorithm>
#include <ctime>

#include "core/base/json.h"
#include "inspect.h"
#include "text.h"

namespace ckpt::tool {
namespace {

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

/// The parts of a training state, a row each.
void print_parts(const nlohmann::json& state, const Inspected& inspected, Output& output) {
  Table table;
  table.add_column("part", Table::Align::kLeft);
  table.add_column("kind", Table::Align::kLeft);
  table.add_column("tensors", Table::Align::kRight);
  table.add_column("size", Table::Align::kRight);
  table.add_column("", Table::Align::kLeft);
  for (const auto& [name, part] : state["ckpt"]["description"]["parts"].items()) {
    uint64_t count = 0, bytes = 0;
    for (const weights::Tensor& tensor : inspected.weights.tensors()) {
      if (!tensor.name.starts_with(name + ".")) continue;
      ++count;
      bytes += tensor.stored.bytes;
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

void print_tensors(const Inspected& inspected, Output& output) {
  Table table;
  for (const char* column : {"tensor", "dtype", "shape"}) table.add_column(column, Table::Align::kLeft);
  table.add_column("size", Table::Align::kRight);
  const bool has_stats = !inspected.stats.empty(), has_ties = !inspected.ties.empty();
  if (has_stats) {
    for (const char* column : {"min", "max", "mean", "std", "NaN", "Inf"})
      table.add_column(column, Table::Align::kRight);
  }
  if (has_ties) table.add_column("tied to", Table::Align::kLeft);
  for (const weights::Tensor* tensor : inspected.shown) {
    const format::StoredTensor& stored = tensor->stored;
    const char* layout = stored.layout == format::TensorLayout::kSparse ? " sparse" : "";
    std::vector<std::string> row{printable(tensor->name), std::string(name(stored.dtype)) + layout,
                                 describe(stored.shape), human_bytes(stored.bytes)};
    if (has_stats) {
      const auto found = inspected.stats.find(tensor->name);
      const bool counted_here = found != inspected.stats.end();
      const weights::Stats stats = counted_here ? found->second : weights::Stats();
      for (const double value : {stats.min, stats.max, stats.mean, stats.std}) {
        row.push_back(stats.finite ? human_number(value) : "");
      }
      for (const uint64_t count : {stats.nan, stats.inf}) row.push_back(counted_here ? std::to_string(count) : "");
    }
    if (has_ties) {
      const bool tied = tensor->tied_to >= 0;
      row.push_back(tied ? printable(inspected.weights.tensors()[static_cast<size_t>(tensor->tied_to)].name) : "");
    }
    table.add_row(std::move(row));
  }
  print_table(table, output);
}

/// What is odd about the file.
void print_remarks(const Inspected& inspected, Output& output) {
  std::string foreign;
  for (const auto& global : inspected.weights.globals()) {
    if (!global.understood) foreign += (foreign.empty() ? "" : ", ") + printable(global.name);
  }
  const uint64_t wasted = inspected.weights.wasted_bytes();
  if (foreign.empty() && wasted == 0) return;
  output.line("");
  if (!foreign.empty()) output.line("foreign globals, never imported or run: " + foreign);
  if (wasted) output.line("wasted: " + human_bytes(wasted) + " of storages that no tensor shown covers");
}

}  // namespace

nlohmann::json state_of(const nlohmann::json& metadata) {
  const nlohmann::json state = metadata.is_object() && metadata.contains("state") ? metadata["state"] : metadata;
  const nlohmann::json::json_pointer parts("/ckpt/description/parts");
  return state.is_object() && state.contains(parts) && state[parts].is_object() ? state : nlohmann::json();
}

void print_text(const Inspected& inspected, Output& output) {
  uint64_t bytes = 0, elements = 0;
  for (const weights::Tensor& tensor : inspected.weights.tensors()) {
    if (tensor.tied_to >= 0) continue;
    bytes += tensor.stored.bytes;
    elements += tensor.stored.elements;
  }
  output.line(output.paint(Style::kBold, printable(inspected.path)) + "  " + inspected.format + ", " +
              counted(inspected.weights.tensors().size(), "tensor") + ", " + std::to_string(elements) + " elements, " +
              human_bytes(bytes));
  nlohmann::json shown = inspected.metadata;
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
  if (state.is_object()) print_parts(state, inspected, output);
  if (!inspected.shown.empty()) print_tensors(inspected, output);
  print_remarks(inspected, output);
}

}  // namespace ckpt::tool
