// StreamDecoder: bytes wait until they are whole characters.
#include "qkv/core/utf8.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special, bool continues)
    : tokenizer_(tokenizer),
      skip_special_(skip_special),
      at_start_(!continues),
      starts_at_start_(!continues) {}

std::string StreamDecoder::push(int32_t id) {
  std::string_view bytes = tokenizer_.token_bytes(id);
  if (bytes.empty() || (skip_special_ && tokenizer_.is_special(id))) return {};
  if (at_start_ && tokenizer_.strips_leading_space() && bytes.starts_with(' ')) bytes.remove_prefix(1);
  at_start_ = false;
  pending_ += bytes;
  const size_t complete = complete_utf8_prefix(pending_);
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  at_start_ = starts_at_start_;
  return text;
}

}  // namespace qkv
