#include "core/weights/optimizer_state.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "core/base/json.h"
#include "core/base/quote.h"
#include "core/weights/optimizer_forms.h"
#include "core/weights/state_tree.h"
#include "core/weights/stored_optimizer.h"

namespace ckpt::weights {
namespace {

using nlohmann::json;
using Parameters = std::vector<std::pair<std::string, size_t>>;
using Problems = std::vector<std::string>;

constexpr uint64_t kMaxLevels = 1'000'000;
constexpr uint64_t kMaxList = 1'000'000;

constexpr std::array<std::string_view, 3> kFlatLists{"old_dirs", "old_stps", "ro"};
constexpr std::array<std::string_view, 7> kFlatTensors{"d",  "H_diag", "prev_flat_grad", "old_dirs", "old_stps",
                                                       "ro", "al"};

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return result;
}

/// From the names of the options, which must be all and no other; Adam for AdamW, too.
const OptimizerForm& form_of_fields(const json& options, const std::string& path) {
  const OptimizerForm* form = form_of_options(options);
  const bool exact = form && options.size() == form->options.size() &&
                     std::all_of(form->options.begin(), form->options.end(),
                                 [&](const OptimizerOption& option) { return options.contains(option.name); });
  if (exact) return *form;
  std::string list;
  for (const auto& [name, value] : options.items()) list += (list.empty() ? "" : ", ") + quote(name, 60);
  throw Error(ErrorCode::kUnsupported, path,
              "expected the options of SGD, Adam, AdamW, RMSprop, Adagrad or LBFGS, found " + list);
}

struct Type {
  const OptimizerForm* form;
  std::string stored;  ///< the form's, or "unknown"
};

/// `asked`: what the user says; empty: the file tells.
Type type_of(const StoredOptimizer& optimizer, const std::string& asked, const std::string& path) {
  const OptimizerForm& told = form_of_fields(optimizer.groups.front().options, path);
  const std::string fields = lower(told.type);
  const std::string used = !asked.empty() ? asked : optimizer.by_name ? lower(optimizer.type) : fields;
  if (used == "unknown" || (used == "adam" && asked.empty() && !optimizer.by_name)) return {&told, "unknown"};
  if (used == fields) return {&told, told.type};
  if (used == "adamw" && fields == "adam") return {optimizer_form("AdamW"), "AdamW"};
  throw Error(ErrorCode::kMismatch, path, "expected the fields of " + quote(used, 60) + ", found those of " + fields);
}

const char* describe(OptionKind kind) {
  switch (kind) {
    case OptionKind::kNumber:
      return "a number";
    case OptionKind::kFlag:
      return "true or false";
    case OptionKind::kTwoNumbers:
      return "two numbers";
    case OptionKind::kInteger:
      return "an integer";
    case OptionKind::kIntegerOrNone:
      return "an integer or null";
    case OptionKind::kTextOrNone:
      return "a text or null";
  }
  return "";
}

/// `found` as a field of this kind; what is wrong with it goes to `problems`.
json checked(std::string_view field, OptionKind kind, const json& found, Problems& problems) {
  if (auto value = option_value(kind, found)) return std::move(*value);
  problems.push_back(std::string(field) + ": expected " + describe(kind) + ", found " + quote(dump_json(found), 60));
  return nullptr;
}

json checked_options(const OptimizerForm& form, const json& options, Problems& problems) {
  json result = json::object();
  for (const OptimizerOption& option : form.options) {
    const auto found = options.find(option.name);
    if (found == options.end()) {
      problems.push_back(std::string(option.name) + ": expected " + describe(option.kind) + ", not in the file");
    } else {
      result[option.name] = checked(option.name, option.kind, *found, problems);
    }
  }
  for (const auto& [name, value] : options.items()) {
    if (!result.contains(name)) problems.push_back(quote(name, 60) + ": not expected");
  }
  return result;
}

/// Checks the state of one parameter.
class StateCheck {
 public:
  StateCheck(const OptimizerForm& form, const StoredState& state) : form_(form), state_(state) {
    for (const auto& [field, value] : state.numbers) left_.insert(field);
  }

  /// Its numbers, as state.pt has them.
  json numbers() {
    if (form_.has_step) take("step", OptionKind::kInteger, true);
    if (form_.is_flat) {
      for (const char* field : {"func_evals", "n_iter"}) take(field, OptionKind::kInteger, true);
      for (const char* field : {"t", "prev_loss"}) take(field, OptionKind::kNumber, true);
      take("H_diag", OptionKind::kNumber, false);  // Python's begins with a plain 1
      for (const std::string_view list : kFlatLists) take(list, OptionKind::kInteger, true);
      take("al", OptionKind::kInteger, false);
    }
    for (const std::string& field : left_) problems_.push_back(quote(field, 60) + ": not expected");
    return std::move(made_);
  }

