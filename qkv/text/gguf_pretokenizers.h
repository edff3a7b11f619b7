// The pre-tokenizers that GGUF files name (`tokenizer.ggml.pre`): how each cuts a text into words before BPE.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"

namespace qkv {

struct GgufPretokenizer {
  std::vector<std::string_view> names;  // the first is the one to write
  // Applied one after another, as the models' own tokenizer.json spells them: matches and what lies between
  // them become words.
  std::vector<std::string_view> patterns;
  bool ignore_merges = false;  // a word that is a token is that token
  bool add_bos = false;        // where tokenizer.ggml.add_bos_token does not say
  bool normalizes_nfc = false;
  bool marks_spaces =
      false;  // words are characters with "▁" for spaces and byte tokens, not GPT-2's alphabet
};

const std::vector<GgufPretokenizer>& gguf_pretokenizers();
// Null if there is none of that name.
const GgufPretokenizer* find_gguf_pretokenizer(std::string_view name);
// All names, for error sentences.
std::vector<std::string> gguf_pretokenizer_names();

// The pre_tokenizer of tokenizer.json that does the same.
Json pretokenizer_json(const GgufPretokenizer& pretokenizer);
// The patterns that a byte-level pre_tokenizer of tokenizer.json applies, spelled as in the table; nullopt if
// it does something else as well.
std::optional<std::vector<std::string>> pretokenizer_patterns(const Json& json);

}  // namespace qkv
