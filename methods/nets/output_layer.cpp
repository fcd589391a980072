// The hypernetwork's output layer on a CPU: forward, backward and Adam in one pass each over the rows of W.
//
// Compiled and called by methods/nets/compiled.py, which says what the arguments are. A call handles rows
// [first, last); calls for disjoint rows may run at the same time. All arrays are float32 and row-major.
// W (N, h) is read once forward; backward W and both moments are read and written once. Everything else of a
// tile of rows stays in the first caches. GCC and Clang; vectors are eight floats, whatever the processor has.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

typedef float Vec __attribute__((vector_size(32)));
typedef int32_t Bits __attribute__((vector_size(32)));
constexpr int LANES = 8;
constexpr long TILE = 48;  // rows whose W, gradient and outputs fit the first two caches
constexpr int TILES_A_SUM = 16;  // sums over rows are kept in float32 for so many tiles, then in float64

inline Vec load(const float* p) { Vec v; std::memcpy(&v, p, sizeof v); return v; }
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline Vec splat(float x) { return Vec{x, x, x, x, x, x, x, x}; }
inline Vec magnitude(Vec v) { return (Vec)((Bits)v & 0x7fffffff); }
inline Vec with_sign_of(Vec x, Vec w) {  // x * sign(w), 0 where w is 0
    Bits flipped = (Bits)x ^ ((Bits)w & (int32_t)0x80000000);
    return (Vec)(flipped & (w != splat(0)));
}
inline int padded(int n) { return (n + LANES - 1) / LANES * LANES; }

inline float total(Vec v) {
    float sum = 0;
    for (int i = 0; i < LANES; ++i) sum += v[i];
    return sum;
}

inline void store_totals(float* p, const Vec (&v)[4]) {  // the four sums over lanes
    Vec a = __builtin_shufflevector(v[0], v[1], 0, 8, 2, 10, 4, 12, 6, 14) +
            __builtin_shufflevector(v[0], v[1], 1, 9, 3, 11, 5, 13, 7, 15);
    Vec b = __builtin_shufflevector(v[2], v[3], 0, 8, 2, 10, 4, 12, 6, 14) +
            __builtin_shufflevector(v[2], v[3], 1, 9, 3, 11, 5, 13, 7, 15);
    Vec c = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
            __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    for (int i = 0; i < 4; ++i) p[i] = c[i] + c[i + 4];
}
inline void store_totals(float* p, const Vec (&v)[1]) { *p = total(v[0]); }

// out[j * TILE + r] = (row r of W, or of |W|) . (row j of inputs), for R rows and J inputs.
template <int R, int J, bool ABS>
inline void product(const float* w, int h, const float* inputs, int width, float* out) {
    Vec sum[J][R];
    for (int j = 0; j < J; ++j) for (int r = 0; r < R; ++r) sum[j][r] = splat(0);
    for (int i = 0; i < width; i += LANES) {
        Vec x[R];
        for (int r = 0; r < R; ++r) x[r] = ABS ? magnitude(load(w + (long)r * h + i)) : load(w + (long)r * h + i);
        for (int j = 0; j < J; ++j) {
            Vec input = load(inputs + (long)j * width + i);
            for (int r = 0; r < R; ++r) sum[j][r] += x[r] * input;
        }
    }
    for (int j = 0; j < J; ++j) store_totals(out + j * TILE, sum[j]);
}

template <int R, bool ABS>
inline void all_products(const float* w, int h, const float* inputs, int k, int width, float* out) {
    int j = 0;
    for (; j + 2 <= k; j += 2) product<R, 2, ABS>(w, h, inputs + (long)j * width, width, out + j * TILE);
    if (j < k) product<R, 1, ABS>(w, h, inputs + (long)j * width, width, out + j * TILE);
}

template <bool ABS>
void products(const float* w, long rows, int h, const float* inputs, int k, int width, float* out) {
    long r = 0;
    for (; r + 4 <= rows; r += 4) all_products<4, ABS>(w + r * h, h, inputs, k, width, out + r);
    for (; r < rows; ++r) all_products<1, ABS>(w + r * h, h, inputs, k, width, out + r);
}

// (k, h) -> (k, width): rows padded with zeros.
std::vector<float> packed_rows(const float* x, int k, int h, int width) {
    std::vector<float> out((size_t)k * width, 0.0f);
    for (int j = 0; j < k; ++j) std::memcpy(&out[(size_t)j * width], x + (long)j * h, sizeof(float) * h);
    return out;
}

