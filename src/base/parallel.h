#pragma once

#include <cstddef>

#include "base/function_ref.h"

namespace mneme {

/// Number of workers that parallel loops use; at first the number of cores the process may run on.
int n_threads();

/// Sets the number of workers (>= 1), of libraries too. Call it before the work starts, not from inside a parallel loop.
void set_n_threads(int n);

/// Runs work(begin, end) over a static partition of [0, n) into at most n_threads() contiguous ranges, at least `grain`
/// items each. The partition depends only on n, grain and n_threads(), so results are reproducible. Called from inside a
/// parallel loop it runs on the calling thread. `work` must not throw.
void parallel_for(size_t n, size_t grain, FunctionRef<void(size_t begin, size_t end)> work);

/// Runs work(item) for every item in [0, n); idle workers take the next item, so order and assignment vary.
/// For items of unequal cost whose results do not depend on the order. `work` must not throw.
void parallel_dynamic(size_t n, FunctionRef<void(size_t item)> work);

/// Runs work(worker, n_workers) once on each of n_threads() workers at the same time. `work` must not throw.
void parallel_workers(FunctionRef<void(int worker, int n_workers)> work);

}  // namespace mneme
