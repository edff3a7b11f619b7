#include "qkv/tensor/ops/row_streams.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <vector>

namespace qkv::ops::detail {
namespace {

// Bytes below which another thread costs more than it reads.
constexpr int64_t kThreadBytes = int64_t{1} << 15;
// Bytes of rows that a thread takes at a time: a microsecond's reading, which is what threads wait for each
// other at the end, and what stays in the first cache for all tokens that the rows meet.
constexpr int64_t kTakenBytes = int64_t{1} << 14;

int64_t boundary(int64_t rows, int64_t unit, int64_t part, int64_t parts) {
  return part == parts ? rows : rows * part / parts / unit * unit;
}

// Rows of about so many bytes, a multiple of unit.
int64_t rows_of(int64_t bytes, int64_t row_bytes, int64_t unit) {
  return std::max(unit, bytes / std::max<int64_t>(1, row_bytes) / unit * unit);
}

// What a thread begins with of one matrix, and how it is cut.
struct Rows {
  int64_t begin, end;
  int64_t taken;  // rows at a time
  int64_t takes() const { return (end - begin + taken - 1) / taken; }
};

// The share of one thread: its rows of every matrix, handed out from the first to the last.
class Share {
 public:
  Share(std::span<const StoredRows> matrices, int64_t unit, int64_t part, int64_t parts) {
    rows_.reserve(matrices.size());
    for (const auto& [rows, bytes] : matrices) {
      rows_.push_back({boundary(rows, unit, part, parts), boundary(rows, unit, part + 1, parts),
                       rows_of(kTakenBytes, bytes, unit)});
      takes_ += rows_.back().takes();
    }
  }

  // Calls run(matrix, first, count) for one part of the share after another until none is left.
  template <typename Run>
  void take_all(Run&& run) {
    size_t m = 0;
    int64_t before = 0;  // takes of the matrices before m
    for (int64_t i = next(); i < takes_; i = next()) {
      while (i - before >= rows_[m].takes()) before += rows_[m++].takes();
      const Rows& rows = rows_[m];
      const int64_t begin = rows.begin + (i - before) * rows.taken;
      run(m, begin, std::min(rows.taken, rows.end - begin));
    }
  }

 private:
  int64_t next() { return next_.fetch_add(1, std::memory_order_relaxed); }

  std::vector<Rows> rows_;
  int64_t takes_ = 0;
  // Alone in its cache line: threads that are not done with their own share leave it alone.
  alignas(64) std::atomic<int64_t> next_{0};
};

}  // namespace

void stream_rows(std::span<const StoredRows> matrices, int64_t unit,
                 FunctionRef<void(size_t, int64_t, int64_t, int)> body) {
  int64_t total = 0;
  for (const StoredRows& matrix : matrices) total += matrix.rows * matrix.row_bytes;
  const int64_t parts = std::clamp<int64_t>(total / kThreadBytes, 1, num_threads());
  std::deque<Share> shares;
  for (int64_t part = 0; part < parts; ++part) shares.emplace_back(matrices, unit, part, parts);
  parallel_for(parts, 1, [&](int64_t part, int64_t) {
    // Its own share, and then what others have not come to.
    for (int64_t i = 0; i < parts; ++i) {
      shares[static_cast<size_t>((part + i) % parts)].take_all(
          [&](size_t m, int64_t first, int64_t count) { body(m, first, count, static_cast<int>(part)); });
    }
  });
}

}  // namespace qkv::ops::detail
