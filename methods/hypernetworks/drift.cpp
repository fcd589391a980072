// The look-ahead and the drift of a chunked hypernetwork on a CPU, in two passes over the rows of its output layer.
//
// Called by compiled_drift.py, which says what the arguments are; drift.py has the algebra. Conventions, and what keeps
// the bits the same on every machine, are those of output_layer.cpp: sums over rows never share a vector's lanes.

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

constexpr int COLUMNS = 8;  // that share a vector; rows of B are padded to a multiple
constexpr int INPUTS = 4;  // rows of a product that are summed at once
constexpr int TILE_FLOATS = 3072;  // of B that stay in the first cache

inline Eight spread(float x) { return Eight{x, x, x, x, x, x, x, x}; }
inline float* at(std::vector<float>& v, long i) { return v.data() + i; }

struct Rule { float complement1, beta2, complement2, eps, size; };

// Where Adam's step for this gradient would lead.
template <typename V, typename Filled>
inline void ahead_at(float* out, const float* w, const float* g, const float* mean, const float* square,
                     const Rule& rule, Filled filled) {
    const V grad = load_as<V>(g), before = load_as<V>(mean);
    const V m = fused(filled(rule.complement1), grad - before, before);
    const V s = filled(rule.beta2) * load_as<V>(square) + filled(rule.complement2) * grad * grad;
    store(out, load_as<V>(w) - filled(rule.size) * m / (root(s) + filled(rule.eps)));
}

void ahead_of(float* out, const float* w, const float* g, const float* mean, const float* square, long n,
              const Rule& rule) {
    long i = 0;
    for (; i + COLUMNS <= n; i += COLUMNS) ahead_at<Eight>(out + i, w + i, g + i, mean + i, square + i, rule, spread);
    for (; i < n; ++i) ahead_at<float>(out + i, w + i, g + i, mean + i, square + i, rule, [](float x) { return x; });
}

// Rows of B = [W V v], padded with zeros. Vectors run beyond a row's end, into what is written next; the last row,
// behind which the arrays may end, goes by single weights.
void fill(const float* weight, const float* frozen, const float* bias, const float* frozen_bias, long rows, int h,
          int width, float* out) {
    for (long r = 0; r < rows; ++r, out += width, weight += h, frozen += h) {
        const bool whole = r + 1 < rows && h >= COLUMNS;
        int i = 0;
        if (whole) for (; i < h; i += COLUMNS) store(out + i, load_as<Eight>(weight + i));
        for (; i < h; ++i) out[i] = weight[i];
        i = 0;
        if (whole) for (; i < h; i += COLUMNS)
            store(out + h + i, load_as<Eight>(weight + i) - load_as<Eight>(frozen + i));
        for (; i < h; ++i) out[h + i] = weight[i] - frozen[i];
        out[2 * h] = bias[r] - frozen_bias[r];
        for (int k = 2 * h + 1; k < width; ++k) out[k] = 0;
    }
}

// total[i][j] += sum over rows of b[r][i] b[r][j], for INPUTS columns i from `first` on and V vectors of columns j.
template <int V>
inline void gram_block(const float* b, long rows, int width, int first, int column, double* total) {
    Eight sum[INPUTS][V];
    for (int a = 0; a < INPUTS; ++a) for (int v = 0; v < V; ++v) sum[a][v] = spread(0);
    for (long r = 0; r < rows; ++r, b += width) {
        Eight right[V];
        for (int v = 0; v < V; ++v) right[v] = load_as<Eight>(b + column + COLUMNS * v);
#pragma GCC unroll 4
        for (int a = 0; a < INPUTS; ++a) {
            const Eight left = spread(b[first + a]);
            for (int v = 0; v < V; ++v) sum[a][v] = fused(left, right[v], sum[a][v]);
        }
    }
    for (int a = 0; a < INPUTS; ++a) for (int v = 0; v < V; ++v) for (int i = 0; i < COLUMNS; ++i)
        total[(long)(first + a) * width + column + COLUMNS * v + i] += sum[a][v][i];
}

// B'B, of which only vectors of columns that reach the diagonal or lie behind it are computed.
void gram(const float* b, long rows, int width, double* total) {
    for (int first = 0; first < width; first += INPUTS) {
        for (int column = first / COLUMNS * COLUMNS; column < width;) {
            const int left = (width - column) / COLUMNS;
            if (left >= 3) gram_block<3>(b, rows, width, first, column, total), column += 3 * COLUMNS;
            else if (left == 2) gram_block<2>(b, rows, width, first, column, total), column += 2 * COLUMNS;
            else gram_block<1>(b, rows, width, first, column, total), column += COLUMNS;
        }
    }
}

