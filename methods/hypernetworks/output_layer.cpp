// The hypernetwork's output layer on a CPU: forward, backward and Adam in one pass each over the rows of W.
//
// Compiled and called by compiled.py beside it, which says what the arguments are. A call handles rows
// [first, last); calls for disjoint rows may run at the same time. All arrays are float32 and row-major.
// W (N, h) is read once forward; backward W and both moments are read and written once. Everything else of a
// tile of rows stays in the first caches, into which a tile's memory is fetched while the one before is worked on.
// GCC and Clang. Which bits come out depends neither on the width of the processor's vectors, for sums along a row are
// kept in eight parts and what is longer than eight works on columns that do not touch each other, nor on compiler and
// tuning: a product is rounded together with its sum where `fused` says so, and nowhere else (-ffp-contract=off).

#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

constexpr int PARTS = 8;  // of a sum along a row
constexpr int ABREAST = LANES / PARTS;  // inputs whose sums share a vector
constexpr int MANY = LANES == 16 ? 12 : 4;  // inputs whose sums fit the registers
constexpr int MANY_OUTPUTS = 8;  // from here on it pays that a block's columns are gathered first
constexpr int LINE = 16;  // floats that come from memory together
constexpr long TILE = 48;  // rows whose W, gradient and outputs fit the first two caches
constexpr int TILES_A_SUM = 16;  // sums over rows are kept in float32 for so many tiles, then in float64

// Begin to fetch R rows' columns from i on; p may be null.
template <int R> [[gnu::always_inline]] inline void fetch(const float* p, int h, int i) {
    if (p && i % LINE == 0) for (int r = 0; r < R; ++r) __builtin_prefetch(p + (long)r * h + i, 0, 3);
}

#ifdef __AVX512F__
inline Vec copies(Eight v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7); }
inline Eight part(Vec v, int i) {
    return i ? __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)
             : __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
}
inline Vec pairs(Vec a, Vec b) {  // of every four lanes: two sums of neighbours in a, two in b
    return __builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +
           __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
}
#else
inline Vec copies(Eight v) { return v; }
inline Eight part(Vec v, int) { return v; }
inline Vec pairs(Vec a, Vec b) {
    return __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14) +
           __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
}
#endif
inline Vec magnitude(Vec v) { return (Vec)((Bits)v & 0x7fffffff); }
inline Vec with_sign_of(Vec x, Vec w) {  // x * sign(w), 0 where w is 0
    Bits flipped = (Bits)x ^ ((Bits)w & (int32_t)0x80000000);
    return (Vec)(flipped & (w != splat(0)));
}

// The sums of the parts go to out[a * TILE + r] for the input a abreast and the row r.
inline void store_totals(float* out, const Vec (&v)[4]) {
    Vec all = pairs(pairs(v[0], v[1]), pairs(v[2], v[3]));
    for (int a = 0; a < ABREAST; ++a) {
        Eight halves = part(all, a);
        store(out + a * TILE, __builtin_shufflevector(halves, halves, 0, 1, 2, 3) +
                                  __builtin_shufflevector(halves, halves, 4, 5, 6, 7));
    }
}
inline void store_totals(float* out, const Vec (&v)[1]) {
    for (int a = 0; a < ABREAST; ++a) {
        float sum = 0;
        for (int i = 0; i < PARTS; ++i) sum += v[0][a * PARTS + i];
        out[a * TILE] = sum;
    }
}

// out[j * TILE + r] = (row r of W, or of |W|) . (row j of inputs), for R rows and G groups of inputs abreast.
template <int R, int G, bool ABS>
inline void product(const float* w, int h, const float* inputs, int width, float* out, const float* next) {
    Vec sum[G][R];
    for (int g = 0; g < G; ++g) for (int r = 0; r < R; ++r) sum[g][r] = splat(0);
    for (int i = 0; i < width; i += PARTS) {
        fetch<R>(next, h, i);
        Vec input[G];
        for (int g = 0; g < G; ++g) input[g] = load(inputs + ((long)g * width + i) * ABREAST);
#pragma GCC unroll 4  // or GCC 12 keeps the sums in memory
        for (int r = 0; r < R; ++r) {
            Vec x = copies(load_as<Eight>(w + (long)r * h + i));
            if (ABS) x = magnitude(x);
            for (int g = 0; g < G; ++g) sum[g][r] = fused(x, input[g], sum[g][r]);
        }
    }
    for (int g = 0; g < G; ++g) store_totals(out + g * ABREAST * TILE, sum[g]);
}

