#include "libtorch/training/shadows.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "ckpt/error.h"
#include "core/base/quote.h"
#include "libtorch/bridge/tensors.h"
#include "libtorch/bridge/torch_error.h"
#include "libtorch/model/model_state_impl.h"
#include "libtorch/model/module_tensors.h"
#include "libtorch/training/blend.h"

namespace ckpt {
namespace {

using Shadow = Averager::Shadows::Shadow;

[[noreturn]] void refuse(const std::string& why) { throw Error(ErrorCode::kInvalid, "", "Averager: " + why); }

void check_options(const AveragerOptions& options) {
  if (options.decay && options.schedule) refuse("decay and schedule are both given, expected one of them");
  if (options.decay && !(*options.decay >= 0 && *options.decay < 1)) {
    refuse("decay is " + std::to_string(*options.decay) + ", expected 0 <= decay < 1");
  }
  if (options.every == 0) refuse("every is 0, expected at least 1");
}

void append(const torch::nn::Module& module, const std::string& prefix, std::vector<Shadow>& to) {
  model::visit_level(
      module,
      [&](const std::string& name, const at::Tensor& tensor, bool is_buffer) {
        to.push_back({.name = prefix + name, .live = tensor, .average = {}, .is_buffer = is_buffer});
      },
      [&](const std::string& name, const torch::nn::Module& child) { append(child, prefix + name + ".", to); });
}

/// Names and shapes that differ, one line each.
std::vector<std::string> differences(const std::vector<Shadow>& before, const std::vector<Shadow>& now) {
  std::unordered_map<std::string_view, const Shadow*> known;
  for (const Shadow& one : before) known.emplace(one.name, &one);
  std::vector<std::string> lines;
  for (const Shadow& one : now) {
    const auto found = known.find(one.name);
    if (found == known.end()) {
      lines.push_back(quote(one.name) + ": not known when the Averager was made");
      continue;
    }
    const at::Tensor& average = found->second->average;
    if (average.sizes() != one.live.sizes()) {
      lines.push_back(quote(one.name) + ": expected the shape of " + bridge::describe(average) + ", found " +
                      bridge::describe(one.live));
    }
    known.erase(found);
  }
  for (const Shadow& one : before) {
    if (known.contains(one.name)) lines.push_back(quote(one.name) + ": is no longer in the module");
  }
  return lines;
}

at::ScalarType at_least_float32(at::ScalarType type) {
  if (at::isComplexType(type)) return type == at::kComplexHalf ? at::kComplexFloat : type;
  return at::isFloatingType(type) && type != at::kDouble ? at::kFloat : type;
}

}  // namespace

Averager::Shadows::Shadows(torch::nn::Module& module, AveragerOptions options)
    : module_(module), options_(std::move(options)) {
  check_options(options_);
  const at::NoGradGuard no_grad;
  shadows_ = live_tensors();
  for (Shadow& one : shadows_) {
    one.average = one.tied_to < 0 ? average_for(one, {}) : shadows_[static_cast<size_t>(one.tied_to)].average;
  }
}

std::vector<Shadow> Averager::Shadows::live_tensors() const {
  std::vector<Shadow> found;
  append(module_, "", found);
  StateDict named;
  for (const Shadow& one : found) {
    if (const char* reason = bridge::unsupported_reason(one.live)) {
      throw Error(ErrorCode::kUnsupported, "", "Averager: " + quote(one.name) + ": cannot average " + reason,
                  {.tensor = one.name});
    }
    named.emplace_back(one.name, one.live);
  }
  model::strip_wrappers(named);
  const std::vector<int64_t> ties = model::ties_of(named);
  std::unordered_set<std::string_view> seen;
  for (size_t i = 0; i < found.size(); ++i) {
    if (!seen.insert(named[i].first).second) refuse("two tensors are called " + quote(named[i].first));
    found[i].name = named[i].first;
    found[i].tied_to = ties[i];
  }
  return found;
}

bool Averager::Shadows::is_averaged(const Shadow& shadow) const {
  const at::ScalarType type = shadow.live.scalar_type();
  return (at::isFloatingType(type) || at::isComplexType(type)) && (!shadow.is_buffer || options_.average_buffers);
}

at::Tensor Averager::Shadows::average_for(const Shadow& shadow, const at::Tensor& known) const {
  const at::ScalarType type = shadow.live.scalar_type();
  const at::ScalarType wanted = is_averaged(shadow) ? at_least_float32(type) : type;
  if (known.defined() && known.scalar_type() == wanted && known.device() == shadow.live.device()) return known;
  return at::empty_like(shadow.live.detach(), shadow.live.options().dtype(wanted).requires_grad(false))
      .copy_(known.defined() ? known : shadow.live.detach());
}

const std::vector<Shadow>& Averager::Shadows::look() {
  const at::NoGradGuard no_grad;
  std::vector<Shadow> now = live_tensors();
  std::vector<std::string> lines = differences(shadows_, now);
  if (!lines.empty()) {
    const std::string first = lines.front();
    throw Error(
        ErrorCode::kMismatch, "",
        "Averager: the module has changed: " + std::to_string(lines.size()) + " differences, the first: " + first,
        {.details = std::move(lines)});
  }
  std::unordered_map<std::string_view, const at::Tensor*> known;
  for (const Shadow& one : shadows_) known.emplace(one.name, &one.average);
  std::unordered_set<const void*> used;
  for (Shadow& one : now) {
    if (one.tied_to >= 0) {
      one.average = now[static_cast<size_t>(one.tied_to)].average;
      continue;
    }
    one.average = average_for(one, *known.at(one.name));
    // What was tied and is no longer so.
    if (!used.insert(one.average.unsafeGetTensorImpl()).second) one.average = one.average.clone();
  }
  shadows_ = std::move(now);
  return shadows_;
}

void Averager::Shadows::check_not_swapped(const char* doing) const {
  const auto saved = swapped_.lock();
  if (saved && !saved->values.empty()) refuse(std::string("the averages are swapped in, which allows no ") + doing);
}

uint64_t Averager::Shadows::updates_in(uint64_t many) const {
  return many <= options_.start ? 0 : (many - options_.start) / options_.every;
}

double Averager::Shadows::next_weight() const {
  if (!is_ema()) return 1.0 / (static_cast<double>(updates) + 1);
  const double decay = options_.decay ? *options_.decay : options_.schedule(updates);
  if (!(decay >= 0 && decay <= 1)) {
    refuse("the schedule gave a decay of " + std::to_string(decay) + ", expected 0 <= decay <= 1");
  }
  return 1 - decay;
}

bool Averager::Shadows::update() {
  check_not_swapped("update");
  const uint64_t call = calls + 1;
  if (call <= options_.start || (call - options_.start) % options_.every != 0) {
    calls = call;
    return false;
  }
  const double weight = updates == 0 ? 1 : next_weight();  // what the schedule throws leaves as it is
  bridge::wrap_errors("", "averaging weights", [&] {
    const at::NoGradGuard no_grad;
    std::vector<std::pair<at::Tensor, at::Tensor>> blended;
    for (const Shadow& one : look()) {
      if (one.tied_to >= 0) continue;
      if (updates > 0 && is_averaged(one)) {
        blended.emplace_back(one.average, one.live.detach());
      } else {
        one.average.copy_(one.live.detach());
      }
    }
    training::blend(blended, weight);
  });
  calls = call;
  ++updates;
  return true;
}

std::shared_ptr<Averager::Swapped::Saved> Averager::Shadows::swap_in() {
  check_not_swapped("second swap");
  const at::NoGradGuard no_grad;
  look();
  auto saved = std::make_shared<Swapped::Saved>();
  saved->values.reserve(shadows_.size());
  for (const Shadow& one : shadows_) {
    if (one.tied_to < 0) saved->values.emplace_back(one.live.detach(), one.live.detach().clone());
  }
  Swapped guard(saved);  // gives back what was swapped before an error
  for (const Shadow& one : shadows_) {
    if (one.tied_to < 0) one.live.detach().copy_(one.average);
  }
  guard.saved_.reset();
  swapped_ = saved;
  return saved;
}

}  // namespace ckpt
