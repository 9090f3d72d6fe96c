#pragma once

#include <cstdint>

#include <c10/util/FunctionRef.h>

namespace gemma {

/// Runs body(task, worker) for each task in [0, count) on LibTorch's threads, at::get_num_threads()
/// of them. Threads take the next tasks as they become free; `worker` tells them apart, below
/// num_workers(). Alone on the caller's thread inside another parallel region.
/// `body` must not throw. Throws as check_threads_alive does.
void parallel_for(int64_t count, c10::function_ref<void(int64_t task, int64_t worker)> body);

/// Throws std::runtime_error in a process that was forked after parallel_for had run on several
/// threads in its parent: the threads do not exist in the child, and GNU's OpenMP would wait for
/// them forever. A child that computes with one thread (at::set_num_threads(1)) is fine.
void check_threads_alive();

/// As many workers as parallel_for may have.
int64_t num_workers();

/// How often parallel_for has given work to several threads in this process, for `gemma bench`:
/// each time costs what it takes to wake them and to wait for the last.
int64_t regions_begun();

}  // namespace gemma
