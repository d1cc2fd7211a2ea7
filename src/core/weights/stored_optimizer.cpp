// LibTorch's archive of an optimizer: `state/<address>/<field>`, `param_groups/param_groups/size`,
// `param_groups/param_groups/<i>/{params/size, params/<j>: address, options/<field>}`; sizes are tensors, addresses
// texts. That of a state.pt: state_layout.h.
#include "core/weights/stored_optimizer.h"

#include <bit>
#include <cstring>
#include <optional>

#include "core/base/json.h"
#include "core/base/quote.h"
#include "core/weights/gather.h"

namespace ckpt::weights {
namespace {

using format::Archive;
using format::StoredTensor;
using nlohmann::json;

constexpr int64_t kMaxParameters = 10'000'000;

class Reader {
 public:
  explicit Reader(const format::ArchiveFile& file) : file_(file) {}

  StoredOptimizer read() {
    if (!format::is_training_state(file_.root())) {
      read_libtorch(file_.root());
    } else if (const Archive* part = file_.root().nested("optimizer")) {
      read_own(*part);
    } else {
      throw Error(ErrorCode::kNotFound, path(), "has no part \"optimizer\"");
    }
    if (made_.groups.empty()) {
      throw Error(ErrorCode::kMismatch, path(), "expected an optimizer, found no group in it");
    }
    return std::move(made_);
  }

 private:
  const std::string& path() const { return file_.file().path(); }

  [[noreturn]] void corrupt(const std::string& what) const {
    throw Error(ErrorCode::kCorrupt, path(), "not as LibTorch stores an optimizer: " + what);
  }

  const Archive& level(const Archive& in, const std::string& name) const {
    const Archive* found = in.nested(name);
    if (!found) corrupt("expected " + quote(name));
    return *found;
  }

  int64_t size(const Archive& in, const std::string& name) const {
    const auto* stored = in.get<StoredTensor>(name);
    if (!stored || stored->dtype != DType::kInt64 || stored->elements != 1 ||
        stored->layout != format::TensorLayout::kStrided) {
      corrupt("expected a size as " + quote(name));
    }
    std::array<std::byte, sizeof(int64_t)> bytes{};
    gather(file_.file(), *stored, bytes);
    finish_elements(*stored, std::endian::native, bytes);
    const auto value = std::bit_cast<int64_t>(bytes);
    if (value < 0 || value > kMaxParameters) corrupt(quote(name) + " is " + std::to_string(value));
    return value;
  }

  void read_libtorch(const Archive& root) {
    if (!root.nested("param_groups") || !root.nested("state")) {
      throw Error(ErrorCode::kMismatch, path(), "expected an optimizer, found no \"param_groups\" and \"state\"");
    }
    const Archive& groups = level(root, "param_groups");
    const int64_t group_count = size(groups, "param_groups/size");
    for (int64_t i = 0; i < group_count; ++i) {
      const Archive& group = level(groups, "param_groups/" + std::to_string(i));
      StoredOptimizer::Group& to = made_.groups.emplace_back();
      const int64_t parameters = size(group, "params/size");
      for (int64_t j = 0; j < parameters; ++j) {
        const auto* key = group.get<std::string>("params/" + std::to_string(j));
        if (!key) corrupt("expected a text as " + quote("params/" + std::to_string(j)));
        to.keys.push_back(*key);
      }
      for (const auto& [name, value] : level(group, "options").members) to.options[name] = number(name, value);
    }
    for (const auto& [key, value] : level(root, "state").members) {
      const auto* fields = std::get_if<std::shared_ptr<const Archive>>(&value);
      if (!fields) corrupt("expected fields as " + quote("state/" + key));
      StoredState& state = made_.states[key];
      for (const auto& [name, field] : (*fields)->members) add_field(name, field, state);
    }
  }

  json number(const std::string& name, const format::ArchiveValue& value) const {
    if (std::holds_alternative<std::monostate>(value)) return nullptr;
    if (const auto* flag = std::get_if<bool>(&value)) return *flag;
    if (const auto* integer = std::get_if<int64_t>(&value)) return *integer;
    if (const auto* real = std::get_if<double>(&value)) return json_number(*real);
    if (const auto* text = std::get_if<std::string>(&value)) return *text;
    if (const auto* reals = std::get_if<std::vector<double>>(&value)) {
      json list = json::array();
      for (const double one : *reals) list.push_back(json_number(one));
      return list;
    }
    corrupt("expected a number as " + quote(name));
  }

  void add_field(const std::string& name, const format::ArchiveValue& value, StoredState& state) const {
    if (std::holds_alternative<std::monostate>(value)) return;  // LBFGS's `al` before its first use
    if (const auto* tensor = std::get_if<StoredTensor>(&value)) {
      state.tensors.emplace_back(name, *tensor);
    } else if (const auto* list = std::get_if<std::vector<StoredTensor>>(&value)) {
      state.numbers[name] = list->size();
      for (size_t i = 0; i < list->size(); ++i) {
        state.tensors.emplace_back(name + "." + std::to_string(i), (*list)[i]);
      }
    } else if (std::holds_alternative<std::vector<int64_t>>(value)) {
      state.numbers[name] = 0;  // an empty list does not tell of what
    } else {
      state.numbers[name] = number(name, value);
    }
  }

  void read_own(const Archive& part) {
    made_.by_name = true;
    const auto* text = part.get<std::string>("description");
    if (!text) corrupt("expected \"description\"");
    const json description = parse_json(*text, path());
    try {
      made_.type = description.at("type").get<std::string>();
      for (const json& group : description.at("groups")) {
        made_.groups.push_back({group.at("options"), group.at("parameters").get<std::vector<std::string>>()});
        if (!made_.groups.back().options.is_object()) corrupt("\"description\": expected an object as \"options\"");
      }
      for (const auto& [name, numbers] : description.at("state").items()) {
        StoredState& state = made_.states[name];
        for (const auto& [field, value] : numbers.items()) state.numbers[field] = value;
      }
    } catch (const json::exception& error) {
      corrupt(std::string("\"description\": ") + error.what());
    }
    for (const auto& [field, value] : level(part, "state").members) {
      const auto* below = std::get_if<std::shared_ptr<const Archive>>(&value);
      if (!below) corrupt("expected tensors as " + quote(field));
      for (format::NamedTensor& named : format::tensors_of(**below, /*escaped=*/true)) {
        made_.states[named.name].tensors.emplace_back(format::unescape_name(field), std::move(named.stored));
      }
    }
  }

  const format::ArchiveFile& file_;
  StoredOptimizer made_;
};

}  // namespace

StoredOptimizer read_stored_optimizer(const format::ArchiveFile& file) { return Reader(file).read(); }

}  // namespace ckpt::weights
