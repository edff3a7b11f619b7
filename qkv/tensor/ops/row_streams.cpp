#include "qkv/tensor/ops/row_streams.h"

#include <algorithm>

namespace qkv::ops::detail {
namespace {

// Bytes below which another thread costs more than it reads.
constexpr int64_t kThreadBytes = int64_t{1} << 15;
// Bytes of rows in one call of the body: they stay in the first cache for all tokens they meet.
constexpr int64_t kPieceBytes = 4096;

int64_t boundary(int64_t rows, int64_t unit, int64_t part, int64_t parts) {
  return part == parts ? rows : rows * part / parts / unit * unit;
}

}  // namespace

void stream_rows(std::span<const StoredRows> matrices, int64_t unit,
                 FunctionRef<void(size_t, int64_t, int64_t, int)> body) {
  int64_t total = 0;
  for (const StoredRows& matrix : matrices) total += matrix.rows * matrix.row_bytes;
  const int64_t parts = std::clamp<int64_t>(total / kThreadBytes, 1, num_threads());
  parallel_for(parts, 1, [&](int64_t part_begin, int64_t part_end) {
    for (size_t m = 0; m < matrices.size(); ++m) {
      const auto [rows, row_bytes] = matrices[m];
      const int64_t begin = boundary(rows, unit, part_begin, parts),
                    end = boundary(rows, unit, part_end, parts);
      const int64_t piece = std::max(unit, kPieceBytes / std::max<int64_t>(1, row_bytes) / unit * unit);
      for (int64_t first = begin; first < end; first += piece) {
        body(m, first, std::min(piece, end - first), static_cast<int>(part_begin));
      }
    }
  });
}

}  // namespace qkv::ops::detail
