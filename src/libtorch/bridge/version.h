// Where the supported LibTorch versions (1.13 to 2.x) differ.
#pragma once

#include <torch/optim/optimizer.h>
#include <torch/version.h>

#include <sstream>
#include <type_traits>

#if TORCH_VERSION_MAJOR >= 2
#define CKPT_HAS_PLATEAU_SCHEDULER 1
#else
#define CKPT_HAS_PLATEAU_SCHEDULER 0
#endif

namespace ckpt::bridge {

using StateMap = std::remove_reference_t<decltype(std::declval<torch::optim::Optimizer&>().state())>;

/// The key of a parameter in Optimizer::state(): its address, as a text in 1.13 and as a pointer later.
template <class Key = StateMap::key_type>
Key state_key(const at::Tensor& parameter) {
  if constexpr (std::is_pointer_v<Key>) {
    return parameter.unsafeGetTensorImpl();
  } else {
    std::ostringstream text;
    text << parameter.unsafeGetTensorImpl();
    return text.str();
  }
}

}  // namespace ckpt::bridge
