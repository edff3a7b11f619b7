#include "qkv/data/batches.h"

#include <algorithm>
#include <numeric>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/rng.h"

namespace qkv {

PackedWindows::PackedWindows(std::shared_ptr<const TokenFile> file, int64_t length, uint64_t seed)
    : file_(std::move(file)), length_(length), seed_(seed) {
  require(length_ >= 1, "data: sequence length: expected at least 1, found {}", length_);
  require(file_->tokens() >= length_ + 1, "data: expected at least {} tokens for one sequence of {}, found {}", length_ + 1, length_,
          file_->tokens());
}

void PackedWindows::prepare(int64_t epoch) {
  if (prepared_epoch_ == epoch) return;
  // Another offset every epoch, so that windows do not always cut documents at the same places.
  Rng rng = Rng(seed_, 0xDA7A).split(static_cast<uint64_t>(epoch));
  const int64_t usable = file_->tokens() - 1;
  epoch_offset_ = usable < 2 * length_ ? 0 : static_cast<int64_t>(rng.below(static_cast<uint64_t>(length_)));
  order_.resize(static_cast<size_t>((usable - epoch_offset_) / length_));
  std::iota(order_.begin(), order_.end(), 0u);
  shuffle(order_, rng);
  prepared_epoch_ = epoch;
}

void PackedWindows::append(Batch& batch, int64_t start, int64_t length) const {
  if (batch.pass.sequences.offsets.empty()) batch.pass.sequences.offsets = {0};
  int64_t document = file_->document_at(start);
  int64_t position = start;
  while (position < start + length) {
    while (file_->offset(document + 1) <= position) ++document;
    const int64_t document_end = file_->offset(document + 1);
    const int64_t end = std::min(start + length, document_end);
    for (int64_t i = position; i < end; ++i) {
      batch.tokens.push_back(file_->token(i));
      const bool last_of_document = i + 1 == document_end;
      batch.targets.push_back(last_of_document ? ops::kIgnore : file_->token(i + 1));
      batch.counted += last_of_document ? 0 : 1;
      batch.pass.positions.push_back(static_cast<int32_t>(i - position));
    }
    batch.pass.sequences.offsets.push_back(static_cast<int64_t>(batch.tokens.size()));
    position = end;
  }
}

Batch PackedWindows::next(int64_t windows, DataCursor& cursor) {
  Batch batch;
  for (int64_t n = 0; n < windows; ++n) {
    prepare(cursor.epoch);
    if (cursor.window >= static_cast<int64_t>(order_.size())) {
      cursor = {cursor.epoch + 1, 0};
      prepare(cursor.epoch);
    }
    append(batch, epoch_offset_ + int64_t{order_[static_cast<size_t>(cursor.window++)]} * length_, length_);
  }
  return batch;
}

int64_t PackedWindows::windows_in_order() const { return (file_->tokens() + length_ - 1) / length_; }

Batch PackedWindows::in_order(int64_t begin, int64_t count) const {
  Batch batch;
  for (int64_t w = begin; w < std::min(begin + count, windows_in_order()); ++w) {
    append(batch, w * length_, std::min(length_, file_->tokens() - w * length_));
  }
  return batch;
}

void write_batch_trace(const std::string& path, const std::vector<Batch>& steps, int64_t windows_per_step, int64_t length, int64_t vocabulary) {
  AtomicFile file(path);
  const auto put = [&](const std::vector<int32_t>& words) { file.write(std::as_bytes(std::span(words))); };
  put({0x51424154, 1, static_cast<int32_t>(steps.size()), static_cast<int32_t>(windows_per_step), static_cast<int32_t>(length),
       static_cast<int32_t>(vocabulary), 0, 0});
  for (const Batch& batch : steps) {
    put(batch.tokens);
    put(batch.targets);
    const auto& offsets = batch.pass.sequences.offsets;
    put({static_cast<int32_t>(offsets.size() - 1)});
    put(std::vector<int32_t>(offsets.begin(), offsets.end()));
  }
  file.commit();
}

}  // namespace qkv
