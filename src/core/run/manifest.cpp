#include "core/run/manifest.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <set>

#include "ckpt/error.h"
#include "core/base/checked.h"
#include "core/base/checksum.h"
#include "core/base/json.h"
#include "core/base/quote.h"
#include "core/io/block_writer.h"
#include "core/run/names.h"

namespace ckpt::run {
namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "ckpt-checkpoint";
constexpr uint64_t kVersion = 1;
constexpr size_t kSaveIdDigits = 32;
constexpr size_t kHashDigits = 16;
constexpr size_t kMaxNameBytes = 255;
constexpr int kMaxMetadataDepth = 900;  // with what is around it, below the 1,000 that parse_json allows

std::string_view to_string(Mode mode) { return mode == Mode::kMax ? "max" : "min"; }

// --- writing ---

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::kInvalid, "", what); }

/// Metadata as it is stored: non-finite numbers as text.
json storable(const json& value, int depth) {
  if (depth > kMaxMetadataDepth) refuse("metadata nests deeper than " + std::to_string(kMaxMetadataDepth) + " levels");
  if (value.is_number_float()) return json_number(value.get<double>());
  if (value.is_binary() || value.is_discarded()) refuse("metadata holds a value that JSON has no form for");
  if (!value.is_structured()) return value;
  json stored = value.is_object() ? json::object() : json::array();
  for (const auto& [key, member] : value.items()) {
    if (value.is_object()) {
      stored[key] = storable(member, depth + 1);
    } else {
      stored.push_back(storable(member, depth + 1));
    }
  }
  return stored;
}

json to_json(const Manifest& manifest) {
  if (!manifest.metadata.is_object())
    refuse("metadata: expected an object, got " + std::string(manifest.metadata.type_name()));
  json metrics = json::object();
  for (const auto& [name, value] : manifest.metrics) metrics[name] = json_number(value);
  json monitor;
  if (manifest.monitor) {
    monitor = {{"metric", manifest.monitor->metric}, {"mode", to_string(manifest.monitor->mode)}};
  }
  json files = json::array();
  for (const ManifestFile& file : manifest.files) {
    if (!is_plain_name(file.path)) refuse("file name " + quote(file.path) + " is not plain");
    json hashes = json::array();
    for (uint64_t hash : file.xxh3_64) hashes.push_back(to_hex(hash));
    files.push_back({{"path", file.path},
                     {"bytes", file.bytes},
                     {"block_bytes", file.block_bytes},
                     {"xxh3_64", std::move(hashes)}});
  }
  return {{"format", kFormat},
          {"version", kVersion},
          {"save_id", manifest.save_id},
          {"sequence", manifest.sequence},
          {"time", json_number(manifest.time)},
          {"iteration", manifest.iteration},
          {"epoch", manifest.epoch},
          {"metrics", std::move(metrics)},
          {"monitor", std::move(monitor)},
          {"metadata", storable(manifest.metadata, 0)},
          {"world_size", manifest.world_size},
          {"files", std::move(files)}};
}

std::string check_of(const json& rest) { return xxh3_128_hex(as_bytes(rest.dump())); }
std::string canonical(const json& whole) { return whole.dump(2) + '\n'; }

// --- reading ---

/// Takes typed fields out of one parsed object; `where` ("files[0].") stands before their names in messages.
class Fields {
 public:
  Fields(const json& object, std::string where, const std::string& path)
      : object_(object), where_(std::move(where)), path_(path) {}

  [[noreturn]] void fail(const std::string& what) const { throw Error(ErrorCode::kCorrupt, path_, what); }

  [[noreturn]] void fail(std::string_view name, std::string_view expected) const {
    fail(where_ + std::string(name) + ": expected " + std::string(expected) + ", found " + shown(object_.at(name)));
  }

  void exactly(std::initializer_list<std::string_view> names) const {
    for (std::string_view name : names) {
      if (!object_.contains(name)) fail(where_ + std::string(name) + " is missing");
    }
    if (object_.size() == names.size()) return;
    for (const auto& [key, value] : object_.items()) {
      if (std::find(names.begin(), names.end(), key) == names.end()) fail("unknown field " + where_ + quote(key));
    }
  }

  uint64_t number(std::string_view name) const {
    const json& value = object_.at(name);
    if (!value.is_number_unsigned()) fail(name, "a whole number");
    return value.get<uint64_t>();
  }

  /// In the one spelling that to_text() gives it.
  double real(std::string_view name) const {
    const json& value = object_.at(name);
    const std::optional<double> number = number_from_json(value);
    if (!number || value.type() != json_number(*number).type()) fail(name, "a floating-point number");
    return *number;
  }

  const std::string& text(std::string_view name) const {
    const json& value = object_.at(name);
    if (!value.is_string()) fail(name, "a text");
    return value.get_ref<const std::string&>();
  }

  std::string hex(std::string_view name, size_t digits) const {
    const std::string& value = text(name);
    if (!is_hex(value, digits)) fail(name, std::to_string(digits) + " hex digits");
    return value;
  }

  const json& object(std::string_view name) const {
    if (!object_.at(name).is_object()) fail(name, "an object");
    return object_.at(name);
  }

  const json& array(std::string_view name) const {
    if (!object_.at(name).is_array()) fail(name, "a list");
    return object_.at(name);
  }

  bool is_null(std::string_view name) const { return object_.at(name).is_null(); }

  static bool is_hex(const std::string& text, size_t digits) {
    return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
  }

