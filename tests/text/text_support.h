// What several tests of tokenizers need.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qkv/core/atomic_file.h"
#include "qkv/core/json.h"
#include "qkv/core/rng.h"
#include "qkv/core/utf8.h"
#include "qkv/text/tokenizer.h"
#include "tests/support/test_paths.h"

namespace qkv::test {

using Ids = std::vector<int32_t>;

// Loads the text of a tokenizer.json.
inline std::unique_ptr<Tokenizer> tokenizer_from(const std::string& text) {
  const TemporaryDirectory directory;
  write_file(directory / "tokenizer.json", text);
  return load_tokenizer(directory.path());
}

inline std::string random_bytes(Rng& rng, size_t size) {
  std::string bytes;
  for (size_t i = 0; i < size; ++i) bytes += static_cast<char>(rng.below(256));
  return bytes;
}

// Code points of every size, spaces and letters often enough that words form.
inline std::string random_unicode(Rng& rng, size_t size) {
  std::string text;
  while (text.size() < size) {
    switch (rng.below(6)) {
      case 0:
        text += ' ';
        break;
      case 1:
        text += "\n\t'.,0"[rng.below(6)];
        break;
      case 2:
      case 3:
        text += static_cast<char>('a' + rng.below(26));
        break;
      case 4:
        append_utf8(text, static_cast<char32_t>(0x80 + rng.below(0x3000)));
        break;
      default: {
        const auto c = static_cast<char32_t>(rng.below(0x110000));
        if (c < 0xD800 || c > 0xDFFF) append_utf8(text, c);
      }
    }
  }
  return text;
}

inline std::string streamed(const Tokenizer& tokenizer, const Ids& ids, bool skip_special = true) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = decoder.push(id);
    EXPECT_FALSE(first_invalid_utf8(part)) << "token " << id;
    text += part;
  }
  return text + decoder.finish();
}

}  // namespace qkv::test