// Rows of W from `at` on. A vector may reach beyond its row: behind W's last row it finds zeros in `edge`.
const float* readable(const float* weight, long at, long rows, long n, int h, std::vector<float>& edge) {
    if (at + rows < n) return weight + at * h;
    edge.assign((size_t)rows * h + LANES, 0.0f);
    std::memcpy(edge.data(), weight + at * h, sizeof(float) * rows * h);
    return edge.data();
}

// A tile's outputs (k, TILE) go to out (k, N), less `held` for the last ones; returns their sum of squares.
double deliver(const float* tile, long rows, int k, int n_held, long at, long n, const float* bias,
               const float* held, float* out) {
    double sum = 0;
    for (int j = 0; j < k; ++j, tile += TILE) {
        float* to = out + (long)j * n + at;
        if (bias) for (long r = 0; r < rows; ++r) to[r] = tile[r] + bias[at + r];
        else std::memcpy(to, tile, sizeof(float) * rows);
        if (j < k - n_held) continue;
        const float* minus = held + (long)(j - (k - n_held)) * n + at;
        float squares[LANES] = {};
        for (long r = 0; r < rows; ++r) to[r] -= minus[r];
        for (long r = 0; r < rows; ++r) squares[r % LANES] += to[r] * to[r];
        for (float square : squares) sum += square;
    }
    return sum;
}

struct Source {  // cotangents of outputs: `given` (k - n_held, N), and residuals (n_held, N) with a scale
    const float* given; const float* residual; float scale; int k, n_held;
    void tile(long at, long rows, long n, float* out, float* sums) const {  // (rows, k), and sums over k if wanted
        if (sums) std::memset(sums, 0, sizeof(float) * rows);
        for (int j = 0; j < k; ++j) {
            bool held = j >= k - n_held;
            const float* from = held ? residual + (long)(j - (k - n_held)) * n + at : given + (long)j * n + at;
            float factor = held ? scale : 1.0f;
            for (long r = 0; r < rows; ++r) out[r * k + j] = factor * from[r];
            if (sums) for (long r = 0; r < rows; ++r) sums[r] += factor * from[r];
        }
    }
};

// For R rows and eight columns of W: what the k cotangents give W, and what the rows give the k inputs.
template <int R>
inline void outer(const Vec (&w)[R], const float* g, int k, const float* inputs, float* grads, int width, Vec (&sum)[R]) {
    for (int r = 0; r < R; ++r) sum[r] = splat(0);
    for (int j = 0; j < k; ++j) {
        Vec input = load(inputs + (long)j * width), grad = load(grads + (long)j * width);
        for (int r = 0; r < R; ++r) {
            Vec s = splat(g[(long)r * k + j]);
            grad += s * w[r];
            sum[r] += s * input;
        }
        store(grads + (long)j * width, grad);
    }
}

// The gradient of R rows of W goes to `grad` (R, h). Columns run backwards: what a row's last vector writes too
// much belongs to the next row's first columns, which are written later. Both arrays have room for that.
template <int R>
inline void gradient(const float* w, int h, const float* g, int k, const float* centre, float* grad_centre,
                     const float* gr, int m, const float* radius, float* grad_radius, int width, float* grad) {
    for (int i = width - LANES; i >= 0; i -= LANES) {
        Vec x[R], sum[R], spread[R];
        for (int r = 0; r < R; ++r) x[r] = load(w + (long)r * h + i);
        outer<R>(x, g, k, centre + i, grad_centre + i, width, sum);
        if (m) {
            Vec size[R];
            for (int r = 0; r < R; ++r) size[r] = magnitude(x[r]);
            outer<R>(size, gr, m, radius + i, grad_radius + i, width, spread);
            for (int r = 0; r < R; ++r) sum[r] += with_sign_of(spread[r], x[r]);
        }
        for (int r = 0; r < R; ++r) store(grad + (long)r * h + i, sum[r]);
    }
}

// A sum over many rows: float32 for a while, float64 in the long run.
struct Sum {
    std::vector<float> now; std::vector<double> total;
    explicit Sum(size_t n) : now(n, 0.0f), total(n, 0.0) {}
    void settle() {
        for (size_t i = 0; i < now.size(); ++i) { total[i] += now[i]; now[i] = 0; }
    }
    void give(int rows, int width, int h, float* out) const {
        for (int j = 0; j < rows; ++j) for (int i = 0; i < h; ++i) out[(long)j * h + i] = (float)total[(size_t)j * width + i];
    }
};

struct Rule { float beta1, beta2, eps, step_size, root_correction; };

inline Vec root(Vec v) {
    Vec out;
    for (int i = 0; i < LANES; ++i) out[i] = __builtin_sqrtf(v[i]);
    return out;
}

