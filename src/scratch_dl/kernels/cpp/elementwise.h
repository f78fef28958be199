// What is done number by number: activations, the squared error, the optimizers' updates. The compiler makes vectors of
// the plain loops.
#pragma once

#include "gather.h"

namespace {

enum { SERIAL = 1 << 15, ROW = 1 << 12 }; // fewer numbers than SERIAL are done by one thread

// function(begin, end) over all of [0, count), in one part a thread.
template <class F> INLINE void in_parts(i64 count, int threads, F function) {
    if (count < SERIAL || threads == 1) return function(i64(0), count);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int part = 0; part < threads; part++) function(count * part / threads, count * (part + 1) / threads);
}

template <class T> void relu(const T *__restrict input, T *__restrict out, i64 count, int threads) {
    in_parts(count, threads, [=](i64 begin, i64 end) {
        for (i64 i = begin; i < end; i++) out[i] = input[i] < T(0) ? T(0) : input[i];
    });
}

template <class T>
void relu_grad(const T *__restrict output, const T *__restrict grad, T *__restrict out, i64 count, int threads) {
    in_parts(count, threads, [=](i64 begin, i64 end) {
        for (i64 i = begin; i < end; i++) out[i] = output[i] <= T(0) ? T(0) : grad[i];
    });
}

template <class T> void sigmoid(const T *input, T *out, i64 count, int threads) {
    typedef typename Vector<T, BYTES>::type Vec;
    constexpr i64 W = Vector<T, BYTES>::length;
    in_parts(count, threads, [=](i64 begin, i64 end) {
        i64 i = begin;
        for (; i + 2 * W <= end; i += 2 * W) { // two at a time: each is one long chain of dependent operations
            const Vec a = sigmoid_of<T, Vec>(load<Vec>(input + i)), b = sigmoid_of<T, Vec>(load<Vec>(input + i + W));
            store(out + i, a), store(out + i + W, b);
        }
        for (; i + W <= end; i += W) store(out + i, sigmoid_of<T, Vec>(load<Vec>(input + i)));
        if (i == end) return;
        T rest[W] = {};
        memcpy(rest, input + i, (end - i) * sizeof(T));
        store(rest, sigmoid_of<T, Vec>(load<Vec>(rest)));
        memcpy(out + i, rest, (end - i) * sizeof(T));
    });
}

template <class T>
void sigmoid_grad(const T *__restrict output, const T *__restrict grad, T *__restrict out, i64 count, int threads) {
    in_parts(count, threads, [=](i64 begin, i64 end) {
        for (i64 i = begin; i < end; i++) out[i] = grad[i] * (output[i] * (T(1) - output[i]));
    });
}

// Sum of squares of input - target; grad = scale * (input - target).
template <class T> double squares(const T *input, const T *target, T scale, T *grad, i64 count) {
    typedef typename Vector<T, BYTES>::type Vec;
    constexpr i64 W = Vector<T, BYTES>::length;
    Vec total = Vec{}, other = Vec{};
    i64 i = 0;
    for (; i + 2 * W <= count; i += 2 * W) {
        const Vec a = load<Vec>(input + i) - load<Vec>(target + i);
        const Vec b = load<Vec>(input + i + W) - load<Vec>(target + i + W);
        total += a * a, other += b * b;
        store(grad + i, a * scale), store(grad + i + W, b * scale);
    }
    double sum = 0;
    total += other;
    for (i64 k = 0; k < W; k++) sum += (double)total[k];
    for (; i < count; i++) {
        const T error = input[i] - target[i];
        sum += (double)(error * error);
        grad[i] = error * scale;
    }
    return sum;
}

