// Passes over arrays of numbers of type Real, which the includer defines (float or double), in vectors.

#pragma once
#include <cstring>

namespace {

typedef Real Vec __attribute__((vector_size(64)));  // of any width in the processor
constexpr long LANES = 64 / sizeof(Real);
constexpr long AHEAD = 4096 / sizeof(Real);  // a processor does not itself fetch beyond a page of 4 KiB

template <typename V> inline V load(const Real* p) { V v; std::memcpy(&v, p, sizeof v); return v; }
template <typename V> inline void store(Real* p, V v) { std::memcpy(p, &v, sizeof v); }

// Call at(V(), i) for n numbers from i on, V a vector or a single number, while those further on are fetched.
template <typename F, typename... P> inline void for_each(long n, F at, const P*... arrays) {
    long i = 0;
    for (; i + LANES <= n; i += LANES) {
        (__builtin_prefetch(arrays + i + AHEAD), ...);
        at(Vec(), i);
    }
    for (; i < n; ++i) at(Real(), i);
}
}  // namespace
