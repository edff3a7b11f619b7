// The steps, and how their JSON is read.
#include "qkv/text/decoder.h"

#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/regex.h"

namespace qkv {
namespace {

constexpr int kMaximumDepth = 16;

void replace_in_place(std::string& text, std::string_view wanted, std::string_view content) {
  for (size_t at = text.find(wanted); at != std::string::npos; at = text.find(wanted, at + content.size())) {
    text.replace(at, wanted.size(), content);
  }
}

// "<0x0A>" -> "\n"; anything else stays.
std::string byte_of_fallback(std::string token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return token;
  uint8_t byte = 0;
  const auto [stop, code] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  if (code != std::errc() || stop != token.data() + 5) return token;
  return std::string(1, static_cast<char>(byte));
}

// English spacing around punctuation and contractions, as BERT's decoder repairs it.
void clean_up_english(std::string& word) {
  static constexpr std::pair<std::string_view, std::string_view> repairs[] = {
      {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
      {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [wanted, content] : repairs) replace_in_place(word, wanted, content);
}

}  // namespace

Decoder::Decoder() : word_separator_(" "), strips_leading_space_(true) {
  steps_.push_back([](std::string token) { return " " + token; });
}

Decoder::Decoder(const Json& json, const std::string& where) {
  add(json, where + ": decoder", 0);
}

void Decoder::add(const Json& json, const std::string& where, int depth) {
  require(depth < kMaximumDepth, "{}: nested deeper than {} levels", where, kMaximumDepth);
  const JsonView view(json, where);
  const std::string type = view.string("type");
  if (type == "Sequence") {
    const Json* list = view.find("decoders");
    require(list && list->is_array(), "{}: Sequence: expected a list 'decoders'", where);
    for (const auto& item : *list) add(item, where, depth + 1);
  } else if (type == "ByteLevel") {
    steps_.push_back([](std::string token) { return unspell_bytes(token).value_or(token); });
  } else if (type == "ByteFallback") {
    steps_.push_back(&byte_of_fallback);
  } else if (type == "Fuse") {
    // Joining is what decoding does anyway.
  } else if (type == "Metaspace") {
    const std::string mark = view.string_or("replacement", "▁");
    require(!mark.empty(), "{}: Metaspace: expected a replacement, found an empty string", where);
    steps_.push_back([mark](std::string token) {
      replace_in_place(token, mark, " ");
      return token;
    });
    const std::string scheme =
        view.string_or("prepend_scheme", view.boolean_or("add_prefix_space", true) ? "always" : "never");
    if (scheme != "never") strips_leading_space_ = true;
  } else if (type == "Replace") {
    const Json* pattern = view.find("pattern");
    const Json* text =
        pattern && pattern->is_object() && pattern->size() == 1 ? &pattern->begin().value() : nullptr;
    require(text && text->is_string() && pattern->begin().key() == "String",
            "{}: Replace: expected a pattern {{\"String\": ...}}", where);
    const std::string wanted = text->get<std::string>(), content = view.string("content");
    require(!wanted.empty(), "{}: Replace: expected a pattern, found an empty string", where);
    steps_.push_back([wanted, content](std::string token) {
      replace_in_place(token, wanted, content);
      return token;
    });
  } else if (type == "Strip") {
    // In every tokenizer.json that has it, it follows Fuse and drops the space that the normalizer prepended.
    require(view.string_or("content", " ") == " " && view.integer_or("start", 0) <= 1 &&
                view.integer_or("stop", 0) == 0,
            "{}: Strip: expected content \" \", start 0 or 1 and stop 0, found {}", where, dump_json(json));
    if (view.integer_or("start", 0) == 1) strips_leading_space_ = true;
  } else if (type == "BPEDecoder") {
    const std::string suffix = view.string_or("suffix", "</w>");
    require(!suffix.empty(), "{}: BPEDecoder: expected a suffix, found an empty string", where);
    steps_.push_back([suffix](std::string token) {
      replace_in_place(token, suffix, " ");
      return token;
    });
  } else if (type == "WordPiece") {
    const std::string prefix = view.string_or("prefix", "##");
    const bool cleanup = view.boolean_or("cleanup", true);
    steps_.push_back([prefix, cleanup](std::string token) {
      token = !prefix.empty() && token.starts_with(prefix) ? token.substr(prefix.size()) : " " + token;
      if (cleanup) clean_up_english(token);
      return token;
    });
    word_separator_ = " ";
    strips_leading_space_ = true;
  } else {
    fail(
        "{}: type: expected Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip, BPEDecoder "
        "or WordPiece, "
        "found '{}'",
        where, type);
  }
}

std::string Decoder::piece(std::string_view spelling) const {
  std::string text(spelling);
  for (const auto& step : steps_) text = step(std::move(text));
  return text;
}

}  // namespace qkv
