#include "base/parallel.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

namespace mneme {
namespace {

int cores_of_process() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::atomic<int> g_threads{cores_of_process()};
thread_local bool t_inside = false;

/// Marks the current thread as a worker for the length of a scope, so that nested loops stay serial.
struct InsideScope {
  bool before = std::exchange(t_inside, true);
  ~InsideScope() { t_inside = before; }
};

}  // namespace

int n_threads() { return g_threads.load(std::memory_order_relaxed); }

void set_n_threads(int n) {
  g_threads.store(std::max(1, n), std::memory_order_relaxed);
#ifdef _OPENMP
  omp_set_num_threads(std::max(1, n));  // for oneDNN, which asks OpenMP itself
#endif
}

#ifdef MNEME_STD_THREADS  // thread sanitizer builds: see cmake/MnemeOptions.cmake

void parallel_workers(FunctionRef<void(int, int)> work) {
  const int n = t_inside ? 1 : n_threads();
  std::vector<std::thread> threads;
  for (int worker = 1; worker < n; ++worker) {
    threads.emplace_back([&, worker] {
      const InsideScope inside;
      work(worker, n);
    });
  }
  {
    const InsideScope inside;
    work(0, n);
  }
  for (std::thread& thread : threads) thread.join();
}

#else

void parallel_workers(FunctionRef<void(int, int)> work) {
  const int n = t_inside ? 1 : n_threads();
  if (n == 1) {
    const InsideScope inside;
    work(0, 1);
    return;
  }
#pragma omp parallel for num_threads(n) schedule(static, 1)
  for (int worker = 0; worker < n; ++worker) {
    const InsideScope inside;
    work(worker, n);
  }
}

#endif

void parallel_for(size_t n, size_t grain, FunctionRef<void(size_t, size_t)> work) {
  if (n == 0) return;
  const size_t most = std::max<size_t>(1, n / std::max<size_t>(1, grain));
  const size_t parts = std::min<size_t>(most, static_cast<size_t>(n_threads()));
  if (parts == 1 || t_inside) {
    work(0, n);
    return;
  }
  parallel_workers([&](int worker, int n_workers) {
    for (size_t part = static_cast<size_t>(worker); part < parts; part += static_cast<size_t>(n_workers)) {
      work(n * part / parts, n * (part + 1) / parts);
    }
  });
}

void parallel_dynamic(size_t n, FunctionRef<void(size_t)> work) {
  if (n == 0) return;
  std::atomic<size_t> next{0};
  const auto drain = [&] {
    for (size_t item = next.fetch_add(1); item < n; item = next.fetch_add(1)) work(item);
  };
  if (n == 1 || t_inside) {
    drain();
    return;
  }
  parallel_workers([&](int, int) { drain(); });
}

}  // namespace mneme
