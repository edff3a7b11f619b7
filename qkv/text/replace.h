// Replacing every occurrence of a string or of a pattern.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "qkv/core/json.h"
#include "qkv/text/regex.h"

namespace qkv {

// `wanted` is not empty.
std::string replace_all(std::string_view text, std::string_view wanted, std::string_view content);
std::string replace_matches(std::string_view text, const Regex& regex, std::string_view content,
                            Regex::Scratch& scratch);

// The step "Replace" of a tokenizer.json's normalizer or decoder.
class ReplaceRule {
 public:
  // Error `<where>: Replace: ...` unless it has a pattern that is not empty, and a content.
  ReplaceRule(const JsonView& view, const std::string& where);
  std::string apply(std::string_view text, Regex::Scratch& scratch) const;

 private:
  std::string wanted_, content_;
  std::shared_ptr<const Regex> regex_;  // null: `wanted_` as it is
};

}  // namespace qkv
