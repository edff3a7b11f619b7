#include "qkv/tensor/ops/row_streams.h"

#include <algorithm>
#include <atomic>
#include <deque>

namespace qkv::ops::detail {
namespace {

// Bytes below which another thread costs more than it reads.
constexpr int64_t kThreadBytes = int64_t{1} << 15;
// Bytes of rows in one call of the body: they stay in the first cache for all tokens they meet.
constexpr int64_t kPieceBytes = 4096;
// Bytes of rows that a thread takes at a time: a microsecond's reading, which is what threads wait for each
// other at the end.
constexpr int64_t kTakenBytes = int64_t{1} << 14;

int64_t boundary(int64_t rows, int64_t unit, int64_t part, int64_t parts) {
  return part == parts ? rows : rows * part / parts / unit * unit;
}

// Rows of about so many bytes, a multiple of unit.
int64_t rows_of(int64_t bytes, int64_t row_bytes, int64_t unit) {
  return std::max(unit, bytes / std::max<int64_t>(1, row_bytes) / unit * unit);
}

struct Range {
  int64_t begin, end;
};

// The share of one thread: its rows of every matrix, handed out from the first to the last.
class Share {
 public:
  Share(std::span<const StoredRows> matrices, int64_t unit, int64_t part, int64_t parts)
      : matrices_(matrices), unit_(unit), part_(part), parts_(parts) {}

  // Calls run(matrix, begin, end) for pieces of the share until none are left.
  template <typename Run>
  void take_all(Run&& run) {
    for (int64_t i = next_.fetch_add(1, std::memory_order_relaxed);;
         i = next_.fetch_add(1, std::memory_order_relaxed)) {
      size_t m = 0;
      for (; m < matrices_.size(); ++m) {
        const Range range = rows(m);
        const int64_t step = rows_of(kTakenBytes, matrices_[m].row_bytes, unit_);
        const int64_t count = (range.end - range.begin + step - 1) / step;
        if (i < count) {
          run(m, range.begin + i * step, std::min(range.end, range.begin + (i + 1) * step));
          break;
        }
        i -= count;
      }
      if (m == matrices_.size()) return;
    }
  }

 private:
  Range rows(size_t m) const {
    return {boundary(matrices_[m].rows, unit_, part_, parts_),
            boundary(matrices_[m].rows, unit_, part_ + 1, parts_)};
  }

  std::span<const StoredRows> matrices_;
  int64_t unit_, part_, parts_;
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
      shares[static_cast<size_t>((part + i) % parts)].take_all([&](size_t m, int64_t begin, int64_t end) {
        const int64_t piece = rows_of(kPieceBytes, matrices[m].row_bytes, unit);
        for (int64_t first = begin; first < end; first += piece) {
          body(m, first, std::min(piece, end - first), static_cast<int>(part));
        }
      });
    }
  });
}

}  // namespace qkv::ops::detail
