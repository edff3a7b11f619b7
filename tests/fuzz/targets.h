// What fuzz targets share.
#pragma once

#include <string_view>

#include "qkv/core/error.h"
#include "qkv/text/tokenizer.h"

namespace qkv::fuzz {

// Being refused with Error is fine; everything else is not.
template <typename Action>
void attempt(Action&& action) {
  try {
    action();
  } catch (const Error&) {
  }
}

// Any text goes through a tokenizer and back, at once and token by token.
inline void use(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text.substr(0, 256));
  tokenizer.decode(ids);
  StreamDecoder decoder(tokenizer);
  for (const int32_t id : ids) decoder.push(id);
  decoder.finish();
}

}  // namespace qkv::fuzz
