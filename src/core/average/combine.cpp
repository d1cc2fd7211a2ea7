#include "core/average/combine.h"

#include <cstring>

#include "core/average/integers.h"
#include "core/base/quote.h"

namespace ckpt::average {

Combiner::Combiner(const Members& members, const Plan& plan) {
  for (const Member& member : members.list) weights_.push_back(member.weight);
  for (const Item& item : plan.items) {
    if (item.action != Action::kMean) continue;
    Key key{weights_of(item), item.first().stored.dtype, item.to};
    if (means_.contains(key)) continue;
    try {
      Mean mean(std::get<0>(key), item.first().stored.dtype, item.to);
      means_.emplace(std::move(key), std::move(mean));
    } catch (const Error& error) {
      throw Error(error.code(), error.path(), "tensor " + quote(item.name) + ": " + error.message(),
                  {.offset = error.offset(), .tensor = item.name, .details = error.details()});
    }
  }
}

std::vector<double> Combiner::weights_of(const Item& item) const {
  std::vector<double> weights;
  for (size_t m = 0; m < weights_.size(); ++m) {
    if (item.sources[m]) weights.push_back(weights_[m]);
  }
  return weights;
}

Seen Combiner::operator()(const Item& item, std::span<const std::byte* const> inputs, size_t elements,
                          std::byte* to) const {
  const DType dtype = item.first().stored.dtype;
  switch (item.action) {
    case Action::kMean: {
      const MeanFlags flags = means_.at({weights_of(item), dtype, item.to})(inputs, elements, to);
      return {.nonfinite_input = flags.nonfinite_input, .overflow = flags.overflow};
    }
    case Action::kMustAgree:
      std::memcpy(to, inputs[0], elements * width(dtype));
      return {.disagrees = first_difference(inputs, dtype, elements).has_value()};
    case Action::kNewest: {
      size_t place = 0;  // among the members that have the item
      for (size_t m = 0; m < item.newest; ++m) place += item.sources[m] != nullptr;
      std::memcpy(to, inputs[place], elements * width(dtype));
      return {};
    }
    case Action::kMax:
      integer_max(inputs, dtype, elements, to);
      return {};
    case Action::kSum:
      return {.overflow = integer_sum(inputs, dtype, elements, to).has_value()};
    case Action::kIntegerMean:
      return {.overflow = integer_mean(inputs, weights_of(item), dtype, elements, to).has_value()};
  }
  return {};
}

}  // namespace ckpt::average
