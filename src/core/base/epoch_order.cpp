#include "core/base/epoch_order.h"

#include <array>
#include <bit>
#include <numeric>
#include <utility>

namespace ckpt {
namespace {

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;

uint64_t mix(uint64_t x) {
  x += kGolden;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

class Xoshiro256 {
 public:
  explicit Xoshiro256(uint64_t key) {
    for (uint64_t& word : state_) {
      word = mix(key);
      key += kGolden;
    }
  }

  uint64_t next() {
    const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  uint64_t below(uint64_t n) {
    __extension__ using Wide = unsigned __int128;
    Wide product = Wide{next()} * n;
    if (static_cast<uint64_t>(product) < n) {
      const uint64_t favoured = (0 - n) % n;
      while (static_cast<uint64_t>(product) < favoured) product = Wide{next()} * n;
    }
    return static_cast<uint64_t>(product >> 64);
  }

 private:
  std::array<uint64_t, 4> state_;
};

}  // namespace

std::vector<size_t> epoch_order(size_t size, uint64_t seed, uint64_t epoch) {
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), size_t{0});
  Xoshiro256 random(mix(mix(seed) + epoch));
  for (size_t i = size; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

}  // namespace ckpt
