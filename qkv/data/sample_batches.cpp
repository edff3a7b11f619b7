#include "qkv/data/sample_batches.h"

#include <algorithm>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/rng.h"
#include "qkv/tensor/ops.h"

namespace qkv {

Overlong overlong_from_name(const std::string& name) {
  if (name == "drop") return Overlong::drop;
  if (name == "cut") return Overlong::cut;
  if (name == "error") return Overlong::error;
  fail("data.overlong: expected drop, cut or error, found '{}'", name);
}

bool fit_sample(TokenSample& sample, const std::string& where, int64_t max_tokens, Overlong overlong,
                SampleCounts& counts) {
  const auto length = static_cast<int64_t>(sample.tokens.size());
  counts.longest = std::max(counts.longest, length);
  if (length <= max_tokens) return sample.learned_count() > 0;
  require(overlong != Overlong::error, "{}: expected at most {} tokens, found {}", where, max_tokens, length);
  if (overlong == Overlong::drop) return false;
  sample.tokens.resize(static_cast<size_t>(max_tokens));
  sample.learned.resize(static_cast<size_t>(max_tokens));
  ++counts.cut;
  return sample.learned_count() > 0;
}

SampleCounts limit_samples(std::vector<TokenSample>& samples, std::vector<std::string>& where,
                           int64_t max_tokens, Overlong overlong) {
  SampleCounts counts;
  std::vector<TokenSample> kept;
  std::vector<std::string> kept_where;
  for (size_t i = 0; i < samples.size(); ++i) {
    if (!fit_sample(samples[i], where[i], max_tokens, overlong, counts)) {
      ++counts.dropped;
      continue;
    }
    counts.tokens += static_cast<int64_t>(samples[i].tokens.size());
    counts.learned += samples[i].learned_count();
    kept.push_back(std::move(samples[i]));
    kept_where.push_back(std::move(where[i]));
  }
  samples = std::move(kept);
  where = std::move(kept_where);
  counts.samples = static_cast<int64_t>(samples.size());
  require(counts.learned > 0,
          "data: nothing is left to learn: {} samples are longer than {} tokens or hold no answer",
          counts.dropped, max_tokens);
  return counts;
}

void append_sample(Batch& batch, const TokenSample& sample) {
  const size_t n = sample.tokens.size();
  if (batch.pass.sequences.offsets.empty()) batch.pass.sequences.offsets.push_back(0);
  for (size_t t = 0; t < n; ++t) {
    batch.tokens.push_back(sample.tokens[t]);
    batch.pass.positions.push_back(static_cast<int32_t>(t));
    const bool counted = t + 1 < n && sample.learned[t + 1] != 0;
    batch.targets.push_back(counted ? sample.tokens[t + 1] : ops::kIgnore);
    batch.counted += counted ? 1 : 0;
  }
  batch.pass.sequences.offsets.push_back(static_cast<int64_t>(batch.tokens.size()));
}

std::vector<uint32_t> epoch_order(size_t n, uint64_t seed, int64_t epoch) {
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  Rng rng = Rng(seed, 0x73616d706c6573).split(static_cast<uint64_t>(epoch));
  shuffle(order, rng);
  return order;
}

ItemOrder::ItemOrder(size_t items, uint64_t seed) : items_(items), seed_(seed) {
  require(items_ > 0, "data: expected samples, found none");
}

std::vector<size_t> ItemOrder::next(int64_t count, DataCursor& cursor) {
  std::vector<size_t> which;
  while (static_cast<int64_t>(which.size()) < count) {
    if (cursor.window >= static_cast<int64_t>(items_)) {
      ++cursor.epoch;
      cursor.window = 0;
    }
    if (prepared_epoch_ != cursor.epoch) {
      order_ = epoch_order(items_, seed_, cursor.epoch);
      prepared_epoch_ = cursor.epoch;
    }
    which.push_back(order_[static_cast<size_t>(cursor.window++)]);
  }
  return which;
}

SampleBatches::SampleBatches(std::vector<TokenSample> samples, int64_t batch_tokens, uint64_t seed)
    : samples_(std::move(samples)), batch_tokens_(batch_tokens), seed_(seed) {
  require(!samples_.empty(), "data: expected samples, found none");
}

Batch SampleBatches::next(DataCursor& cursor) {
  Batch batch;
  do {
    if (cursor.window >= static_cast<int64_t>(samples_.size())) {
      if (!batch.tokens.empty()) break;
      ++cursor.epoch;
      cursor.window = 0;
    }
    if (prepared_epoch_ != cursor.epoch) {
      order_ = epoch_order(samples_.size(), seed_, cursor.epoch);
      prepared_epoch_ = cursor.epoch;
    }
    const TokenSample& sample = samples_[order_[static_cast<size_t>(cursor.window)]];
    if (!batch.tokens.empty() &&
        static_cast<int64_t>(batch.tokens.size() + sample.tokens.size()) > batch_tokens_)
      break;
    append_sample(batch, sample);
    ++cursor.window;
  } while (static_cast<int64_t>(batch.tokens.size()) < batch_tokens_);
  return batch;
}

Batch SampleBatches::in_order(size_t begin, size_t& end) const {
  Batch batch;
  for (end = begin; end < samples_.size(); ++end) {
    if (end > begin &&
        static_cast<int64_t>(batch.tokens.size() + samples_[end].tokens.size()) > batch_tokens_)
      break;
    append_sample(batch, samples_[end]);
  }
  return batch;
}

}  // namespace qkv
