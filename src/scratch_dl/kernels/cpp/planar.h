// The sums of `gather.h` where a position has few lanes, as the three colours of an image: a vector then holds W
// positions of one lane. The staged input lies in planes, one a channel, in which the positions of a band, and the
// columns between its rows, are one line of numbers; those that are no positions are computed and dropped.
#pragma once

#include "gather.h"

namespace {

constexpr int MOST_LANES = 8;

// How many vectors of positions fit into the registers with L lanes, a weight, and one vector of input each; a tile has
// as many, or fewer by multiples of 2.
constexpr int tile_vectors(int lanes) {
    const int most = (REGISTERS - 2) / (lanes + 1);
    return most < 2 ? 2 : most > 6 ? 6 : most / 2 * 2;
}

// Rows [row, row + rows) of an image, a plane of `size` numbers for each channel. What lies outside the image at the
// left and right, and beyond the last row, is never written to, and was zero before.
template <class T>
void stage_planes(const T *image, Strides s, const Gather &plan, i64 row, i64 rows, i64 columns, T *to, i64 size) {
    const i64 first = least(most(-plan.left, 0), columns), end = most(least(plan.w - plan.left, columns), first);
    for (i64 y = row; y < row + rows; y++) {
        const T *from = image + y * s.h + (plan.left + first) * s.w;
        T *line = to + (y - row) * columns + first;
        if (y < 0 || y >= plan.h)
            for (i64 c = 0; c < plan.c; c++) memset(line + c * size, 0, (end - first) * sizeof(T));
        else
            for (i64 c = 0; c < plan.c; c++)
                for (i64 x = 0; x < end - first; x++) line[c * size + x] = from[x * s.w + c * s.c];
    }
}

// U vectors of positions from `position` on. Returns whether a number came out that is not finite.
template <class T, int L, int U>
bool planar_tile(const Gather &plan, const Group &group, const T *planes, i64 size, const i64 *tap, const T *weight,
                 const T *bias, int activation, T *values, i64 pitch) {
    typedef typename Vector<T, BYTES>::type Vec;
    constexpr int W = Vector<T, BYTES>::length;
    Vec sum[U][L];
    unroll<U>(BODY(u) { unroll<L>(BODY(l) { sum[u][l] = Vec{} + bias[l]; }); });
    for (i64 t = 0; t < group.taps; t++) {
        const T *from = planes + tap[t];
#pragma GCC unroll 2
        for (i64 c = 0; c < plan.c; c++, from += size, weight += L) {
            Vec x[U];
            unroll<U>(BODY(u) { x[u] = load<Vec>(from + u * W); });
            unroll<L>(BODY(l) {
                const T w = weight[l];
                unroll<U>(BODY(u) { sum[u][l] += x[u] * w; });
            });
        }
    }
    Vec total = Vec{};
    unroll<U>(BODY(u) { unroll<L>(BODY(l) { total += sum[u][l]; }); });
    if (activation != NONE)
        unroll<U>(BODY(u) { unroll<L>(BODY(l) { sum[u][l] = activated<T, Vec>(sum[u][l], activation); }); });
    unroll<U>(BODY(u) { unroll<L>(BODY(l) { store(values + l * pitch + u * W, sum[u][l]); }); });
    T rest = 0;
    for (int i = 0; i < W; i++) rest += total[i] * T(0);
    return !(rest == T(0));
}

template <class T, int L> struct Lanes {
    // All positions of a band; `values` has room for a line of them for each lane.
    static bool run(const Gather &plan, const Group &group, const T *planes, i64 size, i64 line, const i64 *tap,
                    const T *weight, const T *bias, int activation, T *values, i64 pitch) {
        if (plan.out_channels != L)
            return Lanes<T, L - 1>::run(plan, group, planes, size, line, tap, weight, bias, activation, values, pitch);
        constexpr i64 W = Vector<T, BYTES>::length, height = tile_vectors(L);
        const i64 vectors = above(line, W), tiles = above(vectors, height);
        const i64 height_here = above(above(vectors, tiles), 2) * 2;
        const auto tile = height_here == 2 || height == 2 ? planar_tile<T, L, 2>
                          : height_here == 4 || height == 4 ? planar_tile<T, L, height == 2 ? 2 : 4>
                                                            : planar_tile<T, L, height>;
        bool bad = false;
        for (i64 i = 0; i < line; i += height_here * W)
            bad |= tile(plan, group, planes + i, size, tap, weight, bias, activation, values + i, pitch);
        return bad;
    }
};
template <class T> struct Lanes<T, 0> {
    static bool run(const Gather &, const Group &, const T *, i64, i64, const i64 *, const T *, const T *, int, T *,
                    i64) {
        return false;
    }
};

template <class T>
int gather_planar(const Gather &plan, const T *input, Strides s, const T *weight, const T *bias, const T *mask,
                  int activation, T *out, int threads) {
    const i64 lanes = plan.out_channels, columns = plan.grid_w - 1 + plan.span_w;
    const i64 slack = 6 * BYTES / (i64)sizeof(T); // a tile may read and write so far beyond its line
    i64 taps = 0, all_taps = 0;
    for (i64 g = 0; g < plan.groups; g++) {
        taps = most(taps, plan.group[g].taps);
        all_taps += plan.group[g].taps;
    }
    i64 rows = most(1, (i64)BAND_BYTES / (i64)sizeof(T) / most(1, columns * plan.c) - plan.span_h + 1);
    rows = least(rows, plan.grid_h);
    while (rows > 1 && plan.n * above(plan.grid_h, rows) < threads) rows = above(rows, 2);
    const i64 bands = above(plan.grid_h, rows), units = plan.n * bands, chunk = most(1, units / (8 * threads));
    rows = above(plan.grid_h, bands);
    const i64 room = all_taps * plan.c * lanes;
    T *packed = workspace<T>(PACKED, room + lanes), *first_bias = packed + room;
    for (i64 l = 0; l < lanes; l++) first_bias[l] = bias ? bias[l] : T(0);
    i64 done = 0;
    for (i64 g = 0; g < plan.groups; g++)
        for (i64 t = 0; t < plan.group[g].taps; t++, done += plan.c * lanes)
            pack(plan, {g, 0, lanes, 0, 0}, t, weight, packed + done);
    int bad = 0;
#pragma omp parallel num_threads(threads) reduction(| : bad)
    {
        const i64 pitch = rows * columns + slack, size = (rows - 1 + plan.span_h) * columns + slack;
        T *planes = workspace<T>(STAGED, plan.c * size), *values = workspace<T>(STAGED_LANES, lanes * pitch);
        i64 *tap = workspace<i64>(OFFSETS, taps);
        memset(planes, 0, plan.c * size * sizeof(T));
#pragma omp for schedule(dynamic, chunk) nowait
        for (i64 unit = 0; unit < units; unit++) {
            const i64 image = unit / bands, begin = unit % bands * rows;
            stage_planes(input + image * s.n, s, plan, plan.top + begin, rows - 1 + plan.span_h, columns, planes, size);
            const T *weights = packed;
            for (i64 g = 0; g < plan.groups; g++) {
                const Group &group = plan.group[g];
                const i64 height = least(begin + rows, group.grid_h) - begin;
                i64 found = 0;
                for (i64 r = 0; r < group.runs; r++)
                    for (i64 k = 0; k < group.run[r].taps; k++)
                        tap[found++] = group.run[r].row * columns + group.run[r].column + k;
                if (height > 0 && group.grid_w > 0)
                    bad |= Lanes<T, MOST_LANES>::run(plan, group, planes, size, (height - 1) * columns + group.grid_w,
                                                     tap, weights, first_bias, activation, values, pitch);
                weights += group.taps * plan.c * lanes;
                for (i64 y = 0; y < height; y++) {
                    i64 to = image * plan.out_image + group.out_offset + (begin + y) * group.out_row;
                    for (i64 x = 0; x < group.grid_w; x++, to += group.out_column)
                        for (i64 l = 0; l < lanes; l++)
                            out[to + l] = mask && mask[to + l] <= T(0) ? T(0) : values[l * pitch + y * columns + x];
                }
            }
        }
    }
    return bad;
}

} // namespace
