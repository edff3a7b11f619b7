// The steps, and how their JSON is read.
#include "qkv/text/decoder.h"

#include <memory>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/replace.h"

namespace qkv {
namespace {

constexpr int kMaximumDepth = 16;

// Up to `start` leading and `stop` trailing copies of `content` dropped.
std::string without_ends(std::string text, std::string_view content, int64_t start, int64_t stop) {
  std::string_view kept = text;
  for (int64_t i = 0; i < start && kept.starts_with(content); ++i) kept.remove_prefix(content.size());
  for (int64_t i = 0; i < stop && kept.ends_with(content); ++i) kept.remove_suffix(content.size());
  return std::string(kept);
}

// English spacing around punctuation and contractions, as BERT's decoder repairs it.
void clean_up_english(std::string& word) {
  static constexpr std::pair<std::string_view, std::string_view> repairs[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [wanted, content] : repairs) word = replace_all(word, wanted, content);
}

}  // namespace

PieceDecoder::PieceDecoder() : word_separator_(" ") {
  join_.strips_leading_space = true;
  steps_.push_back([](std::string token) { return " " + token; });
}

PieceDecoder::PieceDecoder(const Json& json, const std::string& where) {
  add(json, where + ": decoder", 0);
  spells_bytes_ = json.value("type", "") == "ByteLevel";
}

void PieceDecoder::add(const Json& json, const std::string& where, int depth) {
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
    steps_.push_back([](std::string token) {
      const auto byte = byte_of_token(token);
      return byte ? std::string(1, static_cast<char>(*byte)) : token;
    });
  } else if (type == "Fuse") {
    fused_ = true;  // joining is what decoding does anyway
  } else if (type == "Metaspace") {
    const std::string mark = view.string_or("replacement", "▁");
    require(!mark.empty(), "{}: Metaspace: expected a replacement, found an empty string", where);
    steps_.push_back([mark](std::string token) { return replace_all(token, mark, " "); });
    const std::string scheme =
        view.string_or("prepend_scheme", view.boolean_or("add_prefix_space", true) ? "always" : "never");
    if (scheme != "never") join_.strips_leading_space = true;
  } else if (type == "Replace") {
    steps_.push_back([rule = ReplaceRule(view, where)](std::string token) {
      Regex::Scratch scratch;
      return rule.apply(token, scratch);
    });
  } else if (type == "Strip") {
    add_strip(view, where);
  } else if (type == "BPEDecoder") {
    const std::string suffix = view.string_or("suffix", "</w>");
    require(!suffix.empty(), "{}: BPEDecoder: expected a suffix, found an empty string", where);
    steps_.push_back([suffix](std::string token) { return replace_all(token, suffix, " "); });
    join_.strips_trailing_space = true;
  } else if (type == "CTC") {
    padding_ = view.string_or("pad_token", "<pad>");
    const std::string delimiter = view.string_or("word_delimiter_token", "|");
    const bool cleanup = view.boolean_or("cleanup", true);
    require(!padding_.empty() && !delimiter.empty(),
            "{}: CTC: expected a pad_token and a word_delimiter_token, found an empty string", where);
    steps_.push_back([padding = padding_, delimiter, cleanup](std::string token) {
      token = replace_all(token, padding, "");
      if (cleanup) {
        clean_up_english(token);
        token = replace_all(token, delimiter, " ");
      }
      return token;
    });
    join_.collapses_repeats = true;
  } else if (type == "WordPiece") {
    const std::string prefix = view.string_or("prefix", "##");
    const bool cleanup = view.boolean_or("cleanup", true);
    steps_.push_back([prefix, cleanup](std::string token) {
      token = !prefix.empty() && token.starts_with(prefix) ? token.substr(prefix.size()) : " " + token;
      if (cleanup) clean_up_english(token);
      return token;
    });
    word_separator_ = " ";
    join_.strips_leading_space = true;
  } else {
    fail(
        "{}: type: expected Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip, BPEDecoder, "
        "CTC or WordPiece, found '{}'",
        where, type);
  }
}

void PieceDecoder::add_strip(const JsonView& view, const std::string& where) {
  const std::string content = view.string_or("content", " ");
  const int64_t start = view.integer_or("start", 0), stop = view.integer_or("stop", 0);
  require(!content.empty() && start >= 0 && stop >= 0,
          "{}: Strip: expected a character and counts of it, found {}", where, dump_json(view.json()));
  if (!fused_) {
    steps_.push_back([content, start, stop](std::string token) {
      return without_ends(std::move(token), content, start, stop);
    });
    return;
  }
  // Of the whole text: the space that the normalizer prepended.
  require(content == " " && start <= 1 && stop == 0,
          "{}: Strip: expected content \" \", start 0 or 1 and stop 0 after Fuse, found {}", where,
          dump_json(view.json()));
  if (start == 1) join_.strips_leading_space = true;
}

std::string PieceDecoder::added_piece(std::string_view content) const {
  return content == padding_ ? std::string() : word_separator_ + std::string(content);
}

std::string PieceDecoder::piece(std::string_view spelling) const {
  std::string text(spelling);
  for (const auto& step : steps_) text = step(std::move(text));
  return text;
}

}  // namespace qkv