  /// `shape`: the parameter's.
  Problems finish(const std::vector<int64_t>& shape) {
    std::set<std::string_view> seen;
    for (const auto& [field, tensor] : state_.tensors) {
      if (!is_known(field) || !seen.insert(field).second) {
        problems_.push_back(quote(field, 60) + ": not expected");
      } else if (tensor.layout != format::TensorLayout::kStrided) {
        problems_.push_back(field + ": is quantized or sparse");
      } else if (!form_.is_flat && tensor.shape != shape && !tensor.shape.empty()) {
        problems_.push_back(field + ": expected shape " + ckpt::describe(shape) + ", found " +
                            ckpt::describe(tensor.shape));
      }
    }
    return std::move(problems_);
  }

 private:
  void take(std::string_view field, OptionKind kind, bool needed) {
    const auto found = state_.numbers.find(std::string(field));
    if (found == state_.numbers.end()) {
      if (needed) problems_.push_back(std::string(field) + ": expected " + describe(kind) + ", not in the file");
      return;
    }
    left_.erase(found->first);
    made_[found->first] = checked(field, kind, found->second, problems_);
  }

  /// A field that the form has; of a list a place in it.
  bool is_known(const std::string& field) {
    if (!form_.is_flat) {
      return std::any_of(form_.tensors.begin(), form_.tensors.end(),
                         [&](const auto& known) { return known.name == field; });
    }
    if (field == "d" || field == "prev_flat_grad") return true;
    if (field == "H_diag") return !state_.numbers.contains(field);
    const size_t dot = field.rfind('.');
    const auto count = state_.numbers.find(field.substr(0, std::min(dot, field.size())));
    if (dot == std::string::npos || count == state_.numbers.end() || !count->second.is_number_integer()) return false;
    const std::string digits = field.substr(dot + 1);
    if (digits.empty() || digits.size() > 7 || digits.find_first_not_of("0123456789") != std::string::npos)
      return false;
    const uint64_t place = std::stoull(digits), size = count->second.get<uint64_t>();
    return size <= kMaxList && place < size && std::to_string(place) == digits;
  }

  const OptimizerForm& form_;
  const StoredState& state_;
  std::set<std::string> left_;
  json made_ = json::object();
  Problems problems_;
};

/// The place in `parameters` of each key: by name for those of a training state, else by position.
std::map<std::string, size_t> match(const StoredOptimizer& optimizer, const Parameters& parameters,
                                    const std::vector<format::TensorToWrite>& tensors, const std::string& path) {
  std::map<std::string, size_t> places, by_name;
  // A tensor that has several names is one where names are matched.
  const auto tensor_at = [&](size_t position) {
    const size_t place = parameters[position].second;
    return tensors[place].tied_to < 0 ? place : static_cast<size_t>(tensors[place].tied_to);
  };
  std::set<size_t> distinct, taken;
  for (size_t i = 0; i < parameters.size(); ++i) {
    by_name.emplace(parameters[i].first, i);
    distinct.insert(tensor_at(i));
  }
  size_t count = 0;
  Problems missing;
  for (const StoredOptimizer::Group& group : optimizer.groups) {
    for (const std::string& key : group.keys) {
      const size_t position = count++;
      if (!optimizer.by_name) {
        if (position < parameters.size()) places.emplace(key, position);
      } else if (const auto found = by_name.find(key.substr(key.find('/') + 1)); found != by_name.end()) {
        places.emplace(key, found->second);
        taken.insert(tensor_at(found->second));
      } else {
        missing.push_back(quote(key) + ": not in the model");
      }
    }
  }
  const size_t expected = optimizer.by_name ? distinct.size() : parameters.size();
  if (optimizer.by_name) count = taken.size() + missing.size();
  if (count != expected) {
    throw Error(ErrorCode::kMismatch, path,
                "expected an optimizer of " + std::to_string(expected) + " parameters as the model has, found " +
                    std::to_string(count));
  }
  if (missing.empty()) return places;
  throw Error(ErrorCode::kMismatch, path, "the optimizer does not fit the model", {.details = std::move(missing)});
}

class Maker {
 public:
  Maker(const format::ArchiveFile& file, const std::string& type, const Parameters& parameters,
        std::vector<format::TensorToWrite>& tensors)
      : file_(file),
        optimizer_(read_stored_optimizer(file)),
        type_(type_of(optimizer_, type, path())),
        parameters_(parameters),
        tensors_(tensors),
        places_(match(optimizer_, parameters, tensors, path())) {}

