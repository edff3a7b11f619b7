// Batches of token samples: packed one after the other, each a sequence of its own that attends to no other,
// in an order that is a pure function of the seed and the epoch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qkv/data/batches.h"
#include "qkv/data/chat_tokens.h"

namespace qkv {

// What becomes of samples that are longer than the limit.
enum class Overlong { drop, cut, error };
Overlong overlong_from_name(const std::string& name);

struct SampleCounts {
  int64_t samples = 0, tokens = 0, learned = 0, longest = 0;
  int64_t dropped = 0, cut = 0;  // for their length
};

// Cuts a sample if it is longer and that is the choice. Error naming `where` if that is the choice; false if
// it is to be left out: too long, or nothing of it is learned.
bool fit_sample(TokenSample& sample, const std::string& where, int64_t max_tokens, Overlong overlong,
                SampleCounts& counts);

// Applies the limit in place and counts. Error naming the first record that is too long, if so chosen, or
// saying that nothing is left to learn; `where` has one name per sample.
SampleCounts limit_samples(std::vector<TokenSample>& samples, std::vector<std::string>& where,
                           int64_t max_tokens, Overlong overlong);

// Appends a sample as a sequence of its own: a token's target is the next one if that is learned.
void append_sample(Batch& batch, const TokenSample& sample);

// The order of n items in an epoch.
std::vector<uint32_t> epoch_order(size_t n, uint64_t seed, int64_t epoch);

// Takes items by their number, every epoch all of them in another order.
class ItemOrder {
 public:
  // Error if there are none.
  ItemOrder(size_t items, uint64_t seed);
  // The next `count`, across the end of an epoch if need be; `cursor.window` counts items of the epoch.
  std::vector<size_t> next(int64_t count, DataCursor& cursor);

 private:
  size_t items_;
  uint64_t seed_;
  int64_t prepared_epoch_ = -1;
  std::vector<uint32_t> order_;
};

class SampleBatches {
 public:
  // A batch takes samples up to `batch_tokens` together, at least one.
  SampleBatches(std::vector<TokenSample> samples, int64_t batch_tokens, uint64_t seed);
  // `cursor.window` counts samples of the epoch.
  Batch next(DataCursor& cursor);
  // From sample `begin` on, in the order given; sets `end`.
  Batch in_order(size_t begin, size_t& end) const;
  const std::vector<TokenSample>& samples() const { return samples_; }

 private:
  std::vector<TokenSample> samples_;
  int64_t batch_tokens_;
  uint64_t seed_;
  int64_t prepared_epoch_ = -1;
  std::vector<uint32_t> order_;
};

}  // namespace qkv
