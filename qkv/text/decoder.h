// From token spellings to what they add to a running text: the "decoder" of tokenizer.json.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"

namespace qkv {

// Every token contributes bytes of its own and a decoded text is their concatenation, but for one thing: the
// space that an encoder put in front may be dropped (strips_leading_space).
class Decoder {
 public:
  // No decoder: tokens are joined by spaces, as Hugging Face does.
  Decoder();
  // From the JSON of tokenizer.json. `byte_level` says how the vocabulary's words are spelled, for decoders
  // that leave it open. Throws Error `<where>: decoder: ...`.
  Decoder(const Json& json, const std::string& where);

  // What a token of the model's vocabulary adds in the middle of a text.
  std::string piece(std::string_view spelling) const;
  // What an added token adds: its content as it is, but for decoders that set words apart by spaces.
  std::string added_piece(std::string_view content) const { return word_separator_ + std::string(content); }
  bool strips_leading_space() const { return strips_leading_space_; }

 private:
  using Step = std::function<std::string(std::string)>;
  void add(const Json& json, const std::string& where, int depth);
  std::vector<Step> steps_;
  std::string word_separator_;
  bool strips_leading_space_ = false;
};

}  // namespace qkv