template <int R, bool ABS>
inline void all_products(const float* w, int h, const float* inputs, int k, int width, float* out, const float* next) {
    const long group = (long)width * ABREAST;
    while (k > 0) {
        const int abreast = (k + ABREAST - 1) / ABREAST, now = abreast < 3 ? abreast : 3;
        if (now == 3) product<R, 3, ABS>(w, h, inputs, width, out, next);
        else if (now == 2) product<R, 2, ABS>(w, h, inputs, width, out, next);
        else product<R, 1, ABS>(w, h, inputs, width, out, next);
        k -= now * ABREAST, inputs += now * group, out += now * ABREAST * TILE, next = nullptr;
    }
}

// next: a tile's rows to fetch meanwhile, or null.
template <bool ABS>
void products(const float* w, long rows, int h, const float* inputs, int k, int width, float* out, const float* next) {
    long r = 0;
    for (; r + 4 <= rows; r += 4)
        all_products<4, ABS>(w + r * h, h, inputs, k, width, out + r, next ? next + r * h : nullptr);
    for (; r < rows; ++r) all_products<1, ABS>(w + r * h, h, inputs, k, width, out + r, nullptr);
}

// (k, h) -> groups of inputs abreast, part by part; zeros where a row or a group is not full.
std::vector<float> packed_abreast(const float* x, int k, int h, int width) {
    std::vector<float> out((size_t)padded(k, ABREAST) * width, 0.0f);
    for (int j = 0; j < k; ++j)
        for (int i = 0; i < h; ++i) {
            const size_t vector = (size_t)(j / ABREAST) * (width / PARTS) + i / PARTS;
            out[vector * LANES + j % ABREAST * PARTS + i % PARTS] = x[(long)j * h + i];
        }
    return out;
}

// (k, h) -> (k, width): rows padded with zeros.
std::vector<float> packed_rows(const float* x, int k, int h, int width) {
    std::vector<float> out((size_t)k * width, 0.0f);
    for (int j = 0; j < k; ++j) std::memcpy(&out[(size_t)j * width], x + (long)j * h, sizeof(float) * h);
    return out;
}

// Rows of W from `at` on. A vector may reach beyond the last of them: where W ends there it finds zeros in `edge`.
const float* readable(const float* weight, long at, long rows, long n, int h, std::vector<float>& edge) {
    if ((n - at - rows) * h >= LANES) return weight + at * h;
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
        Eight squares = {};
        long r = 0;
        for (; r + PARTS <= rows; r += PARTS) {
            Eight left = load_as<Eight>(to + r) - load_as<Eight>(minus + r);
            store(to + r, left);
            squares = fused(left, left, squares);
        }
        for (int i = 0; r < rows; ++r, ++i) {
            to[r] -= minus[r];
            squares[i] = fused(to[r], to[r], squares[i]);
        }
        for (int i = 0; i < PARTS; ++i) sum += squares[i];
    }
    return sum;
}

// theta = W c + b for R more than a multiple of 8 columns (padded) of a block, and all inputs (k, h padded to 8). In the
// order of `product`: a sum along a row has eight parts.
template <int R>
void outputs_of_block(const float* block, int h, const float* inputs, int width, int k, const float* bias, long n,
                      float* theta) {
    for (int lane = 0; lane < ROWS; lane += LANES) for (int j = 0; j < k; ++j) {
        const float *x = block + lane, *c = inputs + (long)j * width;
        Vec sum[PARTS];
        for (int p = 0; p < PARTS; ++p) sum[p] = splat(0);
        for (int i = 0; i < h / PARTS; ++i, x += PARTS * ROWS, c += PARTS)
#pragma GCC unroll 8
            for (int p = 0; p < PARTS; ++p) sum[p] = fused(load(x + p * ROWS), splat(c[p]), sum[p]);
#pragma GCC unroll 8
        for (int p = 0; p < R; ++p) sum[p] = fused(load(x + p * ROWS), splat(c[p]), sum[p]);
        const Vec total = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
        store(theta + j * n + lane, total + load(bias + lane));
    }
}

struct Source {  // cotangents of outputs: `given` (k - n_held, N), and residuals (n_held, N) with a scale
    const float* given; const float* residual; float scale; int k, n_held;
    void sum(long at, long rows, long n, float* sums) const {  // over k, where nothing is held
        std::memset(sums, 0, sizeof(float) * rows);
        for (int j = 0; j < k; ++j) for (long r = 0; r < rows; ++r) sums[r] += given[(long)j * n + at + r];
    }
    void tile(long at, long rows, long n, float* out, float* sums) const {  // (rows, k), and sums over k if wanted
        if (sums) std::memset(sums, 0, sizeof(float) * rows);
        for (int j = 0; j < k; ++j) {
            bool held = j >= k - n_held;
            const float* from = held ? residual + (long)(j - (k - n_held)) * n + at : given + (long)j * n + at;
            float factor = held ? scale : 1.0f;
            for (long r = 0; r < rows; ++r) out[r * k + j] = factor * from[r];
            if (sums) for (long r = 0; r < rows; ++r) sums[r] = fused(factor, from[r], sums[r]);
        }
    }
};

