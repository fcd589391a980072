// Outward rounding of interval bounds in float64.
//
// Called by compiled_rounding.py. Each operation is rounded once, as in PyTorch, and library.py has the compiler fuse no
// product with a sum. A bound that overflowed or is undefined (NaN) becomes infinite.

#include <limits>
typedef double Real;
#include "../compiled/elementwise.h"

namespace {

constexpr double INFINITE = std::numeric_limits<double>::infinity();
constexpr double EPS = std::numeric_limits<double>::epsilon(), TINY = std::numeric_limits<double>::min();

template <typename V> inline V absolute(V a) { return a < 0.0 ? -a : a; }
// NaN if either is.
template <typename V> inline V smaller(V a, V b) { return (a < b) | (a != a) ? a : b; }
template <typename V> inline V larger(V a, V b) { return (a > b) | (a != a) ? a : b; }

template <typename V> struct Bounds {
    V lower, upper;

    Bounds widened(V slack) const {
        const V low = lower - slack, high = upper + slack;
        return {low < INFINITE ? low : V() - INFINITE, high > -INFINITE ? high : V() + INFINITE};
    }
    Bounds outward(double ulps) const { return widened(larger(absolute(lower), absolute(upper)) * (ulps * EPS) + TINY); }
    Bounds operator+(Bounds b) const { return {lower + b.lower, upper + b.upper}; }
    Bounds operator*(Bounds b) const {
        const V p = lower * b.lower, q = lower * b.upper, r = upper * b.lower, s = upper * b.upper;
        return {smaller(smaller(smaller(p, q), r), s), larger(larger(larger(p, q), r), s)};
    }
    void write(double* low, double* high, long i) const {
        store(low + i, lower);
        store(high + i, upper);
    }
};
template <typename V> inline Bounds<V> bounds(const double* lower, const double* upper, long i) {
    return {load<V>(lower + i), load<V>(upper + i)};
}
}  // namespace

extern "C" {

// [lower + below, upper - above], widened by size * factor + constant. `below` and `above` may be null. n numbers for
// each sample; `strides` says where a sample of lower, upper, below, above and size begins.
void widen_sums(long samples, long n, const double* lower, const double* upper, const double* below,
                const double* above, const double* size, double* out_lower, double* out_upper, const long* strides,
                double factor, double constant) {
    for (long s = 0; s < samples; ++s) {
        const double *l = lower + s * strides[0], *u = upper + s * strides[1], *z = size + s * strides[4];
        double *low = out_lower + s * n, *high = out_upper + s * n;
        if (below) {
            const double *b = below + s * strides[2], *a = above + s * strides[3];
            for_each(n, [=](auto kind, long i) {
                typedef decltype(kind) V;
                const Bounds<V> sum = {load<V>(l + i) + load<V>(b + i), load<V>(u + i) - load<V>(a + i)};
                sum.widened(load<V>(z + i) * factor + constant).write(low, high, i);
            }, l, u, b, a, z);
        } else {
            for_each(n, [=](auto kind, long i) {
                typedef decltype(kind) V;
                bounds<V>(l, u, i).widened(load<V>(z + i) * factor + constant).write(low, high, i);
            }, l, u, z);
        }
    }
}

// Bounds of n numbers widened by so many units in the last place.
void outward(long n, const double* lower, const double* upper, double* out_lower, double* out_upper, double ulps) {
    for_each(n, [=](auto kind, long i) {
        bounds<decltype(kind)>(lower, upper, i).outward(ulps).write(out_lower, out_upper, i);
    }, lower, upper);
}

// Sums of n intervals, widened.
void add_outward(long n, const double* a_lower, const double* a_upper, const double* b_lower, const double* b_upper,
                 double* out_lower, double* out_upper, double ulps) {
    for_each(n, [=](auto kind, long i) {
        typedef decltype(kind) V;
        (bounds<V>(a_lower, a_upper, i) + bounds<V>(b_lower, b_upper, i)).outward(ulps).write(out_lower, out_upper, i);
    }, a_lower, a_upper, b_lower, b_upper);
}

// Batch norm of n numbers for each of the rows `first` to `last`; row r has the channel r % channels. Each of the three
// steps (x - shift) * scale, gamma and beta is widened; gamma and beta, two rows of bounds each, may be null.
void normalise(long first, long last, long channels, long n, const double* lower, const double* upper,
               double* out_lower, double* out_upper, const double* shift, const double* scale, const double* gamma,
               const double* beta) {
    for (long row = first; row < last; ++row) {
        const long c = row % channels;
        const double mean = shift[c], deviation = scale[c];
        const double g_low = gamma ? gamma[c] : 0.0, g_high = gamma ? gamma[channels + c] : 0.0;
        const double b_low = beta ? beta[c] : 0.0, b_high = beta ? beta[channels + c] : 0.0;
        const double *l = lower + row * n, *u = upper + row * n;
        double *low = out_lower + row * n, *high = out_upper + row * n;
        for_each(n, [=](auto kind, long i) {
            typedef decltype(kind) V;
            const Bounds<V> x = bounds<V>(l, u, i);
            Bounds<V> y = Bounds<V>{(x.lower - mean) * deviation, (x.upper - mean) * deviation}.outward(8);
            if (gamma) y = (y * Bounds<V>{V() + g_low, V() + g_high}).outward(2);
            if (beta) y = (y + Bounds<V>{V() + b_low, V() + b_high}).outward(2);
            y.write(low, high, i);
        }, l, u);
    }
}
}
