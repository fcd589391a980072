// Vectors of float32, their fused multiply-adds and square roots, for GCC and Clang.
//
// library.py, of methods/compiled, has the compiler fuse nothing by itself (-ffp-contract=off): a product is rounded
// together with its sum where `fused` says so, and nowhere else.

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
#ifdef __AVX512F__
inline Vec splat(float x) { return Vec{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
#else
inline Vec splat(float x) { return Vec{x, x, x, x, x, x, x, x}; }
#endif
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

constexpr int ROWS = 16;  // of a block: they share a vector, column after column

inline void transpose(Eight (&v)[8]) {
    Eight pair[8], four[8];
    for (int i = 0; i < 8; i += 2) {
        pair[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        pair[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4) for (int k = 0; k < 2; ++k) {
        four[i + 2 * k] = __builtin_shufflevector(pair[i + k], pair[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        four[i + 2 * k + 1] = __builtin_shufflevector(pair[i + k], pair[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; ++i) {
        v[i] = __builtin_shufflevector(four[i], four[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        v[i + 4] = __builtin_shufflevector(four[i], four[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

// ROWS rows of h columns, one behind the other -> columns of a block.
void to_columns(const float* rows, int h, float* block) {
    int i = 0;
    for (; i + 8 <= h; i += 8) for (int half = 0; half < ROWS; half += 8) {
        Eight v[8];
        for (int r = 0; r < 8; ++r) v[r] = load_as<Eight>(rows + (half + r) * (long)h + i);
        transpose(v);
        for (int k = 0; k < 8; ++k) store(block + (i + k) * ROWS + half, v[k]);
    }
    for (; i < h; ++i) for (int r = 0; r < ROWS; ++r) block[i * ROWS + r] = rows[r * (long)h + i];
}
}  // namespace
