// Packed training batches from token files: windows of the token stream, in an order that is a pure function of the seed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "qkv/data/token_file.h"
#include "qkv/nn/pass.h"

namespace qkv {

// T tokens with the target of each; sequences in `pass` never cross a document's end.
struct Batch {
  std::vector<int32_t> tokens;   // (T)
  std::vector<int32_t> targets;  // (T): the next token, ops::kIgnore after a document's last
  Pass pass;
  int64_t counted = 0;  // targets that are not ignored
};

// Where a stream of batches stands: all there is to save for an exact resume.
struct DataCursor {
  int64_t epoch = 0;
  int64_t window = 0;  // windows used of this epoch
};

class PackedWindows {
 public:
  // Windows of `length` tokens over the whole stream of `file`. Error if it holds none.
  PackedWindows(std::shared_ptr<const TokenFile> file, int64_t length, uint64_t seed);

  // The next `windows` windows as one packed batch, advancing the cursor; a new epoch has another offset and order.
  Batch next(int64_t windows, DataCursor& cursor);
  // Windows [begin, begin + count) in file order, for evaluation.
  Batch in_order(int64_t begin, int64_t count) const;
  int64_t windows_in_order() const;
  int64_t length() const { return length_; }
  const TokenFile& file() const { return *file_; }

 private:
  void prepare(int64_t epoch);
  void append(Batch& batch, int64_t start, int64_t length) const;

  std::shared_ptr<const TokenFile> file_;
  int64_t length_;
  uint64_t seed_;
  int64_t prepared_epoch_ = -1;
  int64_t epoch_offset_ = 0;
  std::vector<uint32_t> order_;
};

// Batches as a binary file that other programs can train on in the same order. Little-endian int32: magic 0x51424154, version
// 1, steps, windows per step, window length, vocabulary, 0, 0; then per step the tokens, the targets, the number of
// sequences n and n + 1 offsets.
void write_batch_trace(const std::string& path, const std::vector<Batch>& steps, int64_t windows_per_step, int64_t length, int64_t vocabulary);

}  // namespace qkv
