// The order of the examples of an epoch, as a pure function, the same on every machine and with every LibTorch.
//
// Algorithm, fixed for good, since a resumed run must find the order that it left:
//   1. mix(x) is the finalizer of SplitMix64; the key is mix(mix(seed) + epoch), all modulo 2^64.
//   2. SplitMix64 from that key gives four words, the state of xoshiro256**.
//   3. Fisher-Yates over 0, 1, ..., size - 1: for i from size - 1 down to 1, swap i with a draw below i + 1.
//   4. A draw below n takes the high half of the 128-bit product word * n (Lemire), and is drawn again where the low
//      half is below 2^64 mod n, so that no number is favoured.
//
// Thread rule: a pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ckpt {

/// A permutation of 0 to size - 1. Linear in `size`; 8 bytes an example.
std::vector<size_t> epoch_order(size_t size, uint64_t seed, uint64_t epoch);

}  // namespace ckpt
