#pragma once

#include <cstdint>

#include <c10/util/FunctionRef.h>

namespace gemma {

/// Runs body(task, worker) for each task in [0, count) on LibTorch's threads, at::get_num_threads()
/// of them. Threads take the next tasks as they become free; `worker` tells them apart, below
/// num_workers(). Alone on the caller's thread inside another parallel region.
/// `body` must not throw.
void parallel_for(int64_t count, c10::function_ref<void(int64_t task, int64_t worker)> body);

/// As many workers as parallel_for may have.
int64_t num_workers();

}  // namespace gemma
