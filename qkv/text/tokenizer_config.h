// The files beside a vocabulary: tokenizer_config.json, special_tokens_map.json, added_tokens.json,
// generation_config.json, chat_template.jinja.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "qkv/text/added_tokens.h"

namespace qkv {

struct TokenizerConfig {
  std::optional<std::string> bos_token, eos_token, pad_token, unk_token;
  std::optional<int32_t> bos_id, eos_id, pad_id;  // from generation_config.json
  std::vector<int32_t> stop_ids;                  // every eos_token_id of generation_config.json
  std::optional<bool> add_bos, add_eos;
  std::optional<std::string> chat_template;
  std::map<std::string, std::string> named_templates;  // beside the default: "tool_use", ...
  std::string tokenizer_class;
  bool do_lower_case = true;
  bool legacy = true;  // SentencePiece: a dummy prefix after every special token, not only at the start
  std::vector<AddedToken> added;
  std::string text;  // tokenizer_config.json as read, empty if there is none
};

// Reads what is there; a missing file is no error. Throws Error naming the file for malformed ones.
TokenizerConfig read_tokenizer_config(const class TokenizerFileSource& files);

// An entry of "added_tokens" in tokenizer.json or of "added_tokens_decoder": content and flags, without the
// id.
AddedToken parse_added_token(const class JsonView& view);

}  // namespace qkv
