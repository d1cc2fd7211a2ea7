// The numbers of a gradient scaler for mixed precision. LibTorch has none in C++, so the training loop owns them.
//
// Thread rule: a value.
#pragma once

#include <cstdint>

namespace ckpt {

struct GradScalerState {
  double scale = 65536.0;          ///< the loss is multiplied by this
  double growth_factor = 2.0;      ///< scale grows by it after `growth_interval` steps without overflow
  double backoff_factor = 0.5;     ///< and shrinks by it after one with
  int64_t growth_interval = 2000;  ///< steps
  int64_t growth_tracker = 0;      ///< steps without overflow since the last change of scale
};

}  // namespace ckpt