void adam(float* w, const float* g, float* mean, float* square, long n, const Rule& rule) {
    long i = 0;
    const Vec b1 = splat(rule.beta1), b2 = splat(rule.beta2), c1 = splat(1 - rule.beta1), c2 = splat(1 - rule.beta2);
    const Vec eps = splat(rule.eps), size = splat(rule.step_size), correction = splat(rule.root_correction);
    for (; i + LANES <= n; i += LANES) {
        Vec grad = load(g + i), m = b1 * load(mean + i) + c1 * grad, s = b2 * load(square + i) + c2 * grad * grad;
        store(mean + i, m);
        store(square + i, s);
        store(w + i, load(w + i) - size * m / (root(s) * correction + eps));
    }
    for (; i < n; ++i) {
        float m = rule.beta1 * mean[i] + (1 - rule.beta1) * g[i];
        float s = rule.beta2 * square[i] + (1 - rule.beta2) * g[i] * g[i];
        mean[i] = m;
        square[i] = s;
        w[i] -= rule.step_size * m / (std::sqrt(s) * rule.root_correction + rule.eps);
    }
}

}  // namespace

extern "C" {

void output_forward(long first, long last, long n, int h, int k, int n_held, const float* centre, int m, int m_held,
                    const float* radius, const float* weight, const float* bias, const float* held_theta,
                    const float* held_rho, float* theta, float* rho, double* drift) {
    const int width = padded(h);
    const std::vector<float> c = packed_rows(centre, k, h, width), q = packed_rows(radius, m, h, width);
    std::vector<float> out((size_t)TILE * (k > m ? k : m)), edge;
    double centres = 0, radii = 0;
    for (long at = first; at < last; at += TILE) {
        const long rows = last - at < TILE ? last - at : TILE;
        const float* w = readable(weight, at, rows, n, h, edge);
        products<false>(w, rows, h, c.data(), k, width, out.data());
        centres += deliver(out.data(), rows, k, n_held, at, n, bias, held_theta, theta);
        if (!m) continue;
        products<true>(w, rows, h, q.data(), m, width, out.data());
        radii += deliver(out.data(), rows, m, m_held, at, n, nullptr, held_rho, rho);
    }
    drift[0] = centres;
    drift[1] = radii;
}

// With moments W steps by Adam and grad_weight is unused; without, grad_weight (N, h) receives the gradient.
// theta, rho: the residuals that output_forward left. grad_centre (k, h), grad_radius (m, h) are overwritten.
void output_backward(long first, long last, long n, int h, int k, int n_held, const float* centre, int m, int m_held,
                     const float* radius, float* weight, const float* g_theta, const float* theta, float theta_scale,
                     const float* g_rho, const float* rho, float rho_scale, float* grad_centre, float* grad_radius,
                     float* grad_weight, float* grad_bias, float* mean, float* square, float beta1, float beta2,
                     float eps, float step_size, float root_correction) {
    const int width = padded(h);
    const std::vector<float> c = packed_rows(centre, k, h, width), q = packed_rows(radius, m, h, width);
    Sum gc((size_t)k * width), gq((size_t)m * width);
    std::vector<float> g((size_t)TILE * k), gr((size_t)TILE * m), grad((size_t)TILE * h + LANES), edge;
    const Source of_theta{g_theta, theta, theta_scale, k, n_held}, of_rho{g_rho, rho, rho_scale, m, m_held};
    const Rule rule{beta1, beta2, eps, step_size, root_correction};
    int tiles = 0;
    for (long at = first; at < last; at += TILE) {
        const long rows = last - at < TILE ? last - at : TILE;
        const float* w = readable(weight, at, rows, n, h, edge);
        of_theta.tile(at, rows, n, g.data(), grad_bias + at);
        of_rho.tile(at, rows, n, gr.data(), nullptr);
        long r = 0;
        for (; r + 4 <= rows; r += 4)
            gradient<4>(w + r * h, h, &g[r * k], k, c.data(), gc.now.data(), gr.data() + r * m, m, q.data(), gq.now.data(),
                        width, &grad[r * h]);
        for (; r < rows; ++r)
            gradient<1>(w + r * h, h, &g[r * k], k, c.data(), gc.now.data(), gr.data() + r * m, m, q.data(), gq.now.data(),
                        width, &grad[r * h]);
        if (mean) adam(weight + at * h, grad.data(), mean + at * h, square + at * h, rows * h, rule);
        else std::memcpy(grad_weight + at * h, grad.data(), sizeof(float) * rows * h);
        if (++tiles % TILES_A_SUM == 0 || at + rows == last) { gc.settle(); gq.settle(); }
    }
    gc.give(k, width, h, grad_centre);
    gq.give(m, width, h, grad_radius);
}

}  // extern "C"
