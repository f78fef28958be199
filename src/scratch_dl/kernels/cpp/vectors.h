// Vectors of the compiler, as wide as the instruction set of this build; no header of the standard C++ library, whose
// inline functions the linker could take from a build for another instruction set.
#pragma once

#include "plan.h"

#if defined(VARIANT_AVX512)
#define VARIANT avx512
enum { BYTES = 64, REGISTERS = 32 };
#elif defined(VARIANT_AVX2)
#define VARIANT avx2
enum { BYTES = 32, REGISTERS = 16 };
#else
#define VARIANT portable
#if defined(__aarch64__)
enum { BYTES = 16, REGISTERS = 32 };
#else
enum { BYTES = 16, REGISTERS = 16 };
#endif
#endif

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))

namespace {

template <class T, int B> struct Vector {
    typedef T type __attribute__((vector_size(B)));
    typedef T unaligned __attribute__((vector_size(B), aligned(sizeof(T)), may_alias));
    enum { length = B / sizeof(T) };
};

template <class T> struct Whole;
template <> struct Whole<float> { typedef i32 type; };
template <> struct Whole<double> { typedef i64 type; };

template <class V, class T> INLINE V load(const T *from) {
    return *(const typename Vector<T, sizeof(V)>::unaligned *)from;
}

template <class V, class T> INLINE void store(T *to, V value) {
    *(typename Vector<T, sizeof(V)>::unaligned *)to = value;
}

template <int I> struct Index {
    constexpr operator int() const { return I; }
};

// function(Index<0>), ..., function(Index<N - 1>): arrays indexed by these stay in registers from the start.
template <int N, class F> INLINE void unroll(F &&function) {
    if constexpr (N > 0) {
        unroll<N - 1>(function);
        function(Index<N - 1>{});
    }
}
#define BODY(index) [&](auto index) __attribute__((always_inline))

INLINE i64 least(i64 a, i64 b) { return a < b ? a : b; }
INLINE i64 most(i64 a, i64 b) { return a > b ? a : b; }
INLINE i64 above(i64 a, i64 b) { return (a + b - 1) / b; } // a / b, rounded up

// exp(-|x|) = 2^k exp(r) with -|x| = k ln 2 + r, |r| <= ln 2 / 2, and exp(r) by its Taylor series, whose rest is below
// 1e-8 after r^7 and below 1e-17 after r^13. A NaN stays one.
template <class T, class V> INLINE V exp_of_minus_abs(V x) {
    typedef typename Whole<T>::type I;
    typedef I W __attribute__((vector_size(sizeof(V))));
    constexpr bool single = sizeof(T) == 4;
    constexpr T lowest = single ? T(-110) : T(-760), shift = single ? T(12582912) : T(6755399441055744);
    constexpr T ln2_high = single ? T(0.693359375) : T(6.93147180369123816490e-01);
    constexpr T ln2_low = single ? T(-2.12194440e-4) : T(1.90821492927058770002e-10);
    constexpr int mantissa = single ? 23 : 52, bias = single ? 127 : 1023, terms = single ? 7 : 13;
    constexpr T inverse[] = {T(1), T(1), T(1.0 / 2), T(1.0 / 6), T(1.0 / 24), T(1.0 / 120), T(1.0 / 720),
                             T(1.0 / 5040), T(1.0 / 40320), T(1.0 / 362880), T(1.0 / 3628800), T(1.0 / 39916800),
                             T(1.0 / 479001600), T(1.0 / 6227020800)}; // of the factorials
    constexpr I sign = I(1) << (8 * sizeof(T) - 1);
    constexpr I up = single ? 100 : 900; // so far above, 2^k is a normal number for every k
    constexpr T down = single ? T(0x1p-100) : T(0x1p-900);
    x = (V)((W)x | sign);
    x = x < lowest ? V{} + lowest : x;
    const V rounded = x * T(1.44269504088896340736) + shift; // k stands in the last bits of its mantissa
    const V whole = rounded - shift;
    const V r = (x - whole * ln2_high) - whole * ln2_low;
    V sum = V{} + inverse[terms];
#pragma GCC unroll 16
    for (int term = terms - 1; term >= 0; term--) sum = sum * r + inverse[term];
    const W k = (W)rounded - (W)(V{} + shift);
    return sum * (V)((k + (bias + up)) << mantissa) * down;
}

// 1 / (1 + exp(-x)), by exp(-|x|), which cannot overflow.
template <class T, class V> INLINE V sigmoid_of(V x) {
    const V e = exp_of_minus_abs<T, V>(x);
    return (x >= T(0) ? V{} + T(1) : e) / (e + T(1));
}

} // namespace