// out (R, V vectors) = R rows of B times columns of `product` (n, columns).
template <int R, int V>
inline void times_block(const float* b, int n, int width, const float* product, int columns, float* out) {
    Eight sum[R][V];
    for (int r = 0; r < R; ++r) for (int v = 0; v < V; ++v) sum[r][v] = spread(0);
    for (int i = 0; i < n; ++i) {
        Eight right[V];
        for (int v = 0; v < V; ++v) right[v] = load_as<Eight>(product + (long)i * columns + COLUMNS * v);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            const Eight left = spread(b[(long)r * width + i]);
            for (int v = 0; v < V; ++v) sum[r][v] = fused(left, right[v], sum[r][v]);
        }
    }
    for (int r = 0; r < R; ++r) for (int v = 0; v < V; ++v) store(out + (long)r * columns + COLUMNS * v, sum[r][v]);
}

template <int R>
inline void times(const float* b, int n, int width, const float* product, int columns, float* out) {
    for (int column = 0; column < columns;) {
        if (columns - column >= 2 * COLUMNS) {
            times_block<R, 2>(b, n, width, product + column, columns, out + column);
            column += 2 * COLUMNS;
        } else {
            times_block<R, 1>(b, n, width, product + column, columns, out + column);
            column += COLUMNS;
        }
    }
}

// Tiles of rows [first, last), none of which reaches across `edge`.
template <typename Work> void tiles(long first, long last, long edge, int width, Work work) {
    const long size = std::max(4L, (long)TILE_FLOATS / width / 4 * 4);
    for (long from = first; from < last;) {
        const long to = std::min({from + size, last, from < edge ? edge : last});
        work(from, to - from);
        from = to;
    }
}

}  // namespace

extern "C" {

// Parameters (n) after the step ahead go to `ahead`.
void step_ahead(long n, const float* parameters, const float* grad, const float* mean, const float* square,
                float complement1, float beta2, float complement2, float eps, float size, float* ahead) {
    ahead_of(ahead, parameters, grad, mean, square, n, Rule{complement1, beta2, complement2, eps, size});
}

// ahead (N, h) receives W after the look-ahead; grams (2, width, width) B'B of the rows before and from `edge` on.
void look_ahead(long first, long last, long edge, int h, const float* weight, const float* grad, const float* mean,
                const float* square, const float* bias, const float* frozen, const float* frozen_bias,
                float complement1, float beta2, float complement2, float eps, float size, float* ahead, double* grams) {
    const int width = padded(2 * h + 1, COLUMNS);
    const Rule rule{complement1, beta2, complement2, eps, size};
    std::vector<float> b((size_t)std::max(TILE_FLOATS, 4 * width) + COLUMNS, 0.0f);
    tiles(first, last, edge, width, [&](long from, long rows) {
        const long i = from * h;
        ahead_of(ahead + i, weight + i, grad + i, mean + i, square + i, rows * h, rule);
        fill(ahead + i, frozen + i, bias + from, frozen_bias + from, rows, h, width, b.data());
        gram(b.data(), rows, width, grams + (from < edge ? 0 : (long)width * width));
    });
}

// grad (N, h) and grad_bias (N) become scale times themselves plus B times a product (2h + 1, padded h + 1), of which
// `products` has one for the rows before `edge` and one for the others. weight, bias: those after the look-ahead.
void drift_gradient(long first, long last, long edge, int h, const float* weight, const float* bias,
                    const float* frozen, const float* frozen_bias, const float* products, float scale, float* grad, float* grad_bias) {
    const int n = 2 * h + 1, width = padded(n, COLUMNS), columns = padded(h + 1, COLUMNS);
    std::vector<float> b((size_t)std::max(TILE_FLOATS, 4 * width) + COLUMNS, 0.0f), out((size_t)4 * columns);
    tiles(first, last, edge, width, [&](long from, long rows) {
        fill(weight + from * h, frozen + from * h, bias + from, frozen_bias + from, rows, h, width, b.data());
        const float* product = products + (from < edge ? 0 : (long)n * columns);
        for (long r = 0; r < rows;) {
            const int now = r + 4 <= rows ? 4 : 1;
            if (now == 4) times<4>(at(b, r * width), n, width, product, columns, out.data());
            else times<1>(at(b, r * width), n, width, product, columns, out.data());
            for (int k = 0; k < now; ++k, ++r) {
                float* to = grad + (from + r) * h;
                const float* more = out.data() + (long)k * columns;
                for (int i = 0; i < h; ++i) to[i] = fused(scale, to[i], more[i]);
                grad_bias[from + r] = fused(scale, grad_bias[from + r], more[h]);
            }
        }
    });
}

}  // extern "C"
