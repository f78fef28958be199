// The one loop of forward passes and input gradients, except those of few lanes, which are in planar.h. It is tiled for
// the registers: P positions times V vectors of lanes are held in registers while all taps and channels are added.
#pragma once

#include "stage.h"
#include "workspace.h"

namespace {

enum Activation { NONE, RELU, SIGMOID };

constexpr int power_of_two(int most) { return most < 2 ? 1 : 2 * power_of_two(most / 2); }

// How many positions fit into the registers beside V vectors of weights and the number that multiplies them; tiles are
// this high, or lower by multiples of 2, or 1. No measurement of the limit 14 is recorded.
constexpr int tile_height(int vectors) {
    const int most = (REGISTERS - 1 - vectors) / vectors;
    return most > 14 ? 14 : most / 2 * 2;
}
constexpr int MOST_VECTORS = REGISTERS == 32 ? 4 : 3;

// Lanes [lane, lane + width) of a group.
struct Block {
    i64 group, lane, width, packed; // packed: where its weights begin
    int vectors;                    // 0: one vector of half the length
};

template <class T> struct Band { // a group's positions in a staged band
    const T *input;
    const i64 *in, *out; // offsets of each position
    i64 count;
    const i64 *run, *length; // offset of each run, and how many numbers it has
    const Group *group;
    Ahead *next;
};

template <class T> struct Target {
    T *out;
    const T *mask, *bias;
    i64 lanes;
    int activation;
};

template <class T, class V> INLINE V activated(V value, int activation) {
    if (activation == RELU) return value < T(0) ? V{} : value;
    if (activation == SIGMOID) return sigmoid_of<T, V>(value);
    return value;
}

// `count` numbers, at most N, in parts of N, N / 2, ... 1: cheaper than memcpy for so few.
template <int N, class T> INLINE void copy_few(T *to, const T *from, i64 count) {
    if (count & N) {
        memcpy(to, from, N * sizeof(T));
        to += N, from += N;
    }
    if constexpr (N > 1) copy_few<N / 2>(to, from, count);
}

// Lanes that end inside a vector, or belong to several output pixels.
template <int N, class T>
INLINE void store_segments(const T *values, i64 lane, i64 offset, const Group &group, const Target<T> &target) {
    for (i64 s = 0; s < group.segments; s++) {
        const Segment &segment = group.segment[s];
        const i64 first = most(lane, segment.lane), end = least(lane + N, segment.lane + segment.length);
        const i64 to = offset + segment.offset - segment.lane;
        if (first >= end) continue;
        if (target.mask) {
            for (i64 l = first; l < end; l++)
                target.out[to + l] = target.mask[to + l] <= T(0) ? T(0) : values[l - lane];
        } else {
            copy_few<power_of_two(N)>(target.out + to + first, values + first - lane, end - first);
        }
    }
}

// Returns whether a number came out that is not finite.
template <class T, int B, int V, int P>
bool tile(const Band<T> &band, i64 first, const Block &block, const T *weight, const Target<T> &target) {
    typedef typename Vector<T, B>::type Vec;
    constexpr int W = Vector<T, B>::length;
    Vec sum[P][V];
    unroll<V>(BODY(v) {
        const Vec start = load<Vec>(target.bias + block.lane + v * W);
        unroll<P>(BODY(p) { sum[p][v] = start; });
    });
    const i64 runs = band.group->runs;
    for (i64 r = 0; r < runs; r++) {
        const T *pixel[P];
        const T *from = band.input + band.run[r];
        unroll<P>(BODY(p) { pixel[p] = from + band.in[first + p]; });
        const i64 length = band.length[r];
#pragma GCC unroll 4
        for (i64 k = 0; k < length; k++, weight += V * W) {
            Vec w[V];
            unroll<V>(BODY(v) { w[v] = load<Vec>(weight + v * W); });
            unroll<P>(BODY(p) {
                const T number = pixel[p][k];
                unroll<V>(BODY(v) { sum[p][v] += w[v] * number; });
            });
        }
    }
    Vec total[2] = {}; // not finite as soon as one of the sums is not
    unroll<P>(BODY(p) { unroll<V>(BODY(v) { total[(p * V + v) % 2] += sum[p][v]; }); });
    if (target.activation != NONE)
        unroll<P>(BODY(p) { unroll<V>(BODY(v) { sum[p][v] = activated<T, Vec>(sum[p][v], target.activation); }); });
    if (band.group->segments == 1 && block.lane + V * W <= target.lanes) {
        const i64 *out = band.out + first;
        if (target.mask)
            unroll<P>(BODY(p) {
                const T *mask = target.mask + out[p] + block.lane;
                unroll<V>(BODY(v) { sum[p][v] = load<Vec>(mask + v * W) <= T(0) ? Vec{} : sum[p][v]; });
            });
        unroll<P>(BODY(p) {
            T *to = target.out + out[p] + block.lane;
            unroll<V>(BODY(v) { store(to + v * W, sum[p][v]); });
        });
    } else {
        T values[P][V * W];
        unroll<P>(BODY(p) { unroll<V>(BODY(v) { store(values[p] + v * W, sum[p][v]); }); });
        for (int p = 0; p < P; p++)
            store_segments<V * W>(values[p], block.lane, band.out[first + p], *band.group, target);
    }
    const Vec zero = (total[0] + total[1]) * T(0);
    T rest = zero[0];
    for (int i = 1; i < W; i++) rest += zero[i];
    return !(rest == T(0));
}

template <class T, int B, int V, int P> struct Heights {
    static bool run(int height, const Band<T> &band, i64 first, const Block &block, const T *weight,
                    const Target<T> &target) {
        if (height == P) return tile<T, B, V, P>(band, first, block, weight, target);
        return Heights<T, B, V, P == 2 ? 1 : P - 2>::run(height, band, first, block, weight, target);
    }
};
template <class T, int B, int V> struct Heights<T, B, V, 1> {
    static bool run(int, const Band<T> &band, i64 first, const Block &block, const T *weight, const Target<T> &target) {
        return tile<T, B, V, 1>(band, first, block, weight, target);
    }
};

// Fetch what the positions [first, end) will be written to, while others are computed.
template <class T, int V>
INLINE void fetch(const Band<T> &band, i64 first, i64 end, i64 lane, const Target<T> &target) {
    constexpr i64 line = 64 / sizeof(T), lines = V * BYTES / 64 > 0 ? V * BYTES / 64 : 1;
    for (i64 i = first; i < end; i++)
        for (i64 l = 0; l < lines; l++) {
            const i64 to = band.out[i] + lane + l * line;
            __builtin_prefetch(target.out + to, 1);
            if (target.mask) __builtin_prefetch(target.mask + to, 0);
        }
}

// All positions of a band, in tiles of nearly one height.
template <class T, int B, int V>
bool positions(const Band<T> &band, const Block &block, const T *weight, const Target<T> &target) {
    constexpr int height = tile_height(V);
    bool bad = false;
    for (i64 first = 0, end; first < band.count; first = end) {
        const i64 left = band.count - first, even = above(above(left, above(left, height)), 2) * 2;
        end = first + (left == 1 ? 1 : least(even, left / 2 * 2));
        fetch<T, V>(band, end, least(band.count, end + height), block.lane, target);
        band.next->fetch();
        bad |= Heights<T, B, V, height>::run((int)(end - first), band, first, block, weight, target);
    }
    return bad;
}

template <class T> bool block_of(const Band<T> &band, const Block &block, const T *weight, const Target<T> &target) {
    switch (block.vectors) {
    case 0: return positions<T, BYTES / 2, 1>(band, block, weight, target);
    case 1: return positions<T, BYTES, 1>(band, block, weight, target);
    case 2: return positions<T, BYTES, 2>(band, block, weight, target);
    case 3: return positions<T, BYTES, 3>(band, block, weight, target);
    default: return positions<T, BYTES, MOST_VECTORS>(band, block, weight, target);
    }
}

// Cut `lanes` lanes into blocks; returns how many there are, and in `room` the numbers that packed weights take.
template <class T> i64 cut(i64 group, i64 lanes, i64 depth, Block *blocks, i64 *room) {
    constexpr i64 W = Vector<T, BYTES>::length;
    i64 count = 0, lane = 0;
    while (lane < lanes) {
        const i64 left = lanes - lane, full = left / W;
        Block block = {group, lane, 0, *room, 0};
        if (left <= W / 2 && W >= 4) {
            block.width = W / 2;
        } else {
            const i64 rest = left - full * W > W / 2 || (left > full * W && W < 4);
            const i64 vectors = full + rest, parts = above(vectors, MOST_VECTORS);
            block.vectors = (int)above(vectors, parts);
            block.width = block.vectors * W;
        }
        blocks[count++] = block;
        *room += block.width * depth;
        lane += block.width;
    }
    return count;
}

// The weights of one tap of a block, as the tile reads them: [channel][lane].
template <class T>
void pack(const Gather &plan, const Block &block, i64 tap, const T *weight, T *to) {
    const Group &group = plan.group[block.group];
    const i64 lanes = group.blocks * plan.out_channels;
    for (i64 l = 0; l < block.width; l++) {
        const i64 lane = block.lane + l, phase = lane / plan.out_channels;
        const i64 key = tap * group.blocks + phase;
        const i64 begin = lane < lanes ? group.sources.begin[key] : 0;
        const i64 count = lane < lanes ? group.sources.begin[key + 1] - begin : 0;
        const T *from = weight + (lane - phase * plan.out_channels) * plan.lane_stride;
        const i32 *source = group.sources.source + begin;
        if (count == 1) {
            const T *at = from + source[0];
            for (i64 c = 0; c < plan.c; c++) to[c * block.width + l] = at[c * plan.channel_stride];
            continue;
        }
        for (i64 c = 0; c < plan.c; c++) {
            T sum = 0;
            for (i64 i = 0; i < count; i++) sum += from[c * plan.channel_stride + source[i]];
            to[c * block.width + l] = sum;
        }
    }
}

enum { BAND_BYTES = 160 * 1024 };

template <class T>
int gather(const Gather &plan, const T *input, Strides s, const T *weight, const T *bias, const T *mask,
           int activation, T *out, int threads) {
    i64 most_blocks = 0, count = 0, room = 0, lanes = 0, taps = 0;
    for (i64 g = 0; g < plan.groups; g++) {
        lanes = most(lanes, plan.group[g].blocks * plan.out_channels);
        taps = most(taps, plan.group[g].taps);
        most_blocks += 2 + plan.group[g].blocks * plan.out_channels / Vector<T, BYTES>::length;
    }
    Block *blocks = workspace<Block>(BLOCKS, most_blocks);
    for (i64 g = 0; g < plan.groups; g++) {
        const Group &group = plan.group[g];
        count += cut<T>(g, group.blocks * plan.out_channels, group.taps * plan.c, blocks + count, &room);
    }
    const bool inside = plan.top >= 0 && plan.left >= 0 &&
                        plan.top + (plan.grid_h - 1) * plan.step_h + plan.span_h <= plan.h &&
                        plan.left + (plan.grid_w - 1) * plan.step_w + plan.span_w <= plan.w;
    const bool direct = inside && s.c == 1 && s.w == plan.c;
    const i64 columns = (plan.grid_w - 1) * plan.step_w + plan.span_w, pitch = direct ? s.h : columns * plan.c;
    // Bands small enough for the cache, and enough of them for all threads.
    i64 rows = most(1, ((i64)BAND_BYTES / (i64)sizeof(T) / most(1, columns * plan.c) - plan.span_h) / plan.step_h + 1);
    rows = least(rows, plan.grid_h);
    while (rows > 1 && plan.n * above(plan.grid_h, rows) < threads) rows = above(rows, 2);
    const i64 bands = above(plan.grid_h, rows), units = plan.n * bands;
    rows = above(plan.grid_h, bands);
    // 14: the highest tile (`tile_height`). So many tiles, or more, make up a band.
    const i64 pieces = count * above(rows * plan.grid_w, 14), chunk = most(1, units / (8 * threads));
    const i64 padded = lanes + 2 * BYTES / (i64)sizeof(T);
    T *packed = workspace<T>(PACKED, room + padded), *packed_bias = packed + room;
    for (i64 l = 0; l < padded; l++) packed_bias[l] = bias && l < lanes ? bias[l % plan.out_channels] : T(0);
    int bad = 0;
#pragma omp parallel num_threads(threads) reduction(| : bad)
    {
#pragma omp for schedule(static)
        for (i64 unit = 0; unit < count * taps; unit++) {
            const Block &block = blocks[unit / taps];
            const i64 tap = unit % taps;
            if (tap < plan.group[block.group].taps)
                pack(plan, block, tap, weight, packed + block.packed + tap * plan.c * block.width);
        }
        T *staged = direct ? nullptr : workspace<T>(STAGED, ((rows - 1) * plan.step_h + plan.span_h) * pitch);
        // Positions and runs of each group, counted from the first position of a band.
        const i64 each = 2 * (rows * plan.grid_w + taps);
        i64 *offsets = workspace<i64>(OFFSETS, plan.groups * each);
        for (i64 g = 0; g < plan.groups; g++) {
            const Group &group = plan.group[g];
            i64 *in = offsets + g * each, *to = in + rows * plan.grid_w, *run = to + rows * plan.grid_w;
            for (i64 y = 0, k = 0; y < rows; y++)
                for (i64 x = 0; x < group.grid_w; x++, k++) {
                    in[k] = y * plan.step_h * pitch + x * plan.step_w * plan.c;
                    to[k] = y * group.out_row + x * group.out_column;
                }
            for (i64 r = 0; r < group.runs; r++) {
                run[r] = group.run[r].row * pitch + group.run[r].column * plan.c;
                run[taps + r] = group.run[r].taps * plan.c;
            }
        }
#pragma omp for schedule(dynamic, chunk) nowait
        for (i64 unit = 0; unit < units; unit++) {
            const i64 image = unit / bands, begin = unit % bands * rows;
            const i64 top = plan.top + begin * plan.step_h;
            const T *source = input + image * s.n;
            if (direct) {
                source += top * s.h + plan.left * s.w;
            } else {
                const i64 height = (least(rows, plan.grid_h - begin) - 1) * plan.step_h + plan.span_h;
                stage(source, s, plan.c, plan.h, plan.w, top, height, plan.left, columns, staged);
                source = staged;
            }
            const i64 then = unit + 1 < units ? unit + 1 : unit, row = plan.top + then % bands * rows * plan.step_h;
            const i64 tall = (rows - 1) * plan.step_h + plan.span_h;
            Ahead next = ahead(input + then / bands * s.n, s, plan.h, row, tall, pieces);
            for (i64 g = 0, b = 0; g < plan.groups; g++) {
                const Group &group = plan.group[g];
                const i64 *in = offsets + g * each, *to = in + rows * plan.grid_w, *run = to + rows * plan.grid_w;
                const i64 positions = most(0, least(begin + rows, group.grid_h) - begin) * group.grid_w;
                const Band<T> band = {source, in, to, positions, run, run + taps, &group, &next};
                const i64 shift = image * plan.out_image + group.out_offset + begin * group.out_row;
                const Target<T> target = {out + shift, mask ? mask + shift : nullptr, packed_bias,
                                          group.blocks * plan.out_channels, activation};
                for (; b < count && blocks[b].group == g; b++)
                    bad |= block_of(band, blocks[b], packed + blocks[b].packed, target);
            }
        }
    }
    return bad;
}

} // namespace