 private:
  static std::string shown(const json& value) {
    if (value.is_string()) return quote(value.get_ref<const std::string&>());
    if (value.is_structured()) return value.is_object() ? "an object" : "a list";
    return value.dump();
  }

  const json& object_;
  const std::string where_;
  const std::string& path_;
};

ManifestFile file_from(const json& value, size_t index, const std::string& path) {
  const std::string where = "files[" + std::to_string(index) + "]";
  if (!value.is_object()) throw Error(ErrorCode::kCorrupt, path, where + ": expected an object");
  const Fields fields(value, where + ".", path);
  fields.exactly({"path", "bytes", "block_bytes", "xxh3_64"});
  ManifestFile file{.path = fields.text("path"),
                    .bytes = fields.number("bytes"),
                    .block_bytes = fields.number("block_bytes"),
                    .xxh3_64 = {}};
  if (!is_plain_name(file.path)) fields.fail("path", "a plain file name");
  if (file.block_bytes != io::kBlockBytes) fields.fail("block_bytes", std::to_string(io::kBlockBytes));

  const json& hashes = fields.array("xxh3_64");
  const uint64_t blocks = file.bytes / file.block_bytes + (file.bytes % file.block_bytes != 0);
  if (hashes.size() != blocks) {
    fields.fail(where + ".xxh3_64: expected " + std::to_string(blocks) + " hashes for " + std::to_string(file.bytes) +
                " bytes, found " + std::to_string(hashes.size()));
  }
  file.xxh3_64.reserve(hashes.size());
  for (const json& hash : hashes) {
    if (!hash.is_string() || !Fields::is_hex(hash.get_ref<const std::string&>(), kHashDigits)) {
      fields.fail(where + ".xxh3_64: expected 16 hex digits each");
    }
    file.xxh3_64.push_back(std::stoull(hash.get_ref<const std::string&>(), nullptr, 16));
  }
  return file;
}

Monitor monitor_from(const json& value, const std::string& path) {
  const Fields fields(value, "monitor.", path);
  fields.exactly({"metric", "mode"});
  const std::string& mode = fields.text("mode");
  if (mode != "max" && mode != "min") fields.fail("mode", "max or min");
  return {fields.text("metric"), mode == "max" ? Mode::kMax : Mode::kMin};
}

Manifest manifest_from(const json& whole, const std::string& path) {
  if (!whole.is_object()) throw Error(ErrorCode::kCorrupt, path, "expected a JSON object");
  const Fields fields(whole, "", path);
  if (!whole.contains("format") || whole.at("format") != kFormat) fields.fail("not a ckpt-checkpoint manifest");
  if (whole.contains("version") && whole.at("version") != kVersion) fields.fail("version", std::to_string(kVersion));
  fields.exactly({"format", "version", "save_id", "sequence", "time", "iteration", "epoch", "metrics", "monitor",
                  "metadata", "world_size", "files", "check"});
  Manifest manifest;
  manifest.save_id = fields.hex("save_id", kSaveIdDigits);
  manifest.sequence = fields.number("sequence");
  manifest.time = fields.real("time");
  if (!std::isfinite(manifest.time)) fields.fail("time", "a finite number");
  manifest.iteration = fields.number("iteration");
  manifest.epoch = fields.number("epoch");
  const json& metrics = fields.object("metrics");
  const Fields metric_fields(metrics, "metrics.", path);
  for (const auto& [name, value] : metrics.items()) manifest.metrics.emplace(name, metric_fields.real(name));
  if (!fields.is_null("monitor")) manifest.monitor = monitor_from(fields.object("monitor"), path);
  manifest.metadata = fields.object("metadata");
  manifest.world_size = fields.number("world_size");

  std::set<std::string_view> names;
  uint64_t total = 0;
  const json& files = fields.array("files");
  for (size_t i = 0; i < files.size(); ++i) {
    manifest.files.push_back(file_from(files[i], i, path));
    const std::optional<uint64_t> sum = checked_add(total, manifest.files.back().bytes);
    if (!sum) fields.fail("files: the sum of their bytes overflows");
    total = *sum;
  }
  for (const ManifestFile& file : manifest.files) {
    if (!names.insert(file.path).second) fields.fail("files: " + quote(file.path) + " is there twice");
  }
  return manifest;
}

}  // namespace

uint64_t Manifest::total_bytes() const {
  uint64_t total = 0;
  for (const ManifestFile& file : files) total += file.bytes;
  return total;
}

Candidate Manifest::candidate() const {
  return {.sequence = sequence, .iteration = iteration, .time = time, .metrics = metrics};
}

bool is_plain_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes || name.front() == '.' || name == kManifestName) return false;
  const auto is_bad = [](char c) { return c == '/' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  return std::none_of(name.begin(), name.end(), is_bad) && is_utf8(name);
}

std::string to_text(const Manifest& manifest) {
  try {
    json whole = to_json(manifest);
    whole["check"] = check_of(whole);
    return canonical(whole);
  } catch (const json::exception&) {
    refuse("a name or text among metrics and metadata is not UTF-8");
  }
}

Manifest parse_manifest(std::string_view text, const std::string& path) {
  json whole = parse_json(text, path);
  Manifest manifest = manifest_from(whole, path);
  const json check = whole["check"];
  whole.erase("check");
  if (!check.is_string() || check != check_of(whole)) {
    throw Error(ErrorCode::kCorrupt, path,
                "the check does not fit: expected " + check_of(whole) + ", found " + check.dump());
  }
  whole["check"] = check;
  if (canonical(whole) != text) throw Error(ErrorCode::kCorrupt, path, "not in its canonical form");
  return manifest;
}

}  // namespace ckpt::run