  format::ArchiveToWrite make() {
    if (type_.form->is_flat && optimizer_.groups.size() > 1) {
      throw Error(ErrorCode::kMismatch, path(),
                  "expected one group of parameters of LBFGS, found " + std::to_string(optimizer_.groups.size()));
    }
    json groups = json::array();
    for (size_t i = 0; i < optimizer_.groups.size(); ++i) add_group(i, groups);
    for (const auto& [key, state] : optimizer_.states) {
      if (!places_.contains(key)) problems_.push_back("state " + quote(key) + ": of no parameter");
    }
    if (!problems_.empty()) {
      throw Error(ErrorCode::kMismatch, path(), "the state does not fit the optimizer " + lower(type_.form->type),
                  {.details = std::move(problems_)});
    }
    const json description{{"type", type_.stored}, {"groups", std::move(groups)}, {"state", std::move(states_)}};
    return {{{"description", dump_json(description)},
             {"state", std::make_shared<const format::ArchiveToWrite>(fields_to_write())}}};
  }

 private:
  const std::string& path() const { return file_.file().path(); }
  std::string name_of(const std::string& key) const { return "model/" + parameters_[places_.at(key)].first; }

  void add_problems(const std::string& where, const Problems& problems) {
    for (const std::string& problem : problems) problems_.push_back(where + ": " + problem);
  }

  void add_group(size_t index, json& groups) {
    const StoredOptimizer::Group& group = optimizer_.groups[index];
    Problems problems;
    json options = checked_options(*type_.form, group.options, problems);
    add_problems("group " + std::to_string(index), problems);
    json names = json::array();
    for (const std::string& key : group.keys) {
      names.push_back(name_of(key));
      const auto state = optimizer_.states.find(key);
      if (state != optimizer_.states.end() && taken_.insert(places_.at(key)).second) add_state(key, state->second);
    }
    groups.push_back({{"options", std::move(options)}, {"parameters", std::move(names)}});
  }

  void add_state(const std::string& key, const StoredState& state) {
    const std::string name = name_of(key);
    StateCheck check(*type_.form, state);
    states_[name] = check.numbers();
    add_problems("state " + quote(key), check.finish(tensors_[parameters_[places_.at(key)].second].shape));
    for (const auto& [field, tensor] : state.tensors) fields_[field].emplace_back(name, &tensor);
  }

  /// In the order of the fields that a live optimizer has.
  format::ArchiveToWrite fields_to_write() {
    format::ArchiveToWrite level;
    StateTree tree(path(), kMaxLevels);
    for (const std::string& field : ordered_fields()) {
      std::vector<std::pair<std::string, size_t>> places;
      for (const auto& [name, tensor] : fields_[field]) {
        places.emplace_back(name, tensors_.size());
        tensors_.push_back(
            {"optimizer." + field + "." + name, tensor->dtype, tensor->shape, bytes_of(file_.file(), *tensor)});
      }
      level.members.emplace_back(format::escape_name(field),
                                 std::make_shared<const format::ArchiveToWrite>(tree.make_places(std::move(places))));
    }
    return level;
  }

  std::vector<std::string> ordered_fields() const {
    const auto rank = [&](const std::string& field) {
      const std::string name = field.substr(0, field.find('.'));
      size_t place = 0;
      if (type_.form->is_flat) {
        place = static_cast<size_t>(std::find(kFlatTensors.begin(), kFlatTensors.end(), name) - kFlatTensors.begin());
      } else {
        const auto known = std::find_if(type_.form->tensors.begin(), type_.form->tensors.end(),
                                        [&](const StateTensor& tensor) { return tensor.name == name; });
        place = static_cast<size_t>(known - type_.form->tensors.begin());
      }
      const uint64_t number = name.size() < field.size() ? std::stoull(field.substr(name.size() + 1)) : 0;
      return std::pair(place, number);
    };
    std::vector<std::pair<std::pair<size_t, uint64_t>, std::string>> ranked;
    for (const auto& [field, values] : fields_) ranked.emplace_back(rank(field), field);
    std::sort(ranked.begin(), ranked.end());
    std::vector<std::string> fields;
    for (auto& [place, field] : ranked) fields.push_back(std::move(field));
    return fields;
  }

  const format::ArchiveFile& file_;
  const StoredOptimizer optimizer_;
  const Type type_;
  const Parameters& parameters_;
  std::vector<format::TensorToWrite>& tensors_;
  const std::map<std::string, size_t> places_;  // of keys in parameters_
  std::set<size_t> taken_;
  json states_ = json::object();
  std::map<std::string, std::vector<std::pair<std::string, const format::StoredTensor*>>> fields_;
  Problems problems_;
};

}  // namespace

format::ArchiveToWrite optimizer_to_write(const format::ArchiveFile& file, const std::string& type,
                                          const Parameters& parameters, std::vector<format::TensorToWrite>& tensors) {
  return Maker(file, type, parameters, tensors).make();
}

}  // namespace ckpt::weights
