// The gradient of a kernel: B numbers of the window times V vectors of lanes are held in registers while all positions
// of a band are added.
#pragma once

#include "gather.h"

namespace {

constexpr int depth_of(int vectors) { // as tile_height; no measurement of the limit 12 is recorded
    return (REGISTERS - 1 - vectors) / vectors > 12 ? 12 : (REGISTERS - 1 - vectors) / vectors;
}

template <class T> struct Panel { // an image's positions: rows x columns of numbers, and how far apart they are
    const T *first;
    i64 row, column;
};

// sum[k][lane] += wide[position, k] * lanes[position, lane] for k < D and V vectors of lanes.
template <class T, int B, int V, int D>
void outer(Panel<T> wide, Panel<T> lanes, i64 rows, i64 columns, T *sum, i64 pitch) {
    typedef typename Vector<T, B>::type Vec;
    constexpr int W = Vector<T, B>::length;
    Vec total[D][V];
    unroll<D>(BODY(d) { unroll<V>(BODY(v) { total[d][v] = Vec{}; }); });
    for (i64 y = 0; y < rows; y++) {
        const T *a = wide.first + y * wide.row, *b = lanes.first + y * lanes.row;
#pragma GCC unroll 2
        for (i64 x = 0; x < columns; x++, a += wide.column, b += lanes.column) {
            Vec l[V];
            unroll<V>(BODY(v) { l[v] = load<Vec>(b + v * W); });
            unroll<D>(BODY(d) { unroll<V>(BODY(v) { total[d][v] += l[v] * a[d]; }); });
        }
    }
    // A band's sum is added as a whole: small products would lose digits beside the sum of all bands.
    unroll<D>(BODY(d) {
        unroll<V>(BODY(v) {
            T *to = sum + d * pitch + v * W;
            store(to, load<Vec>(to) + total[d][v]);
        });
    });
}

template <class T, int B, int V, int D> struct Depths {
    static void run(int depth, Panel<T> wide, Panel<T> lanes, i64 rows, i64 columns, T *sum, i64 pitch) {
        if (depth == D) return outer<T, B, V, D>(wide, lanes, rows, columns, sum, pitch);
        Depths<T, B, V, D - 1>::run(depth, wide, lanes, rows, columns, sum, pitch);
    }
};
template <class T, int B, int V> struct Depths<T, B, V, 0> {
    static void run(int, Panel<T>, Panel<T>, i64, i64, T *, i64) {}
};

// All numbers of a run, in parts of nearly one depth.
template <class T, int B, int V>
void run_of(i64 length, Panel<T> wide, Panel<T> lanes, i64 rows, i64 columns, T *sum, i64 pitch, Ahead *next) {
    constexpr int depth = depth_of(V);
    const i64 parts = above(length, depth);
    const T *start = wide.first;
    for (i64 part = 0, k = 0; part < parts; part++) {
        const i64 end = length * (part + 1) / parts;
        wide.first = start + k;
        next[0].fetch();
        next[1].fetch();
        Depths<T, B, V, depth>::run((int)(end - k), wide, lanes, rows, columns, sum + k * pitch, pitch);
        k = end;
    }
}

template <class T>
void run_of_block(const Block &block, i64 length, Panel<T> wide, Panel<T> lanes, i64 rows, i64 columns, T *sum,
                  i64 pitch, Ahead *next) {
    lanes.first += block.lane;
    sum += block.lane;
    switch (block.vectors) {
    case 0: return run_of<T, BYTES / 2, 1>(length, wide, lanes, rows, columns, sum, pitch, next);
    case 1: return run_of<T, BYTES, 1>(length, wide, lanes, rows, columns, sum, pitch, next);
    case 2: return run_of<T, BYTES, 2>(length, wide, lanes, rows, columns, sum, pitch, next);
    case 3: return run_of<T, BYTES, 3>(length, wide, lanes, rows, columns, sum, pitch, next);
    default: return run_of<T, BYTES, MOST_VECTORS>(length, wide, lanes, rows, columns, sum, pitch, next);
    }
}

// Returns whether a number came out that is not finite. `grad` has the weight's strides.
template <class T>
int correlate(const Correlate &plan, const T *wide, Strides ws, const T *lanes, Strides ls, T *grad, int threads) {
    typedef typename Vector<T, BYTES / 2>::type Half; // rows of sums are whole ones
    constexpr i64 H = Vector<T, BYTES / 2>::length;
    const i64 depth = plan.taps * plan.c;
    Block *blocks = workspace<Block>(BLOCKS, 2 + plan.lanes / Vector<T, BYTES>::length);
    i64 room = 0;
    const i64 count = cut<T>(0, plan.lanes, 1, blocks, &room);
    const i64 pitch = room, size = depth * pitch;
    const bool inside = plan.top >= 0 && plan.left >= 0 &&
                        plan.top + (plan.grid_h - 1) * plan.step_h + plan.span_h <= plan.h &&
                        plan.left + (plan.grid_w - 1) * plan.step_w + plan.span_w <= plan.w;
    const bool direct = inside && ws.c == 1 && ws.w == plan.c;
    const bool lanes_direct = ls.c == 1 && pitch == plan.lanes;
    const i64 columns = (plan.grid_w - 1) * plan.step_w + plan.span_w, wide_pitch = direct ? ws.h : columns * plan.c;
    const i64 row_numbers = columns * plan.c * plan.step_h + plan.grid_w * plan.lanes;
    i64 rows = most(1, (i64)BAND_BYTES / (i64)sizeof(T) / most(1, row_numbers));
    rows = least(rows, plan.grid_h);
    while (rows > 1 && plan.n * above(plan.grid_h, rows) < threads) rows = above(rows, 2);
    const i64 bands = plan.grid_h && plan.grid_w ? above(plan.grid_h, rows) : 0, units = plan.n * bands;
    if (bands) rows = above(plan.grid_h, bands);
    // A partial sum for each thread, as far as they do not fill the memory.
    threads = (int)most(1, least(least(threads, units), ((i64)1 << 27) / most(1, size)));
    T *partial = workspace<T>(PARTIAL, size * threads);
    // 12: the most that `depth_of` allows. So many pieces, or more, make up a unit.
    const i64 pieces = count * above(depth, 12);
    int bad = 0;
#pragma omp parallel num_threads(threads) reduction(| : bad)
    {
        // Each thread has its share of the units whatever the others do, so that the sums are the same every time.
#pragma omp for schedule(static, 1)
        for (int part = 0; part < threads; part++) {
            T *sum = partial + part * size;
            memset(sum, 0, size * sizeof(T));
            T *staged = direct ? nullptr : workspace<T>(STAGED, ((rows - 1) * plan.step_h + plan.span_h) * wide_pitch);
            T *staged_lanes = lanes_direct ? nullptr : workspace<T>(STAGED_LANES, rows * plan.grid_w * pitch);
            if (staged_lanes) memset(staged_lanes, 0, rows * plan.grid_w * pitch * sizeof(T));
            for (i64 unit = units * part / threads; unit < units * (part + 1) / threads; unit++) {
                const i64 image = unit / bands, begin = unit % bands * rows;
                const i64 height = least(rows, plan.grid_h - begin), top = plan.top + begin * plan.step_h;
                Panel<T> a = {wide + image * ws.n, plan.step_h * wide_pitch, plan.step_w * plan.c};
                Panel<T> b = {lanes + image * ls.n + begin * ls.h, ls.h, ls.w};
                if (direct) {
                    a.first += top * ws.h + plan.left * ws.w;
                } else {
                    const i64 tall = (height - 1) * plan.step_h + plan.span_h;
                    stage(a.first, ws, plan.c, plan.h, plan.w, top, tall, plan.left, columns, staged);
                    a.first = staged;
                }
                if (!lanes_direct) {
                    for (i64 y = 0; y < height; y++)
                        copy_pixels(b.first + y * ls.h, ls.c, ls.w, plan.lanes, plan.grid_w,
                                    staged_lanes + y * plan.grid_w * pitch, pitch);
                    b = {staged_lanes, plan.grid_w * pitch, pitch};
                }
                const i64 then = unit + 1 < units ? unit + 1 : unit, first = then % bands * rows;
                const i64 top_then = plan.top + first * plan.step_h, tall = (rows - 1) * plan.step_h + plan.span_h;
                Ahead next[2] = {ahead(wide + then / bands * ws.n, ws, plan.h, top_then, tall, pieces),
                                 ahead(lanes + then / bands * ls.n, ls, plan.grid_h, first, rows, pieces)};
                i64 k = 0;
                for (i64 r = 0; r < plan.runs; r++) {
                    const Run &run = plan.run[r];
                    const Panel<T> at = {a.first + run.row * wide_pitch + run.column * plan.c, a.row, a.column};
                    for (i64 i = 0; i < count; i++)
                        run_of_block(blocks[i], run.taps * plan.c, at, b, height, plan.grid_w, sum + k * pitch, pitch,
                                     next);
                    k += run.taps * plan.c;
                }
            }
        }
#pragma omp for schedule(static) nowait
        for (i64 c = 0; c < plan.c; c++) {
            T *rows = workspace<T>(STAGED, plan.elements * pitch);
            memset(rows, 0, plan.elements * pitch * sizeof(T));
            Half total = {}; // not finite as soon as one of the sums is not
            for (i64 element = 0; element < plan.elements; element++) {
                T *row = rows + element * pitch;
                for (i64 i = plan.sources.begin[element]; i < plan.sources.begin[element + 1]; i++)
                    for (int part = 0; part < threads; part++) {
                        const T *from = partial + part * size + (plan.sources.source[i] * plan.c + c) * pitch;
                        for (i64 l = 0; l < pitch; l += H) store(row + l, load<Half>(row + l) + load<Half>(from + l));
                    }
                for (i64 l = 0; l < pitch; l += H) total += load<Half>(row + l);
            }
            T *to = grad + c * plan.channel_stride, check = 0;
            for (i64 l = 0; l < plan.lanes; l++, to += plan.lane_stride)
                for (i64 element = 0; element < plan.elements; element++) to[element] = rows[element * pitch + l];
            for (i64 l = 0; l < H; l++) check += total[l] * T(0);
            bad |= !(check == T(0));
        }
    }
    return bad;
}

// sum[c] = sum of the numbers of channel c over `pixels` pixels, channels last and contiguous.
template <class T> void channel_sums(const T *grad, i64 pixels, i64 channels, double *partial, T *sum, int threads) {
    typedef typename Vector<T, BYTES>::type Vec;
    constexpr i64 W = Vector<T, BYTES>::length;
    // W pixels are `channels` whole vectors; a block of them is added up before it goes to double.
    const i64 wide = W * channels, groups = pixels / W, block = 64, blocks = above(groups, block);
    threads = (int)most(1, least(threads, blocks));
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int part = 0; part < threads; part++) {
        T *row = workspace<T>(PARTIAL, wide);
        double *total = partial + part * channels;
        for (i64 c = 0; c < channels; c++) total[c] = 0;
        for (i64 b = blocks * part / threads; b < blocks * (part + 1) / threads; b++) {
            memset(row, 0, wide * sizeof(T));
            for (i64 g = b * block; g < least((b + 1) * block, groups); g++)
                for (i64 k = 0; k < wide; k += W) store(row + k, load<Vec>(row + k) + load<Vec>(grad + g * wide + k));
            for (i64 k = 0, c = 0; k < wide; k++, c = c + 1 == channels ? 0 : c + 1) total[c] += (double)row[k];
        }
        if (part == threads - 1)
            for (i64 k = groups * wide, c = 0; k < pixels * channels; k++, c = c + 1 == channels ? 0 : c + 1)
                total[c] += (double)grad[k];
    }
    for (i64 c = 0; c < channels; c++) {
        double all = 0;
        for (int part = 0; part < threads; part++) all += partial[part * channels + c];
        sum[c] = (T)all;
    }
}

} // namespace
