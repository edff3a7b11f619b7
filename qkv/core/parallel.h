// Threads. One pool for the process: OpenMP's, which is also oneDNN's, so that nothing is oversubscribed.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

namespace qkv {

// A reference to a callable that outlives the call it is passed to: no allocation, no copy.
template <typename Signature>
class FunctionRef;
template <typename Result, typename... Args>
class FunctionRef<Result(Args...)> {
 public:
  template <typename F, typename = std::enable_if_t<!std::is_same_v<std::decay_t<F>, FunctionRef>>>
  FunctionRef(F&& f)  // NOLINT(google-explicit-constructor): call sites pass lambdas
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* object, Args... args) -> Result {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  Result operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  Result (*call_)(void*, Args...);
};

int num_threads();
// `n` >= 1. Results of a seeded run are the same bits only for the same thread count.
void set_num_threads(int n);

// Splits [0, n) into at most num_threads() contiguous ranges of at least `grain` (rounded to multiples of it) and calls
// body(begin, end) on each, in parallel; the calling thread takes part. The split depends only on n, grain and
// num_threads(). An exception thrown by a body is rethrown here. Nested calls run serially.
void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t begin, int64_t end)> body);

// Calls body(i, thread) for every i in [0, n), handing out items one at a time: for items of unequal cost.
// `thread` is in [0, num_threads()). Which thread gets an item is not deterministic, so an item's result must not
// depend on it.
void parallel_items(int64_t n, FunctionRef<void(int64_t item, int thread)> body);

}  // namespace qkv
