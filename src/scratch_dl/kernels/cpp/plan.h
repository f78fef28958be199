// What Python tells the native kernels: plain C structures, mirrored in scratch_dl/kernels/plans.py.
//
// Axis letters: n sample, c channel that is summed over, o lane (a channel that is not), h w pixel. Offsets and strides
// count elements. A *position* is a pixel of the grid on which windows lie; a *tap* is a pixel of such a window.
#pragma once

#include <stdint.h>

typedef int64_t i64;
typedef int32_t i32;

// Taps side by side in one row of the window: with channels last their numbers are contiguous.
typedef struct {
    i64 row, column, taps;
} Run;

// Lanes [lane, lane + length) lie side by side in the output, `offset` from the position's first number.
typedef struct {
    i64 lane, length, offset;
} Segment;

// Kernel elements whose sum is the weight of a tap: source[begin[k] .. begin[k + 1]).
typedef struct {
    const i32 *begin, *source;
} Sources;

// One phase of the output, or several of them computed side by side as blocks of lanes.
typedef struct {
    i64 grid_h, grid_w;
    i64 out_offset, out_row, out_column;
    i64 blocks; // lanes = blocks * out_channels
    i64 taps, runs, segments;
    const Run *run;
    const Segment *segment;
    Sources sources; // of tap t and block b at t * blocks + b
} Group;

// out[position, lane] = bias + sum over taps and channels of input[position * step + tap] * weight
typedef struct {
    i64 n, c, h, w;
    i64 top, left, span_h, span_w; // where the window of the first position lies, and its extent
    i64 step_h, step_w;
    i64 grid_h, grid_w; // of the largest group
    i64 out_image, out_channels;
    i64 lane_stride, channel_stride; // of the weight; its kernel elements are contiguous
    i64 planar; // whether its groups are single phases of few lanes, for `planar.h`
    i64 groups;
    const Group *group;
} Gather;

// weight[lane, channel, element] = sum over positions of wide[position * step + tap, channel] * lanes[position, lane]
typedef struct {
    i64 n, c, h, w; // of the wide image, whose windows are read
    i64 top, left, span_h, span_w;
    i64 step_h, step_w;
    i64 grid_h, grid_w;
    i64 lanes;
    i64 taps, runs;
    const Run *run;
    i64 lane_stride, channel_stride, elements;
    Sources sources; // the taps of each kernel element
} Correlate;

// The strides of a tensor (n, c, h, w).
typedef struct {
    i64 n, c, h, w;
} Strides;