// loss = factor * the squared error of images: input and grad channels last and contiguous, the target as it lies.
template <class T>
void squared_error(const T *input, const T *target, Strides s, i64 n, i64 c, i64 h, i64 w, double factor, T scale,
                   T *loss, T *grad, int threads) {
    const bool alike = s.c == 1 && s.w == c;
    i64 rows = n * h, width = w * c;
    const i64 count = rows * width;
    const bool line = alike && s.h == width && s.n == h * width; // all numbers lie side by side
    if (line) {
        width = ROW;
        rows = above(count, width);
    }
    double *partial = workspace<double>(PARTIAL, rows);
    if (count < SERIAL) threads = 1;
#pragma omp parallel num_threads(threads)
    {
        T *staged = alike ? nullptr : workspace<T>(STAGED, width);
#pragma omp for schedule(static)
        for (i64 row = 0; row < rows; row++) {
            const T *from = target + (line ? row * width : row / h * s.n + row % h * s.h);
            if (!alike) {
                copy_pixels(from, s.c, s.w, c, w, staged, c);
                from = staged;
            }
            const i64 begin = row * width;
            partial[row] = squares(input + begin, from, scale, grad + begin, least(width, count - begin));
        }
    }
    double sum = 0;
    for (i64 row = 0; row < rows; row++) sum += partial[row];
    *loss = (T)(factor * sum);
}

// One tensor's update by stochastic gradient descent; velocity may be null.
template <class T>
void sgd(T *__restrict value, const T *__restrict grad, T *__restrict velocity, i64 count, T lr, T momentum,
         int nesterov, int threads) {
    in_parts(count, threads, [=](i64 begin, i64 end) {
        if (!velocity) {
            for (i64 i = begin; i < end; i++) value[i] -= lr * grad[i];
        } else if (nesterov) {
            for (i64 i = begin; i < end; i++) {
                velocity[i] = momentum * velocity[i] + grad[i];
                value[i] -= lr * (grad[i] + momentum * velocity[i]);
            }
        } else {
            for (i64 i = begin; i < end; i++) {
                velocity[i] = momentum * velocity[i] + grad[i];
                value[i] -= lr * velocity[i];
            }
        }
    });
}

// One tensor's update by Adam; step = lr / (1 - b1^t), root = 1 / sqrt(1 - b2^t). 1 - b is taken before it is rounded.
template <class T>
void adam(T *__restrict value, const T *__restrict grad, T *__restrict mean, T *__restrict square, i64 count, T step,
          T root, double beta1, double beta2, T eps, int threads) {
    const T b1 = (T)beta1, b2 = (T)beta2, rest1 = (T)(1 - beta1), rest2 = (T)(1 - beta2);
    in_parts(count, threads, [=](i64 begin, i64 end) {
        for (i64 i = begin; i < end; i++) {
            mean[i] = b1 * mean[i] + rest1 * grad[i];
            square[i] = b2 * square[i] + rest2 * grad[i] * grad[i];
            value[i] -= step * mean[i] / ((T)__builtin_sqrt(square[i]) * root + eps);
        }
    });
}

// Billions of multiply-adds a second, twice counted, that one thread can do: independent chains in registers.
double peak(i64 rounds, int threads) {
    typedef Vector<float, BYTES>::type Vec;
    float kept = 0;
#pragma omp parallel num_threads(threads) reduction(+ : kept)
    {
        const Vec m = Vec{} + 0.999f, s = Vec{} + 0.001f;
        Vec a = m, b = m + 1, c = m + 2, d = m + 3, e = m + 4, f = m + 5, g = m + 6, h = m + 7, x = m + 8, y = m + 9;
        for (i64 i = 0; i < rounds; i++) {
            a = a * m + s, b = b * m + s, c = c * m + s, d = d * m + s, e = e * m + s;
            f = f * m + s, g = g * m + s, h = h * m + s, x = x * m + s, y = y * m + s;
            asm volatile("" : "+m"(kept)); // or the compiler might leave out the loop
        }
        const Vec all = a + b + c + d + e + f + g + h + x + y;
        kept += all[0];
    }
    return 2.0 * 10 * (BYTES / sizeof(float)) * (double)rounds * threads + (kept == 0.5f ? 1 : 0);
}

} // namespace
