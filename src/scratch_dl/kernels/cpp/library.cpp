// The library's plain C interface: chooses the widest instruction set of this processor, and hands out workspaces.
#include <stdlib.h>
#include <string.h>

#include "functions.h"
#include "workspace.h"

extern const Variant scratch_dl_portable;
#ifdef SCRATCH_DL_X86
extern const Variant scratch_dl_avx2, scratch_dl_avx512;
#endif

namespace {

struct Buffers {
    void *memory[SLOTS] = {};
    size_t bytes[SLOTS] = {};
    ~Buffers() {
        for (void *each : memory) free(each);
    }
};
thread_local Buffers buffers;

const Variant *variant(const char *name) {
#ifdef SCRATCH_DL_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    if (avx512 && (!name || !strcmp(name, "avx512"))) return &scratch_dl_avx512;
    if (avx2 && (!name || !strcmp(name, "avx2"))) return &scratch_dl_avx2;
#endif
    return !name || !strcmp(name, "portable") ? &scratch_dl_portable : nullptr;
}

const Variant *current = variant(nullptr);

} // namespace

extern "C" {

void *scratch_dl_workspace(enum Slot slot, size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    const bool fits = false; // exact and new each time, so that a number too far is seen
#else
    const bool fits = bytes <= buffers.bytes[slot];
#endif
    if (!fits) {
        free(buffers.memory[slot]);
        buffers.bytes[slot] = (bytes + 63) / 64 * 64;
        buffers.memory[slot] = aligned_alloc(64, buffers.bytes[slot] ? buffers.bytes[slot] : 64);
        if (!buffers.memory[slot]) abort();
    }
    return buffers.memory[slot];
}

// The full name of an instruction set (of null: the widest); null if this processor lacks it.
const char *scratch_dl_offers(const char *name) {
    const Variant *found = variant(name);
    return found ? found->name : nullptr;
}

// Use an instruction set that is offered.
void scratch_dl_choose(const char *name) { current = variant(name); }

// Which sources this was built from, as `sources_digest` counts them.
const char *scratch_dl_sources(void) { return SCRATCH_DL_SOURCES; }

double scratch_dl_peak(i64 rounds, int threads) { return current->peak(rounds, threads); }

#define INTERFACE(T, member, suffix)                                                                                   \
    int scratch_dl_gather_##suffix(const Gather *plan, const T *input, const Strides *strides, const T *weight,        \
                                   const T *bias, const T *mask, int activation, T *out, int threads) {                \
        return current->member.gather(*plan, input, *strides, weight, bias, mask, activation, out, threads);           \
    }                                                                                                                  \
    int scratch_dl_correlate_##suffix(const Correlate *plan, const T *wide, const Strides *ws, const T *lanes,         \
                                      const Strides *ls, T *grad, int threads) {                                       \
        return current->member.correlate(*plan, wide, *ws, lanes, *ls, grad, threads);                                 \
    }                                                                                                                  \
    void scratch_dl_channel_sums_##suffix(const T *grad, i64 pixels, i64 channels, T *sum, int threads) {              \
        double *partial = (double *)scratch_dl_workspace(PACKED, (size_t)(threads * channels) * sizeof(double));       \
        current->member.channel_sums(grad, pixels, channels, partial, sum, threads);                                   \
    }                                                                                                                  \
    void scratch_dl_relu_##suffix(const T *input, T *out, i64 count, int threads) {                                    \
        current->member.relu(input, out, count, threads);                                                              \
    }                                                                                                                  \
    void scratch_dl_relu_grad_##suffix(const T *output, const T *grad, T *out, i64 count, int threads) {               \
        current->member.relu_grad(output, grad, out, count, threads);                                                  \
    }                                                                                                                  \
    void scratch_dl_sigmoid_##suffix(const T *input, T *out, i64 count, int threads) {                                 \
        current->member.sigmoid(input, out, count, threads);                                                           \
    }                                                                                                                  \
    void scratch_dl_sigmoid_grad_##suffix(const T *output, const T *grad, T *out, i64 count, int threads) {            \
        current->member.sigmoid_grad(output, grad, out, count, threads);                                               \
    }                                                                                                                  \
    void scratch_dl_squared_error_##suffix(const T *input, const T *target, const Strides *s, i64 n, i64 c, i64 h,     \
                                           i64 w, double factor, double scale, T *loss, T *grad, int threads) {        \
        current->member.squared_error(input, target, *s, n, c, h, w, factor, (T)scale, loss, grad, threads);           \
    }                                                                                                                  \
    void scratch_dl_sgd_##suffix(i64 tensors, T *const *values, const T *const *grads, T *const *velocities,           \
                                 const i64 *counts, double lr, double momentum, int nesterov, int threads) {           \
        for (i64 k = 0; k < tensors; k++)                                                                              \
            current->member.sgd(values[k], grads[k], velocities ? velocities[k] : nullptr, counts[k], (T)lr,           \
                                (T)momentum, nesterov, threads);                                                       \
    }                                                                                                                  \
    void scratch_dl_adam_##suffix(i64 tensors, T *const *values, const T *const *grads, T *const *means,               \
                                  T *const *squares, const i64 *counts, double step, double root, double b1,           \
                                  double b2, double eps, int threads) {                                                \
        for (i64 k = 0; k < tensors; k++)                                                                              \
            current->member.adam(values[k], grads[k], means[k], squares[k], counts[k], (T)step, (T)root, b1, b2,       \
                                 (T)eps, threads);                                                                    \
    }

INTERFACE(float, single, f32)
INTERFACE(double, exact, f64)

} // extern "C"
