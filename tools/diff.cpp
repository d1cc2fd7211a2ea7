// ckpt diff A B: what differs between the weights of two files, checkpoints or runs of any formats.
#include "core/weights/diff.h"

#include <memory>

#include "args.h"
#include "command.h"
#include "core/base/json.h"
#include "core/base/parallel.h"
#include "text.h"
#include "weights_flags.h"

namespace ckpt::tool {
namespace {

struct Flags {
  std::string a, b;
  std::optional<std::string> rtol, atol, key;
};

const char* to_string(weights::Difference::Kind kind) {
  switch (kind) {
    case weights::Difference::Kind::kDType:
      return "dtype";
    case weights::Difference::Kind::kShape:
      return "shape";
    case weights::Difference::Kind::kValue:
      break;
  }
  return "value";
}

nlohmann::json to_json(const weights::Difference& difference) {
  nlohmann::json json{
      {"name", difference.name}, {"kind", to_string(difference.kind)}, {"a", difference.a}, {"b", difference.b}};
  for (const char* key : {"max_abs", "max_rel", "cosine", "max_ulp"}) json[key] = nullptr;
  if (difference.kind == weights::Difference::Kind::kValue) {
    json["max_abs"] = json_number(difference.max_abs);
    json["max_rel"] = json_number(difference.max_rel);
    if (difference.cosine) json["cosine"] = json_number(*difference.cosine);
    if (difference.max_ulp) json["max_ulp"] = *difference.max_ulp;
  }
  return json;
}

void print_text(const weights::Diff& diff, const weights::Weights& a, const weights::Weights& b, Output& output) {
  if (diff.equal()) {
    output.line(output.paint(Style::kGreen, "equal") + "  " + counted(a.tensors().size(), "tensor"));
    return;
  }
  Table table;
  for (const char* column : {"", "tensor", "a", "b"}) table.add_column(column, Table::Align::kLeft);
  for (const char* column : {"max abs", "max rel", "cosine", "max ulp"}) table.add_column(column, Table::Align::kRight);
  for (const std::string& name : diff.removed) table.add_row({"removed", printable(name), "", "", "", "", "", ""});
  for (const std::string& name : diff.added) table.add_row({"added", printable(name), "", "", "", "", "", ""});
  for (const weights::Difference& one : diff.changed) {
    const bool value = one.kind == weights::Difference::Kind::kValue;
    table.add_row({to_string(one.kind), printable(one.name), one.a, value ? "" : one.b,
                   value ? human_number(one.max_abs) : "", value ? human_number(one.max_rel) : "",
                   one.cosine ? human_number(*one.cosine) : "", one.max_ulp ? std::to_string(*one.max_ulp) : ""});
  }
  std::vector<std::string> lines = table.lines();
  lines[0] = output.paint(Style::kDim, lines[0]);
  for (const std::string& line : lines) output.line(line);
  output.note(counted(diff.changed.size(), "tensor") + (diff.changed.size() == 1 ? " differs" : " differ") + ", " +
              std::to_string(diff.added.size()) + " added, " + std::to_string(diff.removed.size()) + " removed (a: " +
              std::to_string(a.tensors().size()) + ", b: " + std::to_string(b.tensors().size()) + ")");
}

int run_diff(const Flags& flags, Output& output) {
  weights::DiffOptions options;
  if (flags.rtol) options.rtol = parse_number("--rtol", *flags.rtol, 0);
  if (flags.atol) options.atol = parse_number("--atol", *flags.atol, 0);
  options.threads = default_threads();
  const OpenOptions open{.key = flags.key.value_or("")};
  const weights::Weights a = open_weights(flags.a, open, output);
  const weights::Weights b = open_weights(flags.b, open, output);
  output.progress("comparing " + printable(flags.a) + " and " + printable(flags.b));
  const weights::Diff diff = weights::diff(a, b, options);
  output.progress("");
  nlohmann::json changed = nlohmann::json::array();
  for (const weights::Difference& one : diff.changed) changed.push_back(to_json(one));
  output.object({{"equal", diff.equal()}, {"added", diff.added}, {"removed", diff.removed}, {"changed", changed}});
  print_text(diff, a, b, output);
  return diff.equal() ? 0 : 1;
}

}  // namespace

Action declare_diff(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.description(
      "Compares the weights of two files, checkpoints or runs, of any two formats: names, dtypes, shapes and values.\n"
      "NaN at the same place is equal. Names of one tied tensor that a format could not keep are no difference.");
  app.add_option("A", flags->a, "file, checkpoint or run")->required();
  app.add_option("B", flags->b, "file, checkpoint or run")->required();
  app.add_option("--rtol", flags->rtol, "values are equal within ATOL + RTOL x |b| (default: 0)")->type_name("RTOL");
  app.add_option("--atol", flags->atol, "(default: 0)")->type_name("ATOL");
  app.add_option("--key", flags->key, "dotted path to the weights in both")->type_name("K");
  app.footer(
      "Examples:\n"
      "  ckpt diff model.pth model.safetensors\n"
      "  ckpt diff runs/digits/step-000000001000 runs/digits/latest --rtol 1e-5\n"
      "  ckpt diff --json a.pt b.pt | jq '.changed[] | select(.max_abs > 0.1)'\n"
      "\n"
      "Exit codes:\n"
      "  0  equal\n"
      "  1  they differ\n"
      "  2  usage\n"
      "  3  something cannot be read\n"
      "  4  a file is damaged\n"
      "  6  a path or key does not exist, or holds no tensors\n"
      "  7  a file is of a kind that cannot be read, or tensors that cannot be compared");
  return [flags](Output& output) { return run_diff(*flags, output); };
}

}  // namespace ckpt::tool
