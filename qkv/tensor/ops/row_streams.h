// How the rows of one or several matrices that lie in memory are read once, at the rate of the memory: by all threads, each
// from the beginning of its share on, so that both the hardware and the kernels know what to fetch next. Who is done first
// helps the others with theirs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "qkv/core/parallel.h"

namespace qkv::ops::detail {

struct StoredRows {
  int64_t rows;
  int64_t row_bytes;
};

// Calls body(matrix, first, count, part) for disjoint ranges of rows that cover every matrix, in parallel. Threads begin with
// equal shares of every matrix, in ranges that begin at multiples of `unit` rows; `part`, in [0, num_threads()), is the thread
// that a call runs on. `body` must do with a row what it does whichever range the row comes in.
void stream_rows(std::span<const StoredRows> matrices, int64_t unit,
                 FunctionRef<void(size_t matrix, int64_t first, int64_t count, int part)> body);

}  // namespace qkv::ops::detail
