// The functions that every build for an instruction set offers, for one type of number.
#pragma once

#include "plan.h"

template <class T> struct Functions {
    int (*gather)(const Gather &, const T *, Strides, const T *, const T *, const T *, int, T *, int);
    int (*correlate)(const Correlate &, const T *, Strides, const T *, Strides, T *, int);
    void (*channel_sums)(const T *, i64, i64, double *, T *, int);
    void (*relu)(const T *, T *, i64, int);
    void (*relu_grad)(const T *, const T *, T *, i64, int);
    void (*sigmoid)(const T *, T *, i64, int);
    void (*sigmoid_grad)(const T *, const T *, T *, i64, int);
    void (*squared_error)(const T *, const T *, Strides, i64, i64, i64, i64, double, T, T *, T *, int);
    void (*sgd)(T *, const T *, T *, i64, T, T, int, int);
    void (*adam)(T *, const T *, T *, T *, i64, T, T, double, double, T, int);
};

struct Variant {
    const char *name;
    Functions<float> single;
    Functions<double> exact;
    double (*peak)(i64, int);
};
