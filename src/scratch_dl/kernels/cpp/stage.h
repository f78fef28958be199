// Copies of a band of an image, zero-padded, channels last, small enough to stay in a core's cache.
#pragma once

#include <string.h>

#include "vectors.h"

namespace {

// Pixels [0, columns) of one row, c channels each, `pitch` numbers from one to the next in the copy.
template <class T>
void copy_pixels(const T *from, i64 stride_c, i64 stride_w, i64 c, i64 columns, T *__restrict to, i64 pitch) {
    if (stride_c == 1 && stride_w == c && pitch == c) {
        memcpy(to, from, columns * c * sizeof(T));
    } else if (stride_w == 1 && c == 3 && pitch == 3) { // the images that a network is given
        const T *red = from, *green = from + stride_c, *blue = from + 2 * stride_c;
        for (i64 i = 0; i < columns; i++) {
            to[3 * i] = red[i];
            to[3 * i + 1] = green[i];
            to[3 * i + 2] = blue[i];
        }
    } else if (stride_c == 1) {
        for (i64 i = 0; i < columns; i++) memcpy(to + i * pitch, from + i * stride_w, c * sizeof(T));
    } else {
        for (i64 i = 0; i < columns; i++)
            for (i64 k = 0; k < c; k++) to[i * pitch + k] = from[i * stride_w + k * stride_c];
    }
}

// Memory that is read next, fetched little by little while the present numbers are computed.
struct Ahead {
    const char *at, *end;
    i64 lines; // of the cache, for each piece of work

    INLINE_MEMBER void fetch() {
        for (i64 i = 0; i < lines && at < end; i++, at += 64) __builtin_prefetch(at);
    }
};

// Rows [row, row + rows) of an image, in so many pieces of work; nothing, where a row is no piece of memory.
template <class T> INLINE Ahead ahead(const T *image, Strides s, i64 h, i64 row, i64 rows, i64 pieces) {
    const i64 first = most(row, 0), end = least(row + rows, h);
    if (s.c != 1 || first >= end) return {nullptr, nullptr, 0};
    const char *from = (const char *)(image + first * s.h), *to = (const char *)(image + end * s.h);
    return {from, to, above(above(to - from, 64), most(1, pieces))};
}

// Rows [row, row + rows) and columns [column, column + columns) of an image h x w, zero outside of it.
template <class T>
void stage(const T *image, Strides s, i64 c, i64 h, i64 w, i64 row, i64 rows, i64 column, i64 columns, T *to) {
    const i64 left = least(most(-column, 0), columns), end = most(least(w - column, columns), left);
    for (i64 y = row; y < row + rows; y++, to += columns * c) {
        if (y < 0 || y >= h) {
            memset(to, 0, columns * c * sizeof(T));
            continue;
        }
        memset(to, 0, left * c * sizeof(T));
        copy_pixels(image + y * s.h + (column + left) * s.w, s.c, s.w, c, end - left, to + left * c, c);
        memset(to + end * c, 0, (columns - end) * c * sizeof(T));
    }
}

} // namespace
