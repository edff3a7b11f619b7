// Names of GGUF's tokenizer keys and numbers of its token types: facts of the format.
#pragma once

namespace qkv::gguf_key {

inline constexpr char kModel[] = "tokenizer.ggml.model";
inline constexpr char kPre[] = "tokenizer.ggml.pre";
inline constexpr char kTokens[] = "tokenizer.ggml.tokens";
inline constexpr char kTypes[] = "tokenizer.ggml.token_type";
inline constexpr char kScores[] = "tokenizer.ggml.scores";
inline constexpr char kMerges[] = "tokenizer.ggml.merges";
inline constexpr char kBos[] = "tokenizer.ggml.bos_token_id";
inline constexpr char kEos[] = "tokenizer.ggml.eos_token_id";
inline constexpr char kEot[] = "tokenizer.ggml.eot_token_id";
inline constexpr char kEom[] = "tokenizer.ggml.eom_token_id";
inline constexpr char kUnk[] = "tokenizer.ggml.unknown_token_id";
inline constexpr char kSep[] = "tokenizer.ggml.seperator_token_id";  // so spelled in the format
inline constexpr char kPad[] = "tokenizer.ggml.padding_token_id";
inline constexpr char kCls[] = "tokenizer.ggml.cls_token_id";
inline constexpr char kMask[] = "tokenizer.ggml.mask_token_id";
inline constexpr char kAddBos[] = "tokenizer.ggml.add_bos_token";
inline constexpr char kAddEos[] = "tokenizer.ggml.add_eos_token";
inline constexpr char kAddSpacePrefix[] = "tokenizer.ggml.add_space_prefix";
inline constexpr char kRemoveExtraWhitespaces[] = "tokenizer.ggml.remove_extra_whitespaces";
inline constexpr char kCharsmap[] = "tokenizer.ggml.precompiled_charsmap";
inline constexpr char kLowercase[] = "tokenizer.ggml.normalizer.lowercase";
inline constexpr char kStripAccents[] = "tokenizer.ggml.normalizer.strip_accents";
inline constexpr char kTokenTypeCount[] = "tokenizer.ggml.token_type_count";  // the model's, in spite of its name
inline constexpr char kChatTemplate[] = "tokenizer.chat_template";

// Ours: what the keys above cannot say, as tokenizer.json says it.
inline constexpr char kNormalizerJson[] = "qkv.tokenizer.normalizer";
inline constexpr char kPretokenizerJson[] = "qkv.tokenizer.pre_tokenizer";
inline constexpr char kPostProcessorJson[] = "qkv.tokenizer.post_processor";
inline constexpr char kDecoderJson[] = "qkv.tokenizer.decoder";
inline constexpr char kAddedTokensJson[] = "qkv.tokenizer.added_tokens";
inline constexpr char kConfigJson[] = "qkv.tokenizer.config";
inline constexpr char kLongestWord[] = "qkv.tokenizer.max_input_chars_per_word";
inline constexpr char kStopIds[] = "qkv.tokenizer.stop_ids";
inline constexpr char kLegacy[] = "qkv.tokenizer.legacy";

}  // namespace qkv::gguf_key
