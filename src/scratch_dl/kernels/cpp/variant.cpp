// Compiled once for each instruction set, with -DVARIANT_AVX512, -DVARIANT_AVX2 or neither.
#include "correlate.h"
#include "elementwise.h"
#include "functions.h"
#include "planar.h"

#define JOIN(a, b) a##b
#define NAMED(variant) JOIN(scratch_dl_, variant)
#define TEXT(word) #word
#define TEXT_OF(word) TEXT(word)

template <class T>
static int gather_either(const Gather &plan, const T *input, Strides s, const T *weight, const T *bias, const T *mask,
                         int activation, T *out, int threads) {
    if (plan.n == 0 || plan.grid_h <= 0 || plan.grid_w <= 0) return 0;
    return (plan.planar ? gather_planar<T> : gather<T>)(plan, input, s, weight, bias, mask, activation, out, threads);
}

template <class T> static constexpr Functions<T> functions() {
    return {gather_either<T>, correlate<T>, channel_sums<T>, relu<T>, relu_grad<T>, sigmoid<T>,
            sigmoid_grad<T>, squared_error<T>, sgd<T>, adam<T>};
}

extern const Variant NAMED(VARIANT);
const Variant NAMED(VARIANT) = {TEXT_OF(VARIANT), functions<float>(), functions<double>(), peak};
