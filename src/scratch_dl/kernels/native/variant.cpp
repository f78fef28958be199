// Compiled once for each instruction set, with -DVARIANT_AVX512, -DVARIANT_AVX2 or neither.
#include "correlate.h"
#include "elementwise.h"
#include "functions.h"

#define JOIN(a, b) a##b
#define NAMED(variant) JOIN(scratch_dl_, variant)
#define TEXT(word) #word
#define TEXT_OF(word) TEXT(word)

template <class T> static constexpr Functions<T> functions() {
    return {gather<T>, correlate<T>, channel_sums<T>, relu<T>, relu_grad<T>, sigmoid<T>,
            sigmoid_grad<T>, mse<T>, sgd<T>, adam<T>};
}

extern const Variant NAMED(VARIANT);
const Variant NAMED(VARIANT) = {TEXT_OF(VARIANT), functions<float>(), functions<double>(), peak};
