// The look-ahead and the drift of a chunked hypernetwork on a CPU, in two passes over the rows of its output layer.
//
// Called by compiled_drift.py, which says what the arguments are; drift.py has the algebra. Between the passes W lies in
// blocks (N / 16, h, 16): 16 rows share a vector, column after column, and zeros fill the last block. Conventions, and
// what keeps the bits the same on every machine, are those of output_layer.cpp: a sum over rows has 16 parts, whatever
// the width of a vector.

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

constexpr int SIDE = 4;  // of a square of B'B that is summed at once
constexpr int ABREAST = 12;  // columns of a gradient that are summed at once
constexpr int TILE_FLOATS = 36864;  // of B that stay in the second cache

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
    for (; i + LANES <= n; i += LANES) ahead_at<Vec>(out + i, w + i, g + i, mean + i, square + i, rule, splat);
    for (; i < n; ++i) ahead_at<float>(out + i, w + i, g + i, mean + i, square + i, rule, [](float x) { return x; });
}

// Columns of a block are added to so many rows of h columns.
void add_to_rows(const float* block, int h, int count, float* rows) {
    int i = 0;
    if (count == ROWS) for (; i + 8 <= h; i += 8) for (int half = 0; half < ROWS; half += 8) {
        Eight v[8];
        for (int k = 0; k < 8; ++k) v[k] = load_as<Eight>(block + (i + k) * ROWS + half);
        transpose(v);
        for (int r = 0; r < 8; ++r) {
            float* to = rows + (half + r) * (long)h + i;
            store(to, load_as<Eight>(to) + v[r]);
        }
    }
    for (; i < h; ++i) for (int r = 0; r < count; ++r) rows[r * (long)h + i] += block[i * ROWS + r];
}

// A block of B = [W V v], from those of W and W0; `count` rows are there.
void fill(const float* weight, const float* frozen, const float* bias, const float* frozen_bias, int count, int h,
          float* out) {
    for (int i = 0; i < h * ROWS; i += LANES) {
        const Vec w = load(weight + i);
        store(out + i, w);
        store(out + h * ROWS + i, w - load(frozen + i));
    }
    float* last = out + 2 * h * ROWS;
    for (int r = 0; r < ROWS; ++r) last[r] = r < count ? bias[r] - frozen_bias[r] : 0;
}

inline double of_parts(const float* part) {
    const Eight eight = load_as<Eight>(part) + load_as<Eight>(part + 8);
    return ((double)eight[0] + eight[4]) + ((double)eight[1] + eight[5]) +
           (((double)eight[2] + eight[6]) + ((double)eight[3] + eight[7]));
}

// total[i][j] += sum over rows of b[r][i] b[r][j], for SIDE columns i and j from `first` and `second` on.
void square_of_gram(const float* b, long blocks, int width, int first, int second, double* total) {
    float parts[SIDE][SIDE][ROWS];
    for (int lane = 0; lane < ROWS; lane += LANES) {
        Vec sum[SIDE][SIDE];
        for (int a = 0; a < SIDE; ++a) for (int c = 0; c < SIDE; ++c) sum[a][c] = splat(0);
        const float *left = b + first * ROWS + lane, *right = b + second * ROWS + lane;
        for (long k = 0; k < blocks; ++k, left += width * ROWS, right += width * ROWS) {
            Vec column[SIDE];
            for (int c = 0; c < SIDE; ++c) column[c] = load(right + c * ROWS);
#pragma GCC unroll 4
            for (int a = 0; a < SIDE; ++a) {
                const Vec other = load(left + a * ROWS);
                for (int c = 0; c < SIDE; ++c) sum[a][c] = fused(other, column[c], sum[a][c]);
            }
        }
        for (int a = 0; a < SIDE; ++a) for (int c = 0; c < SIDE; ++c) store(parts[a][c] + lane, sum[a][c]);
    }
    for (int a = 0; a < SIDE; ++a) for (int c = 0; c < SIDE; ++c)
        total[(long)(first + a) * width + second + c] += of_parts(parts[a][c]);
}

// B'B of blocks, of which only squares that reach the diagonal or lie behind it are computed.
void gram(const float* b, long blocks, int width, double* total) {
    for (int first = 0; first < width; first += SIDE)
        for (int second = first; second < width; second += SIDE) square_of_gram(b, blocks, width, first, second, total);
}

// Rows [from, to) of a block, zeros instead of the others.
void some_rows(const float* block, int width, int from, int to, float* out) {
    for (int i = 0; i < width; ++i) for (int r = 0; r < ROWS; ++r)
        out[i * ROWS + r] = from <= r && r < to ? block[i * ROWS + r] : 0;
}

