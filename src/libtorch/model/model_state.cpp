#include "ckpt/model_state.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <map>
#include <utility>

#include "ckpt/error.h"
#include "core/base/parallel.h"
#include "core/base/quote.h"
#include "libtorch/bridge/tensor_reader.h"
#include "libtorch/bridge/tensors.h"
#include "libtorch/bridge/torch_error.h"
#include "libtorch/model/model_state_impl.h"
#include "libtorch/model/module_tensors.h"

namespace ckpt {
namespace {

using weights::Tensor;
using weights::Weights;

TensorInfo info_of(const Weights& file, const Tensor& tensor) {
  const format::StoredTensor& stored = tensor.stored;
  TensorInfo info;
  info.name = tensor.name;
  info.dtype = name(stored.dtype);
  info.shape = stored.shape;
  info.strides = stored.strides;
  info.bytes = stored.bytes;
  info.file = file.files()[tensor.file]->path();
  info.record = stored.record;
  info.file_offset = stored.file_offset;
  info.storage_offset = stored.storage_offset;
  info.storage_bytes = stored.storage_bytes;
  info.is_parameter = stored.is_parameter;
  if (tensor.tied_to >= 0) info.tied_to = file.tensors()[static_cast<size_t>(tensor.tied_to)].name;
  return info;
}

TensorInfo info_of(const std::string& name, const at::Tensor& tensor) {
  TensorInfo info;
  info.name = name;
  info.dtype = ckpt::name(*bridge::dtype_of(tensor.scalar_type()));
  info.shape = tensor.sizes().vec();
  info.strides = tensor.strides().vec();
  info.bytes = tensor.nbytes();
  info.is_parameter = tensor.requires_grad();
  return info;
}

void check_live(const StateDict& tensors) {
  std::vector<std::string> lines;
  for (const auto& [name, tensor] : tensors) {
    if (const char* reason = bridge::unsupported_reason(tensor)) lines.push_back(quote(name) + ": " + reason);
  }
  if (lines.empty()) return;
  throw Error(ErrorCode::kUnsupported, "", "tensor " + lines.front(), {.details = lines});
}

// Where a stored tensor is read: new memory of the CPU.
at::Tensor empty_for(const Weights& file, const std::string& name, const format::StoredTensor& stored) {
  const auto fail = [&](const std::string& text) {
    throw Error(ErrorCode::kUnsupported, file.path(), "tensor " + quote(name) + ": " + text, {.tensor = name});
  };
  if (stored.layout != format::TensorLayout::kStrided)
    fail("is a " + bridge::describe(stored) + ", and cannot be read");
  const auto type = bridge::scalar_type_of(stored.dtype);
  if (!type) fail("this LibTorch has no " + bridge::describe(stored));
  return at::empty(stored.shape, at::TensorOptions(*type));
}

}  // namespace

namespace model {

unsigned threads_of(unsigned wanted) { return wanted == 0 ? default_threads() : wanted; }

std::vector<int64_t> ties_of(const StateDict& tensors) {
  std::vector<int64_t> ties(tensors.size(), -1);
  std::unordered_map<const void*, std::vector<size_t>> by_memory;
  const auto same = [](const at::Tensor& a, const at::Tensor& b) {
    return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() && a.strides() == b.strides() &&
           a.is_conj() == b.is_conj() && a.is_neg() == b.is_neg();
  };
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i].second;
    if (tensor.nbytes() == 0) continue;
    std::vector<size_t>& same_place = by_memory[tensor.data_ptr()];
    const auto first = std::find_if(same_place.begin(), same_place.end(),
                                    [&](size_t other) { return same(tensors[other].second, tensor); });
    if (first != same_place.end()) {
      ties[i] = static_cast<int64_t>(*first);
    } else {
      same_place.push_back(i);
    }
  }
  return ties;
}

}  // namespace model

