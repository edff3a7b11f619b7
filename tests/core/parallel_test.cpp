#include "qkv/core/parallel.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "qkv/core/error.h"

namespace {

// How often each index of [0, n) was given to a body.
std::vector<int> visits(int64_t n, int64_t grain) {
  std::vector<int> count(static_cast<size_t>(n));
  qkv::parallel_for(n, grain, [&](int64_t begin, int64_t end) {
    EXPECT_EQ(begin % grain, 0);
    for (int64_t i = begin; i < end; ++i) ++count[static_cast<size_t>(i)];
  });
  return count;
}

class WithThreads {
 public:
  explicit WithThreads(int n) : previous_(qkv::num_threads()) { qkv::set_num_threads(n); }
  ~WithThreads() { qkv::set_num_threads(previous_); }
  WithThreads(const WithThreads&) = delete;
  WithThreads& operator=(const WithThreads&) = delete;

 private:
  int previous_;
};

TEST(Parallel, EveryIndexOnce) {
  for (const int threads : {1, 2, 3, 7}) {
    const WithThreads with(threads);
    for (const int64_t n : {1, 5, 64, 1000}) {
      for (const int64_t grain : {1, 3, 64, 5000}) {
        EXPECT_EQ(visits(n, grain), std::vector<int>(static_cast<size_t>(n), 1)) << threads << " " << n << " " << grain;
      }
    }
  }
}

TEST(Parallel, NothingToDo) {
  qkv::parallel_for(0, 1, [](int64_t, int64_t) { FAIL(); });
  qkv::parallel_for(-3, 1, [](int64_t, int64_t) { FAIL(); });
  qkv::parallel_items(0, [](int64_t, int) { FAIL(); });
}

TEST(Parallel, ItemsOnceEach) {
  const WithThreads with(4);
  std::vector<std::atomic<int>> count(301);
  std::atomic<bool> thread_in_range{true};
  qkv::parallel_items(301, [&](int64_t item, int thread) {
    ++count[static_cast<size_t>(item)];
    if (thread < 0 || thread >= 4) thread_in_range = false;
  });
  EXPECT_TRUE(thread_in_range);
  for (const auto& c : count) EXPECT_EQ(c, 1);
}

TEST(Parallel, ExceptionsReachTheCaller) {
  const WithThreads with(2);
  EXPECT_THROW(qkv::parallel_for(100, 1,
                                 [](int64_t begin, int64_t) {
                                   if (begin > 0) throw qkv::Error("from the second range");
                                 }),
               qkv::Error);
  EXPECT_THROW(qkv::parallel_items(100,
                                   [](int64_t item, int) {
                                     if (item == 50) throw std::runtime_error("item");
                                   }),
               std::runtime_error);
}

TEST(Parallel, NestedCallsRunSerially) {
  const WithThreads with(2);
  std::array<std::atomic<int>, 4> sums{};
  qkv::parallel_for(4, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int sum = 0;  // not atomic: the inner loop must not be parallel
      qkv::parallel_for(1000, 1, [&](int64_t b, int64_t e) { sum += static_cast<int>(e - b); });
      sums[static_cast<size_t>(i)] = sum;
    }
  });
  for (const auto& sum : sums) EXPECT_EQ(sum, 1000);
}

TEST(Parallel, RefusesZeroThreads) { EXPECT_THROW(qkv::set_num_threads(0), qkv::Error); }

// A runtime that gives fewer threads than asked for must not lose work. It reads the limit when the process starts.
TEST(Parallel, FewerThreadsThanAskedFor) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command =
      "OMP_THREAD_LIMIT=2 OMP_NUM_THREADS=7 '" + self + "' --gtest_filter='Parallel.EveryIndexOnce:Parallel.ItemsOnceEach' > /dev/null";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