// For R rows and a vector of columns of W: what the k cotangents give W, and what the rows give the k inputs.
template <int R>
inline void outer(const Vec (&w)[R], const float* g, int k, const float* inputs, float* grads, int width, Vec (&sum)[R]) {
    for (int r = 0; r < R; ++r) sum[r] = splat(0);
    for (int j = 0; j < k; ++j) {
        Vec input = load(inputs + (long)j * width), grad = load(grads + (long)j * width);
        for (int r = 0; r < R; ++r) {
            Vec s = splat(g[(long)r * k + j]);
            grad = fused(s, w[r], grad);
            sum[r] = fused(s, input, sum[r]);
        }
        store(grads + (long)j * width, grad);
    }
}

// The gradient of R rows of W goes to `grad` (R, h). Columns run backwards: what a row's last vector writes too
// much belongs to the next row's first columns, which are written later. Both arrays have room for that.
// soon: three arrays, of which these rows, or those of the next tile, are fetched meanwhile; any may be null.
template <int R>
inline void gradient(const float* w, int h, const float* g, int k, const float* centre, float* grad_centre,
                     const float* gr, int m, const float* radius, float* grad_radius, int width, float* grad,
                     const float* const (&soon)[3]) {
    for (int i = width - LANES; i >= 0; i -= LANES) {
        Vec x[R], sum[R], spread[R];
        for (const float* p : soon) fetch<R>(p, h, i);
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

// The same for all rows of a tile, without radii: J inputs at once, whose sums stay in registers. What the inputs before
// gave W lies in `sums` (rows, width), and so does the result if others follow; the last of it goes to `grad`.
template <int J>
inline void gradient_of_some(const float* w, long rows, int h, const float* g, long n, const float* centre,
                             float* grad_centre, int width, float* sums, bool first, float* grad) {
    for (int i = width - LANES; i >= 0; i -= LANES) {
        Vec input[J], total[J];
        for (int j = 0; j < J; ++j) input[j] = load(centre + j * width + i), total[j] = load(grad_centre + j * width + i);
        for (long r = 0; r < rows; ++r) {
            const Vec x = load(w + r * h + i);
            Vec sum = first ? splat(0) : load(sums + r * width + i);
#pragma GCC unroll 12
            for (int j = 0; j < J; ++j) {
                const Vec s = splat(g[j * n + r]);
                total[j] = fused(s, x, total[j]);
                sum = fused(s, input[j], sum);
            }
            store(grad ? grad + r * h + i : sums + r * width + i, sum);
        }
        for (int j = 0; j < J; ++j) store(grad_centre + j * width + i, total[j]);
    }
}

void gradient_of_all(const float* w, long rows, int h, const float* g, long n, int k, const float* centre,
                     float* grad_centre, int width, float* sums, float* grad) {
    for (int j = 0; j < k;) {
        const int left = k - j, now = left >= MANY ? MANY : left >= 4 ? 4 : 1;
        const auto some = [&](auto count) {
            gradient_of_some<count.value>(w, rows, h, g + j * n, n, centre + j * width, grad_centre + j * width, width,
                                          sums, j == 0, now == left ? grad : nullptr);
        };
        if (now == MANY) some(std::integral_constant<int, MANY>{});
        else if (now == 4) some(std::integral_constant<int, 4>{});
        else some(std::integral_constant<int, 1>{});
        j += now;
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

// A Vec of weights, or one.
template <typename V, typename Filled>
inline void adam_at(float* w, const float* g, float* mean, float* square, const Rule& rule, Filled filled) {
    const V grad = load_as<V>(g), c2 = filled(1 - rule.beta2);
    const V m = fused(filled(rule.beta1), load_as<V>(mean), filled(1 - rule.beta1) * grad);
    const V s = fused(filled(rule.beta2), load_as<V>(square), c2 * grad * grad);
    store(mean, m);
    store(square, s);
    const V below = fused(root(s), filled(rule.root_correction), filled(rule.eps));
    store(w, load_as<V>(w) - filled(rule.step_size) * m / below);
}

void adam(float* w, const float* g, float* mean, float* square, long n, Rule rule) {
    long i = 0;
    for (; i + LANES <= n; i += LANES) adam_at<Vec>(w + i, g + i, mean + i, square + i, rule, splat);
    for (; i < n; ++i) adam_at<float>(w + i, g + i, mean + i, square + i, rule, [](float x) { return x; });
}

}  // namespace

extern "C" {

void output_forward(long first, long last, long n, int h, int k, int n_held, const float* centre, int m, int m_held,
                    const float* radius, const float* weight, const float* bias, const float* held_theta,
                    const float* held_rho, float* theta, float* rho, double* drift) {
    const int width = padded(h, PARTS);
    const std::vector<float> c = packed_abreast(centre, k, h, width), q = packed_abreast(radius, m, h, width);
    std::vector<float> out((size_t)TILE * padded(k > m ? k : m, ABREAST)), edge;
    const bool many = k >= MANY_OUTPUTS && !m && !n_held;  // the chunks of a chunked hypernetwork
    const std::vector<float> inputs = packed_rows(centre, many ? k : 0, h, width);
    std::vector<float> block(many ? (size_t)width * ROWS : 0, 0.0f);
    double centres = 0, radii = 0;
    for (long at = first; at < last; at += TILE) {
        const long rows = last - at < TILE ? last - at : TILE;
        const float* w = readable(weight, at, rows, n, h, edge);
        if (many && rows == TILE) {
            for (long r = 0; r < rows; r += ROWS) {
                to_columns(w + r * h, h, block.data());
                const auto some = [&](auto rest) {
                    outputs_of_block<rest.value>(block.data(), h, inputs.data(), width, k, bias + at + r, n, theta + at + r);
                };
                if (h % PARTS == 0) some(std::integral_constant<int, 0>{});
                else if (h % PARTS <= 2) some(std::integral_constant<int, 2>{});
                else some(std::integral_constant<int, PARTS>{});
            }
            continue;
        }
        const float* next = at + 2 * TILE <= last ? w + TILE * h : nullptr;
        products<false>(w, rows, h, c.data(), k, width, out.data(), next);
        centres += deliver(out.data(), rows, k, n_held, at, n, bias, held_theta, theta);
        if (!m) continue;
        products<true>(w, rows, h, q.data(), m, width, out.data(), nullptr);
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
    const int width = padded(h, LANES);
    const std::vector<float> c = packed_rows(centre, k, h, width), q = packed_rows(radius, m, h, width);
    Sum gc((size_t)k * width), gq((size_t)m * width);
    std::vector<float> g((size_t)TILE * k), gr((size_t)TILE * m), grad((size_t)TILE * h + LANES), edge;
    const Source of_theta{g_theta, theta, theta_scale, k, n_held}, of_rho{g_rho, rho, rho_scale, m, m_held};
    const Rule rule{beta1, beta2, eps, step_size, root_correction};
    const bool plain = !m && !n_held && !mean;  // the step of a chunked hypernetwork, which has many inputs
    std::vector<float> sums(plain ? (size_t)TILE * width : 0);
    int tiles = 0;
    for (long at = first; at < last; at += TILE) {
        const long rows = last - at < TILE ? last - at : TILE;
        const float* w = readable(weight, at, rows, n, h, edge);
        if (plain) {
            of_theta.sum(at, rows, n, grad_bias + at);
            gradient_of_all(w, rows, h, g_theta + at, n, k, c.data(), gc.now.data(), width, sums.data(), grad.data());
            std::memcpy(grad_weight + at * h, grad.data(), sizeof(float) * rows * h);
            if (++tiles % TILES_A_SUM == 0 || at + rows == last) gc.settle();
            continue;
        }
        of_theta.tile(at, rows, n, g.data(), grad_bias + at);
        of_rho.tile(at, rows, n, gr.data(), nullptr);
        const bool more = at + 2 * TILE <= last;
        const auto some = [&](auto count, long r, bool whole) {
            const long row = (at + r) * h;
            const float* const soon[] = {whole && mean ? mean + row : nullptr, whole && mean ? square + row : nullptr,
                                         whole && more ? weight + row + TILE * h : nullptr};
            gradient<count.value>(w + r * h, h, &g[r * k], k, c.data(), gc.now.data(), gr.data() + r * m, m, q.data(),
                                  gq.now.data(), width, &grad[r * h], soon);
        };
        long r = 0;
        for (; r + 4 <= rows; r += 4) some(std::integral_constant<int, 4>{}, r, true);
        for (; r < rows; ++r) some(std::integral_constant<int, 1>{}, r, false);
        if (mean) adam(weight + at * h, grad.data(), mean + at * h, square + at * h, rows * h, rule);
        else std::memcpy(grad_weight + at * h, grad.data(), sizeof(float) * rows * h);
        if (++tiles % TILES_A_SUM == 0 || at + rows == last) { gc.settle(); gq.settle(); }
    }
    gc.give(k, width, h, grad_centre);
    gq.give(m, width, h, grad_radius);
}

}  // extern "C"
