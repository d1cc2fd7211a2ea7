#include "libtorch/bridge/generators.h"

#include <ATen/Context.h>
#include <c10/util/Exception.h>

#include <mutex>

namespace ckpt::bridge {
namespace {

at::Generator generator_of(at::Device device) { return at::globalContext().defaultGenerator(device); }

}  // namespace

at::Tensor generator_state(at::Device device) {
  at::Generator generator = generator_of(device);
  const std::lock_guard lock(generator.mutex());
  return generator.get_state();
}

void set_generator_state(at::Device device, const at::Tensor& state) {
  at::Generator generator = generator_of(device);
  const std::lock_guard lock(generator.mutex());
  generator.set_state(state);
}

std::string check_generator_state(at::Device device, const at::Tensor& state) {
  try {
    at::Generator copy = generator_of(device).clone();
    copy.set_state(state);
    return {};
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    return text.substr(0, text.find('\n'));
  }
}

bool has_device(at::Device device) {
  if (device.is_cpu()) return true;
  return device.is_cuda() && at::globalContext().hasCUDA() && device.index() >= 0 &&
         device.index() < static_cast<int64_t>(at::detail::getCUDAHooks().getNumGPUs());
}

}  // namespace ckpt::bridge
