// SIGTERM and SIGUSR1 as a flag that a training loop polls. The handler does nothing but set it.
//
// Thread rule: make and destroy from one thread at a time; requested() from any.
#pragma once

namespace ckpt::io {

/// While one exists, both signals set the flag instead of what they did before; the last one destroyed puts the old
/// handlers back.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// Whether one of them came since the first StopSignals was made.
  static bool requested();
};

}  // namespace ckpt::io
