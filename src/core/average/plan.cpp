#include "core/average/plan.h"

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

#include "core/average/integers.h"
#include "core/base/quote.h"
#include "core/weights/convert.h"

namespace ckpt::average {
namespace {

using weights::Tensor;

std::string describe(const Tensor& tensor) { return ckpt::describe(tensor.stored.dtype, tensor.stored.shape); }

[[noreturn]] void refuse(ErrorCode code, const std::string& what, std::vector<std::string> details) {
  std::string message = what + ": " + details[0];
  if (details.size() > 1) message += ", and " + std::to_string(details.size() - 1) + " more";
  throw Error(code, "", message, {.offset = std::nullopt, .tensor = {}, .details = std::move(details)});
}

class Planner {
 public:
  Planner(const Members& members, const AverageOptions& options, Format format)
      : members_(members.list), options_(options), format_(format), newest_(newest_member()) {
    if (!options.dtype.empty()) {
      dtype_ = dtype_from_name(options.dtype);
      const bool known = dtype_ && *dtype_ >= DType::kFloat16 && *dtype_ <= DType::kFloat64;
      if (!known) {
        throw Error(ErrorCode::kInvalid, "",
                    "cannot convert to " + quote(options.dtype) + "; float16, bfloat16, float32, float64 can be");
      }
    }
  }

  Plan make() {
    collect();
    compare();
    if (plan_.items.empty()) throw Error(ErrorCode::kNotFound, members_[0].path, "no name is in all inputs");
    for (Item& item : plan_.items) decide(item);
    refuse_unsupported();
    tie();
    const bool same_metadata = std::all_of(members_.begin(), members_.end(), [&](const Member& member) {
      return member.weights.module_metadata() == members_[0].weights.module_metadata();
    });
    if (same_metadata) plan_.module_metadata = members_[0].weights.module_metadata();
    std::stable_sort(plan_.decisions.begin(), plan_.decisions.end(),
                     [](const auto& a, const auto& b) { return a.name < b.name; });
    return std::move(plan_);
  }

 private:
  /// The highest iteration, of two the last one's; where none has one the last.
  uint32_t newest_member() const {
    uint32_t newest = static_cast<uint32_t>(members_.size() - 1);
    for (uint32_t i = 0; i < members_.size(); ++i) {
      const auto& best = members_[newest].iteration;
      if (members_[i].iteration && (!best || *members_[i].iteration >= *best)) newest = i;
    }
    return newest;
  }

  void say(const std::string& name, std::string what) { plan_.decisions.push_back({name, std::move(what)}); }

  bool same_order() const {
    const std::vector<Tensor>& first = members_[0].weights.tensors();
    return std::all_of(members_.begin() + 1, members_.end(), [&](const Member& member) {
      return std::equal(first.begin(), first.end(), member.weights.tensors().begin(), member.weights.tensors().end(),
                        [](const Tensor& a, const Tensor& b) { return a.name == b.name; });
    });
  }

  /// All names of all members.
  void collect() {
    std::unordered_map<std::string_view, size_t> places;
    for (size_t m = 0; m < members_.size(); ++m) {
      for (const Tensor& tensor : members_[m].weights.tensors()) {
        const auto [place, is_new] = places.try_emplace(tensor.name, plan_.items.size());
        if (is_new) {
          plan_.items.emplace_back().name = tensor.name;
          plan_.items.back().sources.resize(members_.size());
        }
        plan_.items[place->second].sources[m] = &tensor;
      }
    }
    if (!same_order()) {
      std::sort(plan_.items.begin(), plan_.items.end(), [](const Item& a, const Item& b) { return a.name < b.name; });
    }
  }

  /// Names by the rule, then dtypes and shapes; all problems at once.
  void compare() {
    std::vector<std::string> problems;
    std::erase_if(plan_.items, [&](const Item& item) { return lacks(item, problems); });
    for (const Item& item : plan_.items) {
      const Tensor* first = nullptr;
      size_t first_member = 0;
      for (size_t m = 0; m < members_.size(); ++m) {
        const Tensor* tensor = item.sources[m];
        if (!tensor) continue;
        if (!first) {
          first = tensor;
          first_member = m;
        } else if (tensor->stored.dtype != first->stored.dtype || tensor->stored.shape != first->stored.shape) {
          problems.push_back(quote(item.name) + ": " + describe(*first) + " in " + members_[first_member].path + ", " +
                             describe(*tensor) + " in " + members_[m].path);
        }
      }
    }
    if (!problems.empty()) refuse(ErrorCode::kMismatch, "the inputs do not fit", std::move(problems));
  }

  /// Whether the item is left out, because a member has not the name.
  bool lacks(const Item& item, std::vector<std::string>& problems) {
    std::string with, without;
    for (size_t m = 0; m < members_.size(); ++m) {
      std::string& list = item.sources[m] ? with : without;
      list += (list.empty() ? "" : ", ") + members_[m].path;
    }
    if (without.empty()) return false;
    switch (options_.keys) {
      case AverageKeys::kStrict:
        problems.push_back(quote(item.name) + ": in " + with + ", not in " + without);
        return false;
      case AverageKeys::kIntersect:
        say(item.name, "left out: not in " + without);
        return true;
      case AverageKeys::kUnion:
        break;
    }
    say(item.name, "over " + with + " alone");
    return false;
  }

