// Vectors of float32, their fused multiply-adds and square roots, for GCC and Clang.
//
// compiled.py calls the compiler with -ffp-contract=off: a product is rounded together with its sum where `fused` says
// so, and nowhere else.

#pragma once
#include <cstdint>
#include <cstring>
#if !defined(__FMA__) && !defined(__FP_FAST_FMAF)
#error "the processor has no fused multiply-add; emulated, it would be slower than PyTorch"
#endif
#ifdef __FMA__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

typedef float Four __attribute__((vector_size(16)));
typedef float Eight __attribute__((vector_size(32)));
typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t Bits __attribute__((vector_size(4 * LANES)));

template <typename V> inline V load_as(const float* p) { V v; std::memcpy(&v, p, sizeof v); return v; }
inline Vec load(const float* p) { return load_as<Vec>(p); }
template <typename V> inline void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
inline int padded(int n, int to) { return (n + to - 1) / to * to; }

// a * b + c, rounded once, and the square root. In vectors by name: GCC 12 makes a vector's instruction of a loop over
// its lanes in some places only, and not for every processor's tuning.
inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float root(float v) { return __builtin_sqrtf(v); }
#ifdef __FMA__
inline Eight fused(Eight a, Eight b, Eight c) { return (Eight)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
inline Eight root(Eight v) { return (Eight)_mm256_sqrt_ps((__m256)v); }
#ifdef __AVX512F__
inline Vec fused(Vec a, Vec b, Vec c) { return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
inline Vec root(Vec v) { return (Vec)_mm512_sqrt_ps((__m512)v); }
#endif
#else
inline Eight fused(Eight a, Eight b, Eight c) {
    for (int i = 0; i < 8; ++i) c[i] = fused(a[i], b[i], c[i]);
    return c;
}
inline Eight root(Eight v) {
    for (int i = 0; i < 8; ++i) v[i] = root(v[i]);
    return v;
}
#endif
}  // namespace
