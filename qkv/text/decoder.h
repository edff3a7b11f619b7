// From token spellings to what they add to a running text: the "decoder" of tokenizer.json.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/text/join_rules.h"

namespace qkv {

// Every token contributes bytes of its own and a decoded text is their concatenation, but for the JoinRules.
class PieceDecoder {
 public:
  // No decoder: tokens are joined by spaces, as Hugging Face does.
  PieceDecoder();
  // From the JSON of tokenizer.json. Throws Error `<where>: decoder: ...`.
  PieceDecoder(const Json& json, const std::string& where);

  // What a token of the model's vocabulary adds in the middle of a text.
  std::string piece(std::string_view spelling) const;
  // What an added token adds: its content as it is, but for decoders that set words apart by spaces.
  std::string added_piece(std::string_view content) const;
  const JoinRules& join() const { return join_; }
  // True if it is nothing but GPT-2's alphabet undone.
  bool spells_bytes() const { return spells_bytes_; }

 private:
  using Step = std::function<std::string(std::string)>;
  void add(const Json& json, const std::string& where, int depth);
  void add_strip(const JsonView& view, const std::string& where);
  std::vector<Step> steps_;
  std::string word_separator_;
  std::string padding_;  // an added token that spells nothing (CTC)
  JoinRules join_;
  bool spells_bytes_ = false;
  bool fused_ = false;  // steps that follow see the whole text
};

}  // namespace qkv
