// Buffers that each thread allocates once and keeps.
#pragma once

#include <stddef.h>

enum Slot { BLOCKS, PACKED, STAGED, STAGED_LANES, OFFSETS, PARTIAL, SLOTS };

// At least `bytes` bytes, aligned for every vector, the thread's own; aborts if there is no memory.
extern "C" void *scratch_dl_workspace(enum Slot slot, size_t bytes);

template <class T> static inline T *workspace(enum Slot slot, long count) {
    return (T *)scratch_dl_workspace(slot, (size_t)count * sizeof(T));
}