  void decide(Item& item) {
    const Tensor& first = item.first();
    const DType from = first.stored.dtype;
    item.to = dtype_ && is_floating(from) ? *dtype_ : from;
    for (const Tensor* source : item.sources) item.is_parameter |= source && source->stored.is_parameter;
    if (item.to != from) say(item.name, std::string(name(from)) + " to " + std::string(name(item.to)));
    if (from == DType::kBool) {
      item.action = Action::kMustAgree;
    } else if (is_integer(from)) {
      decide_integer(item);
    }
  }

  void decide_integer(Item& item) {
    switch (options_.integers) {
      case AverageIntegers::kNewest:
        item.action = Action::kNewest;
        item.newest = newest_;
        // Of those that have the name, where the newest has not.
        for (uint32_t m = 0; m < members_.size(); ++m) {
          if (!item.sources[m]) continue;
          const bool better = !item.sources[item.newest] || (item.newest != newest_ && is_newer(m, item.newest));
          if (better) item.newest = m;
        }
        return say(item.name, "newest: from " + members_[item.newest].path);
      case AverageIntegers::kMax:
        item.action = Action::kMax;
        return say(item.name, "maximum");
      case AverageIntegers::kSum:
        item.action = Action::kSum;
        return say(item.name, "sum");
      case AverageIntegers::kMean:
        item.action = Action::kIntegerMean;
        return say(item.name, "mean, rounded to even");
      case AverageIntegers::kError:
        item.action = Action::kMustAgree;
        return;
    }
  }

  bool is_newer(uint32_t a, uint32_t b) const {
    const auto &x = members_[a].iteration, &y = members_[b].iteration;
    return x && y ? *x >= *y : x || !y;
  }

  void refuse_unsupported() const {
    std::vector<std::string> details, format_details;
    for (const Item& item : plan_.items) {
      for (size_t m = 0; m < members_.size(); ++m) {
        if (!item.sources[m]) continue;
        const format::TensorLayout layout = item.sources[m]->stored.layout;
        if (layout == format::TensorLayout::kStrided) continue;
        details.push_back(quote(item.name) + ": " + (layout == format::TensorLayout::kSparse ? "sparse" : "quantized") +
                          " in " + members_[m].path);
      }
      if (format_ == Format::kSafetensors && !safetensors_name(item.to)) {
        format_details.push_back(item.name + ": " + std::string(name(item.to)));
      }
    }
    for (const Member& member : members_) {
      for (const format::OpaqueTensor& tensor : member.weights.opaque()) {
        details.push_back(quote(tensor.name) + ": " + tensor.dtype + " in " + member.path);
      }
    }
    if (!details.empty()) refuse(ErrorCode::kUnsupported, "cannot be averaged", std::move(details));
    weights::throw_unsupported("", format_, std::move(format_details));
  }

  /// Two names are one tensor where they are one in every member that has them.
  void tie() {
    std::map<std::vector<int64_t>, size_t> first_of;
    std::unordered_map<std::string_view, size_t> place_of;
    for (size_t i = 0; i < plan_.items.size(); ++i) {
      Item& item = plan_.items[i];
      place_of.emplace(item.name, i);
      if (item.first().stored.elements == 0) continue;
      std::vector<int64_t> roots(members_.size(), -1);
      for (size_t m = 0; m < members_.size(); ++m) {
        if (item.sources[m]) roots[m] = root_of(m, *item.sources[m]);
      }
      const auto [first, is_first] = first_of.try_emplace(std::move(roots), i);
      if (is_first) continue;
      item.tied_to = static_cast<int64_t>(first->second);
      say(item.name, "tied to " + quote(plan_.items[first->second].name));
    }
    for (Item& item : plan_.items) say_untied(item, place_of);
  }

  int64_t root_of(size_t member, const Tensor& tensor) const {
    const std::vector<Tensor>& tensors = members_[member].weights.tensors();
    return tensor.tied_to >= 0 ? tensor.tied_to : &tensor - tensors.data();
  }

  void say_untied(const Item& item, const std::unordered_map<std::string_view, size_t>& place_of) {
    for (size_t m = 0; m < members_.size(); ++m) {
      if (!item.sources[m] || item.sources[m]->tied_to < 0) continue;
      const std::string& root = members_[m].weights.tensors()[static_cast<size_t>(item.sources[m]->tied_to)].name;
      const auto place = place_of.find(root);
      if (place == place_of.end() || group_of(item) == group_of(plan_.items[place->second])) continue;
      return say(item.name, "by itself: tied to " + quote(root) + " in " + members_[m].path + " and not in all inputs");
    }
  }

  size_t group_of(const Item& item) const {
    return item.tied_to >= 0 ? static_cast<size_t>(item.tied_to) : static_cast<size_t>(&item - plan_.items.data());
  }

  const std::vector<Member>& members_;
  const AverageOptions& options_;
  const Format format_;
  const uint32_t newest_;
  std::optional<DType> dtype_;
  Plan plan_;
};

}  // namespace

const Tensor& Item::first() const {
  return **std::find_if(sources.begin(), sources.end(), [](const Tensor* source) { return source != nullptr; });
}

Plan make_plan(const Members& members, const AverageOptions& options, Format format) {
  return Planner(members, options, format).make();
}

}  // namespace ckpt::average