const std::string* ModelState::Impl::index() {
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!by_name.emplace(tensors[i].name, i).second) return &tensors[i].name;
  }
  return nullptr;
}

size_t ModelState::Impl::place_of(std::string_view name) const {
  const auto found = by_name.find(name);
  if (found == by_name.end()) {
    throw Error(ErrorCode::kNotFound, path, "has no tensor " + quote(name), {.tensor = std::string(name)});
  }
  return found->second;
}

ModelState::ModelState(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

ModelState ModelState::open(const std::string& path, const OpenOptions& options) {
  auto impl = std::make_shared<Impl>();
  impl->file = Weights::open(path, options);
  impl->mappings = std::make_unique<model::Mappings>(*impl->file);
  impl->path = impl->file->path();
  impl->tensors.reserve(impl->file->tensors().size());
  for (const Tensor& tensor : impl->file->tensors()) impl->tensors.push_back(info_of(*impl->file, tensor));
  impl->index();
  return ModelState(std::move(impl));
}

std::shared_ptr<ModelState::Impl> ModelState::Impl::of(StateDict tensors) {
  check_live(tensors);
  auto impl = std::make_shared<Impl>();
  impl->live = std::move(tensors);
  const std::vector<int64_t> ties = model::ties_of(impl->live);
  for (size_t i = 0; i < ties.size(); ++i) {
    const auto& [name, tensor] = impl->live[i];
    TensorInfo& info = impl->tensors.emplace_back(info_of(name, tensor));
    if (ties[i] >= 0) info.tied_to = impl->live[static_cast<size_t>(ties[i])].first;
  }
  if (const std::string* twice = impl->index()) {
    throw Error(ErrorCode::kInvalid, "", "two tensors are called " + quote(*twice), {.tensor = *twice});
  }
  return impl;
}

ModelState ModelState::of(StateDict tensors) { return ModelState(Impl::of(std::move(tensors))); }

ModelState ModelState::of(const torch::nn::Module& module) {
  std::shared_ptr<Impl> impl = Impl::of(ckpt::state_dict(module));
  impl->module_metadata = model::module_metadata(module);
  return ModelState(std::move(impl));
}

std::optional<Format> ModelState::format() const {
  return impl_->file ? std::optional(impl_->file->format()) : std::nullopt;
}

const std::string& ModelState::path() const { return impl_->path; }

const std::vector<TensorInfo>& ModelState::tensors() const { return impl_->tensors; }

const TensorInfo* ModelState::find(std::string_view name) const {
  const auto found = impl_->by_name.find(name);
  return found == impl_->by_name.end() ? nullptr : &impl_->tensors[found->second];
}

const std::map<std::string, std::string>& ModelState::metadata() const {
  static const std::map<std::string, std::string> kNone;
  return impl_->file ? impl_->file->metadata() : kNone;
}

const std::vector<std::string>& ModelState::warnings() const {
  static const std::vector<std::string> kNone;
  return impl_->file ? impl_->file->warnings() : kNone;
}

at::Tensor ModelState::tensor(std::string_view name, const ReadOptions& options) const {
  const size_t place = impl_->place_of(name);
  if (!impl_->file) return impl_->live[place].second;
  return bridge::wrap_errors(impl_->path, "reading a tensor", [&] {
    const Weights& file = *impl_->file;
    const Tensor* const tensor = &file.tensors()[place];
    const at::Tensor result = empty_for(file, tensor->name, tensor->stored);
    const unsigned threads = model::threads_of(options.threads);
    if (options.verify) file.verify(std::span(&tensor, 1), threads);
    const bridge::TensorRead read{tensor->stored, result};
    bridge::read_tensors(*file.files()[tensor->file], std::span(&read, 1), threads);
    return result;
  });
}

at::Tensor ModelState::slice(std::string_view name, int64_t dim, int64_t begin, int64_t end) const {
  const size_t place = impl_->place_of(name);
  const auto rank = static_cast<int64_t>(impl_->tensors[place].shape.size());
  const auto size = dim >= 0 && dim < rank ? impl_->tensors[place].shape[static_cast<size_t>(dim)] : -1;
  if (begin < 0 || begin > end || end > size) {
    throw Error(ErrorCode::kInvalid, impl_->path,
                "tensor " + quote(name) + ": has no places " + std::to_string(begin) + " to " + std::to_string(end) +
                    " of dimension " + std::to_string(dim),
                {.tensor = std::string(name)});
  }
  if (!impl_->file) return impl_->live[place].second.narrow(dim, begin, end - begin);
  return bridge::wrap_errors(impl_->path, "reading a slice", [&] {
    const Weights& file = *impl_->file;
    const Tensor& tensor = file.tensors()[place];
    if (tensor.stored.layout != format::TensorLayout::kStrided) empty_for(file, tensor.name, tensor.stored);  // throws
    const format::StoredTensor part = format::narrow(tensor.stored, static_cast<size_t>(dim), begin, end);
    const bridge::TensorRead read{part, empty_for(file, tensor.name, part)};
    bridge::read_tensors(*file.files()[tensor.file], std::span(&read, 1), default_threads());
    return read.live;
  });
}

StateDict ModelState::state_dict(const ReadOptions& options) const {
  if (!impl_->file) return impl_->live;
  return bridge::wrap_errors(impl_->path, "reading tensors", [&] {
    const Weights& file = *impl_->file;
    StateDict result;
    result.reserve(file.tensors().size());
    std::map<uint32_t, std::vector<bridge::TensorRead>> reads;  // by file
    std::vector<const Tensor*> read;
    for (const Tensor& tensor : file.tensors()) {
      if (tensor.tied_to >= 0) {
        result.emplace_back(tensor.name, result[static_cast<size_t>(tensor.tied_to)].second);
        continue;
      }
      result.emplace_back(tensor.name, empty_for(file, tensor.name, tensor.stored));
      reads[tensor.file].push_back({tensor.stored, result.back().second});
      read.push_back(&tensor);
    }
    const unsigned threads = model::threads_of(options.threads);
    if (options.verify) file.verify(read, threads);
    for (const auto& [place, list] : reads) bridge::read_tensors(*file.files()[place], list, threads);
    return result;
  });
}

LoadReport ModelState::load_into(const StateDict& tensors, const WeightLoadOptions& options) const {
  return bridge::wrap_errors(impl_->path, "loading weights", [&] {
    return impl_->file ? model::load(*impl_->file, tensors, options) : model::copy(impl_->live, tensors, options);
  });
}

LoadReport ModelState::load_into(torch::nn::Module& module, const WeightLoadOptions& options) const {
  return load_into(ckpt::state_dict(module), options);
}

std::vector<std::string> ModelState::save(const std::string& path, Format format, const SaveOptions& options) const {
  return bridge::wrap_errors(path, "saving weights", [&] {
    return impl_->file ? model::save(*impl_->file, path, format, options)
                       : model::save(impl_->live, impl_->module_metadata, path, format, options);
  });
}

namespace {

void append(const torch::nn::Module& module, const std::string& prefix, StateDict& to) {
  model::visit_level(
      module, [&](const std::string& name, const at::Tensor& tensor, bool) { to.emplace_back(prefix + name, tensor); },
      [&](const std::string& name, const torch::nn::Module& child) { append(child, prefix + name + ".", to); });
}

}  // namespace

StateDict state_dict(const torch::nn::Module& module) {
  StateDict result;
  append(module, "", result);
  model::strip_wrappers(result);
  return result;
}

LoadReport copy_weights(const torch::nn::Module& from, torch::nn::Module& to, const WeightLoadOptions& options) {
  return bridge::wrap_errors("", "copying weights",
                             [&] { return model::copy(state_dict(from), state_dict(to), options); });
}

}  // namespace ckpt
