#include "qkv/core/parallel.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "qkv/core/error.h"

// libgomp's barriers are invisible to the thread sanitizer. Under it, the two functions below tell of a parallel
// region's fork and join, and the functions that hold the regions (whose captured variables pass through libgomp) are
// not instrumented; loop bodies are.
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define QKV_UNINSTRUMENTED __attribute__((no_sanitize("thread"), noinline))
#else
#define QKV_UNINSTRUMENTED
#endif

namespace qkv {
namespace {

inline void happens_before([[maybe_unused]] void* point) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(point);
#endif
}

inline void happens_after([[maybe_unused]] void* point) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(point);
#endif
}

// Keeps the first exception of a parallel region: one must not cross an OpenMP boundary.
class FirstException {
 public:
  void keep() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!first_) first_ = std::current_exception();
  }
  void rethrow() {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

}  // namespace

int num_threads() { return omp_get_max_threads(); }

void set_num_threads(int n) {
  require(n >= 1, "threads: expected at least 1, found {}", n);
  omp_set_num_threads(n);
}

QKV_UNINSTRUMENTED void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t blocks = (n + grain - 1) / grain;
  const int64_t parts = std::min<int64_t>(blocks, num_threads());
  if (parts <= 1 || omp_in_parallel()) {
    body(0, n);
    return;
  }
  FirstException error;
  char fork = 0, join = 0;
  happens_before(&fork);
#pragma omp parallel num_threads(static_cast<int>(parts))
  {
    happens_after(&fork);
    // The runtime may give fewer threads than asked for (OMP_THREAD_LIMIT): then a thread takes several parts.
    for (int64_t part = omp_get_thread_num(); part < parts; part += omp_get_num_threads()) {
      const int64_t begin = std::min(n, blocks * part / parts * grain);
      const int64_t end = std::min(n, blocks * (part + 1) / parts * grain);
      try {
        if (begin < end) body(begin, end);
      } catch (...) {
        error.keep();
      }
    }
    happens_before(&join);
  }
  happens_after(&join);
  error.rethrow();
}

QKV_UNINSTRUMENTED void parallel_items(int64_t n, FunctionRef<void(int64_t, int)> body) {
  if (n <= 0) return;
  const int threads = static_cast<int>(std::min<int64_t>(n, num_threads()));
  if (threads <= 1 || omp_in_parallel()) {
    for (int64_t i = 0; i < n; ++i) body(i, 0);
    return;
  }
  FirstException error;
  std::atomic<int64_t> next{0};
  char fork = 0, join = 0;
  happens_before(&fork);
#pragma omp parallel num_threads(threads)
  {
    happens_after(&fork);
    try {
      for (int64_t i = next++; i < n; i = next++) body(i, omp_get_thread_num());
    } catch (...) {
      error.keep();
      next = n;
    }
    happens_before(&join);
  }
  happens_after(&join);
  error.rethrow();
}

}  // namespace qkv
