// How much memory is allocated: every operator new of the program is counted, so only one test program has this.
#pragma once

#include <cstdint>

namespace ckpt::test {

/// Bytes allocated now.
uint64_t allocated_bytes();

/// The most bytes that were allocated at once since it was made, beyond those of then.
class PeakOfAllocations {
 public:
  PeakOfAllocations();
  uint64_t bytes() const;

 private:
  uint64_t before_;
};

}  // namespace ckpt::test
