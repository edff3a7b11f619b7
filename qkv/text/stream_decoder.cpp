// StreamDecoder: bytes wait until they are whole characters.
#include <utility>

#include "qkv/core/utf8.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special, bool continues)
    : tokenizer_(tokenizer),
      skip_special_(skip_special),
      at_start_(!continues),
      starts_at_start_(!continues) {}

std::string StreamDecoder::push(int32_t id) {
  const JoinRules& join = tokenizer_.join_rules();
  std::string_view bytes = tokenizer_.token_bytes(id);
  if (skip_special_ && tokenizer_.is_special(id)) return {};
  if (join.collapses_repeats && std::exchange(previous_, id) == id) return {};
  if (bytes.empty()) return {};
  if (at_start_ && join.strips_leading_space && bytes.starts_with(' ')) bytes.remove_prefix(1);
  at_start_ = false;
  pending_ += bytes;
  size_t complete = complete_utf8_prefix(pending_);
  // It may be the last one.
  if (join.strips_trailing_space && complete == pending_.size() && pending_.ends_with(' ')) --complete;
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return text;
}

std::string StreamDecoder::finish() {
  if (tokenizer_.join_rules().strips_trailing_space && pending_.ends_with(' ')) pending_.pop_back();
  std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  at_start_ = starts_at_start_;
  previous_.reset();
  return text;
}

}  // namespace qkv