// out (columns, ROWS) = columns of `product` (n, columns) times a block of B.
void times(const float* b, int n, const float* product, int columns, float* out) {
    for (int column = 0; column < columns; column += ABREAST) for (int lane = 0; lane < ROWS; lane += LANES) {
        Vec sum[ABREAST];
        for (int c = 0; c < ABREAST; ++c) sum[c] = splat(0);
        const float* factor = product + column;
        for (int i = 0; i < n; ++i, factor += columns) {
            const Vec x = load(b + i * ROWS + lane);
#pragma GCC unroll 12
            for (int c = 0; c < ABREAST; ++c) sum[c] = fused(splat(factor[c]), x, sum[c]);
        }
        for (int c = 0; c < ABREAST; ++c) store(out + (column + c) * ROWS + lane, sum[c]);
    }
}

}  // namespace

extern "C" {

// Parameters (n) after the step ahead go to `ahead`.
void step_ahead(long n, const float* parameters, const float* grad, const float* mean, const float* square,
                float complement1, float beta2, float complement2, float eps, float size, float* ahead) {
    ahead_of(ahead, parameters, grad, mean, square, n, Rule{complement1, beta2, complement2, eps, size});
}

// ahead (blocks) receives W after the look-ahead; grams (2, width, width) B'B of the rows before and from `edge` on.
// first, last: rows; a multiple of 16 each, but for the last of all. frozen: W0 in blocks.
void look_ahead(long first, long last, long edge, int h, const float* weight, const float* grad, const float* mean,
                const float* square, const float* bias, const float* frozen, const float* frozen_bias,
                float complement1, float beta2, float complement2, float eps, float size, float* ahead, double* grams) {
    const int width = padded(2 * h + 1, SIDE);
    const Rule rule{complement1, beta2, complement2, eps, size};
    const long most = std::max(1, TILE_FLOATS / (width * ROWS));
    std::vector<float> b((size_t)most * width * ROWS, 0.0f), part((size_t)width * ROWS), rows((size_t)ROWS * h);
    double* const others = grams + (long)width * width;
    for (long at = first; at < last;) {
        const long before = edge - at, left = (last - at + ROWS - 1) / ROWS;
        const bool both = 0 < before && before < ROWS;
        const long blocks = both ? 1 : std::min({most, left, before > 0 ? before / ROWS : left});
        for (long k = 0; k < blocks; ++k) {
            const long row = at + k * ROWS, i = row * h, count = std::min((long)ROWS, last - row);
            if (count < ROWS) std::fill(rows.begin(), rows.end(), 0.0f);
            ahead_of(rows.data(), weight + i, grad + i, mean + i, square + i, count * h, rule);
            to_columns(rows.data(), h, ahead + i);
            fill(ahead + i, frozen + i, bias + row, frozen_bias + row, (int)count, h, &b[k * width * ROWS]);
        }
        if (both) {
            some_rows(b.data(), width, 0, (int)before, part.data());
            gram(part.data(), 1, width, grams);
            some_rows(b.data(), width, (int)before, ROWS, part.data());
            gram(part.data(), 1, width, others);
        } else {
            gram(b.data(), blocks, width, before > 0 ? grams : others);
        }
        at += blocks * ROWS;
    }
    for (double* total : {grams, others}) for (int i = 0; i < width; ++i) for (int j = 0; j < i; ++j)
        total[(long)i * width + j] = total[(long)j * width + i];
}

// B times a product (2h + 1, padded h + 1) is added to grad (N, h) and grad_bias (N); `products` has one for the rows
// before `edge` and one for the others. weight (blocks), bias: those after the look-ahead. frozen: W0 in blocks.
void drift_gradient(long first, long last, long edge, int h, const float* weight, const float* bias,
                    const float* frozen, const float* frozen_bias, const float* products, float* grad,
                    float* grad_bias) {
    const int n = 2 * h + 1, columns = padded(h + 1, ABREAST);
    std::vector<float> b((size_t)n * ROWS), out((size_t)columns * ROWS), others((size_t)columns * ROWS);
    for (long at = first; at < last; at += ROWS) {
        const int count = (int)std::min((long)ROWS, last - at);
        fill(weight + at * h, frozen + at * h, bias + at, frozen_bias + at, count, h, b.data());
        const long before = edge - at;
        times(b.data(), n, products + (before > 0 ? 0 : (long)n * columns), columns, out.data());
        if (0 < before && before < ROWS) {
            times(b.data(), n, products + (long)n * columns, columns, others.data());
            for (int c = 0; c <= h; ++c) for (int r = (int)before; r < ROWS; ++r) out[c * ROWS + r] = others[c * ROWS + r];
        }
        add_to_rows(out.data(), h, count, grad + at * h);
        for (int r = 0; r < count; ++r) grad_bias[at + r] += out[h * ROWS + r];
    }
}

}  // extern "C"
