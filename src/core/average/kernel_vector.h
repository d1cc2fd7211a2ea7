// Vectors of kLanes numbers, for the loops of kernel_loops.h. See kernel.h for what may be included here.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ckpt::average {
namespace {

#if defined(__AVX512F__)
constexpr size_t kLanes = 8;
#else
constexpr size_t kLanes = 4;
#endif

using Doubles = double __attribute__((vector_size(8 * kLanes)));
using Longs = int64_t __attribute__((vector_size(8 * kLanes)));
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));
using UInts = uint32_t __attribute__((vector_size(4 * kLanes)));
using Shorts = uint16_t __attribute__((vector_size(2 * kLanes)));

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  return reinterpret_cast<To>(from);
}

template <class To, class From>
inline To convert(From from) {
  return __builtin_convertvector(from, To);
}

template <class Vector>
inline Vector load(const void* from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class Vector>
inline void store(Vector vector, void* to) {
  __builtin_memcpy(to, &vector, sizeof vector);
}

inline Doubles all(double value) { return value - Doubles{}; }
inline Doubles magnitude(Doubles value) { return bits_as<Doubles>(bits_as<Longs>(value) & INT64_MAX); }

/// yes where the condition's bits are 1, no where they are 0.
inline Doubles choose(Longs condition, Doubles yes, Doubles no) {
  return bits_as<Doubles>((bits_as<Longs>(yes) & condition) | (bits_as<Longs>(no) & ~condition));
}

/// A bit for each lane of a condition, the first lane's the lowest.
inline uint32_t lanes_of(Longs condition) {
#if defined(__AVX512F__)
  return _mm512_movepi64_mask(reinterpret_cast<__m512i>(condition));
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_pd(reinterpret_cast<__m256d>(condition)));
#else
  uint32_t lanes = 0;
  for (size_t i = 0; i < kLanes; ++i) lanes |= condition[i] != 0 ? 1u << i : 0u;
  return lanes;
#endif
}

inline bool any(Ints condition) {
#if defined(__AVX512F__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(condition)) != 0;
#elif defined(__AVX2__)
  return _mm_movemask_ps(reinterpret_cast<__m128>(condition)) != 0;
#else
  int32_t lanes = 0;
  for (size_t i = 0; i < kLanes; ++i) lanes |= condition[i];
  return lanes != 0;
#endif
}

/// a + b = sum + error (Knuth).
inline void two_sum(Doubles a, Doubles b, Doubles& sum, Doubles& error) {
  const Doubles s = a + b, from_b = s - a, from_a = s - from_b;
  error = (a - from_a) + (b - from_b);
  sum = s;
}

/// a * b = product + error, where neither is near the end of the exponents.
inline void two_product(Doubles a, Doubles b, Doubles& product, Doubles& error) {
  product = a * b;
#if defined(__AVX512F__)
  error = _mm512_fmsub_pd(a, b, product);
#elif defined(__FMA__)
  error = _mm256_fmsub_pd(a, b, product);
#else  // by halves of 26 digits (Dekker, Veltkamp)
  const Doubles wide_a = a * 0x1p27 + a, wide_b = b * 0x1p27 + b;
  const Doubles high_a = wide_a - (wide_a - a), high_b = wide_b - (wide_b - b);
  const Doubles low_a = a - high_a, low_b = b - high_b;
  error = ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b;
#endif
}

}  // namespace
}  // namespace ckpt::average
