// Random number generators: the CPU's and those of CUDA devices. Builds and runs with a LibTorch without CUDA.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace ckpt::bridge {

/// A byte tensor of its own on the CPU.
at::Tensor generator_state(at::Device device);
/// Throws c10::Error where the bytes are no state of such a generator.
void set_generator_state(at::Device device, const at::Tensor& state);
/// Why `state` is no state of the generator of `device`, or empty. Changes nothing that is in use.
std::string check_generator_state(at::Device device, const at::Tensor& state);

/// Whether this machine has the device.
bool has_device(at::Device device);

}  // namespace ckpt::bridge
