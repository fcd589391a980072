// Elementwise parts of InterContiNet's contraction on float32.
//
// Called by compiled_scales.py. Roundings are those of PyTorch's elementwise operations, one for each operation, and
// library.py has the compiler fuse no product with a sum. Numbers are independent of one another.

typedef float Real;
#include "../compiled/elementwise.h"

extern "C" {

// Bounds c -+ k r of n numbers.
void scaled_sides(long n, const float* k, const float* c, const float* r, float* lower, float* upper) {
    const auto at = [=](auto kind, long i) {
        typedef decltype(kind) V;
        const V radius = load<V>(k + i) * load<V>(r + i), middle = load<V>(c + i);
        store(lower + i, middle - radius);
        store(upper + i, middle + radius);
    };
    for_each(n, at, k, c, r, lower, upper);
}

// Gradient of the raw scales v, k = sigmoid(v), from those of the bounds: (upper - lower) r (1 - k) k. With `given_up`,
// the cotangent of -sum(log k), (k - 1) given_up is added.
void scale_gradient(long n, const float* lower, const float* upper, const float* k, const float* r, float* grad,
                    const float* given_up) {
    const auto of_bounds = [=](auto scale, long i) {
        typedef decltype(scale) V;
        return (load<V>(upper + i) - load<V>(lower + i)) * load<V>(r + i) * (1.0f - scale) * scale;
    };
    const float factor = given_up ? *given_up : 0.0f;
    const auto of_both = [=](auto kind, long i) {
        const auto scale = load<decltype(kind)>(k + i);
        store(grad + i, of_bounds(scale, i) + (scale - 1.0f) * factor);
    };
    const auto of_one = [=](auto kind, long i) { store(grad + i, of_bounds(load<decltype(kind)>(k + i), i)); };
    given_up ? for_each(n, of_both, lower, upper, k, r, grad) : for_each(n, of_one, lower, upper, k, r, grad);
}

// Add sign * through to a gradient of weights where their clamp at zero lets it pass: lowest < w < highest.
void add_through_clamp(long n, const float* weight, const float* through, float* grad, float lowest, float highest,
                       float sign) {
    const auto at = [=](auto kind, long i) {
        typedef decltype(kind) V;
        const V w = load<V>(weight + i), none = V();
        store(grad + i, load<V>(grad + i) + ((w > lowest) & (w < highest) ? load<V>(through + i) * sign : none));
    };
    for_each(n, at, weight, through, grad);
}
}
