// Vectors as wide as the unit that this is compiled for, for the loops of kernel_loops.h. See kernel.h for what may be
// included here.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ckpt::average {
namespace {

#if defined(__AVX512F__)
constexpr size_t kBytes = 64;
#elif defined(__AVX2__)
constexpr size_t kBytes = 32;
#else
constexpr size_t kBytes = 16;
#endif
constexpr size_t kLanes = kBytes / 8;  // doubles in a vector
constexpr size_t kChunk = 2 * kLanes;  // floats in a vector; it takes two of doubles to hold them

using Doubles = double __attribute__((vector_size(kBytes)));
using Longs = int64_t __attribute__((vector_size(kBytes)));
using Floats = float __attribute__((vector_size(kBytes)));
using Ints = int32_t __attribute__((vector_size(kBytes)));
using UInts = uint32_t __attribute__((vector_size(kBytes)));
using Shorts = uint16_t __attribute__((vector_size(kBytes / 2)));

struct TwoDoubles {
  Doubles left, right;
};

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  return reinterpret_cast<To>(from);
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

inline TwoDoubles widen(Floats floats) {
#if defined(__AVX512F__)
  const auto all_floats = reinterpret_cast<__m512>(floats);
  return {_mm512_cvtps_pd(_mm512_castps512_ps256(all_floats)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(all_floats, 1))};
#elif defined(__AVX2__)
  const auto all_floats = reinterpret_cast<__m256>(floats);
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(all_floats)), _mm256_cvtps_pd(_mm256_extractf128_ps(all_floats, 1))};
#else
  return {__builtin_convertvector(__builtin_shufflevector(floats, floats, 0, 1), Doubles),
          __builtin_convertvector(__builtin_shufflevector(floats, floats, 2, 3), Doubles)};
#endif
}

inline Floats narrow(TwoDoubles doubles) {
#if defined(__AVX512F__)
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(doubles.left)), _mm512_cvtpd_ps(doubles.right), 1);
#elif defined(__AVX2__)
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(doubles.left)), _mm256_cvtpd_ps(doubles.right), 1);
#else
  using Half = float __attribute__((vector_size(kBytes / 2)));
  return __builtin_shufflevector(__builtin_convertvector(doubles.left, Half),
                                 __builtin_convertvector(doubles.right, Half), 0, 1, 2, 3);
#endif
}

/// A bit for each lane of a condition, the first lane's the lowest.
inline uint32_t lanes_of(Longs condition) {
#if defined(__AVX512F__)
  return _mm512_movepi64_mask(reinterpret_cast<__m512i>(condition));
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_pd(reinterpret_cast<__m256d>(condition)));
#else
  return (condition[0] != 0 ? 1 : 0) | (condition[1] != 0 ? 2 : 0);
#endif
}

inline uint32_t lanes_of(Ints condition) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(condition));
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(condition)));
#else
  uint32_t lanes = 0;
  for (size_t i = 0; i < kChunk; ++i) lanes |= condition[i] != 0 ? 1u << i : 0u;
  return lanes;
#endif
}

/// All bits of all lanes are 1.
inline bool is_all(Ints condition) {
#if defined(__AVX2__)
  return lanes_of(condition) == (1u << kChunk) - 1;
#else
  const auto halves = bits_as<Longs>(condition);
  return (halves[0] & halves[1]) == -1;
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
#elif defined(__FMA__) && defined(__AVX2__)
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
