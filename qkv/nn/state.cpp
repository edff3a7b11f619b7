#include "qkv/nn/state.h"

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/tensor/cached_attention.h"

namespace qkv {

void check(const CacheOptions& options) {
  check(CacheLayout{1, 1, 1, options.k_type, options.v_type, options.page_tokens});
  require(options.window >= 0 && options.sinks >= 0 && (options.window > 0 || options.sinks == 0),
          "cache: expected a window of tokens and as many sinks as wanted, found a window of {} and {} sinks",
          options.window, options.sinks);
}

uint64_t SequenceState::bytes() const {
  uint64_t total = 0;
  for (const auto& layer : layers) total += layer->bytes();
  return total;
}

bool SequenceState::can_truncate() const {
  return std::all_of(layers.begin(), layers.end(), [](const auto& layer) { return layer->can_truncate(); });
}

void SequenceState::reserve(int64_t tokens) {
  try {
    for (auto& layer : layers) layer->reserve(tokens);
  } catch (const CacheFull&) {
    for (auto& layer : layers) layer->truncate(length);
    throw;
  }
}

void SequenceState::truncate(int64_t new_length) {
  for (auto& layer : layers) layer->truncate(new_length);
  length = new_length;
}

SequenceState SequenceState::fork(int64_t new_length) const {
  SequenceState other;
  for (const auto& layer : layers) other.layers.push_back(layer->fork(new_length));
  other.length = new_length;
  return other;
}

void SequenceState::write(ByteSink sink) const {
  sink(std::as_bytes(std::span(&length, 1)));
  for (const auto& layer : layers) layer->write(sink);
}

void SequenceState::read(ByteSource source, int64_t most_tokens) {
  int64_t tokens = 0;
  source(std::as_writable_bytes(std::span(&tokens, 1)));
  require(0 <= tokens && tokens <= most_tokens, "state: expected at most {} tokens, found {}", most_tokens, tokens);
  for (auto& layer : layers) layer->read(source, tokens);
  length = tokens;
}

}  // namespace qkv
