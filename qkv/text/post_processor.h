// What is put around an encoded text: the "post_processor" of tokenizer.json, reduced to a prefix and a
// suffix of ids.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/json.h"

namespace qkv {

struct SpecialFrame {
  std::vector<int32_t> prefix, suffix;
};

// From the JSON of tokenizer.json (null: nothing). Throws Error `<where>: post_processor: ...`.
SpecialFrame parse_post_processor(const Json& json, const std::string& where);
// The TemplateProcessing that adds this frame (null if it is empty); `spelling` gives a token's content.
Json make_post_processor(const SpecialFrame& frame, const std::function<std::string(int32_t)>& spelling);

}  // namespace qkv
