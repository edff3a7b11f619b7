// Rewrites text before it is cut into words: the "normalizer" of tokenizer.json.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/text/regex.h"

namespace qkv {

class Normalizer {
 public:
  // No steps: text stays as it is.
  Normalizer() = default;
  // From the JSON of tokenizer.json (null: no steps). Throws Error `<where>: normalizer: ...`.
  Normalizer(const Json& json, const std::string& where);

  bool empty() const { return steps_.empty(); }
  // True if text becomes its spelling in GPT-2's alphabet, which can hold any bytes.
  bool spells_bytes() const { return spells_bytes_; }
  // True only if apply(text) is certain to equal text, which callers use to skip a copy.
  bool leaves_unchanged(std::string_view text) const;
  // `text` must be valid UTF-8; so is the result.
  std::string apply(std::string_view text, Regex::Scratch& scratch) const;

 private:
  using Step = std::function<std::string(std::string_view, Regex::Scratch&)>;
  void add(const Json& json, const std::string& where, int depth);
  std::vector<Step> steps_;
  bool spells_bytes_ = false;
  bool only_nfc_ = true;            // no step but NFC
  bool only_unicode_forms_ = true;  // no step that changes ASCII text
};

}  // namespace qkv
