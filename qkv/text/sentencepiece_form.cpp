// From tokenizer.json back to the SentencePiece model that it was made of.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/text/base64.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/sentencepiece_parts.h"

namespace qkv {
namespace {

constexpr std::string_view kSpaceMark = "▁";

// The steps of a normalizer or pre-tokenizer, sequences taken apart.
void flatten(const Json& json, const char* list, std::vector<Json>& steps) {
  if (json.is_null()) return;
  if (json.is_object() && json.value("type", "") == "Sequence" && json.contains(list)) {
    for (const auto& item : json[list]) flatten(item, list, steps);
  } else {
    steps.push_back(json);
  }
}

std::string pattern_of(const JsonView& step, const char* kind) {
  return step.has("pattern") ? step.object("pattern").string_or(kind, "") : "";
}

void read_normalizer(const TokenizerParts& parts, SentencePieceForm& form, bool& marks) {
  std::vector<Json> steps;
  flatten(parse_json(parts.normalizer, parts.where), "normalizers", steps);
  for (const Json& json : steps) {
    const JsonView step(json, parts.where + ": normalizer");
    const std::string type = step.string("type"), content = step.string_or("content", "");
    const std::string text = pattern_of(step, "String"), regex = pattern_of(step, "Regex");
    if (type == "Precompiled") {
      form.proto.charsmap = decode_base64(step.string_or("precompiled_charsmap", "")).value_or("");
    } else if (type == "Prepend" && step.string("prepend") == kSpaceMark) {
      form.proto.add_dummy_prefix = true;
    } else if (type == "Replace" && text == " " && content == kSpaceMark) {
      marks = true;
    } else if (type == "Strip" ||
               (type == "Replace" && (regex == " {2,}" || regex == R"(\A +| +\z| +(?= ))"))) {
      form.proto.remove_extra_whitespaces = true;
    } else {
      form.differences.push_back("the normalizer " + dump_json(json).substr(0, 120));
    }
  }
}

void read_pretokenizer(const TokenizerParts& parts, SentencePieceForm& form, bool& marks) {
  std::vector<Json> steps;
  flatten(parse_json(parts.pre_tokenizer, parts.where), "pretokenizers", steps);
  for (const Json& json : steps) {
    const JsonView step(json, parts.where + ": pre_tokenizer");
    const std::string type = step.string("type");
    if (type == "Metaspace" && step.string_or("replacement", "▁") == kSpaceMark) {
      marks = true;
      const std::string scheme =
          step.string_or("prepend_scheme", step.boolean_or("add_prefix_space", true) ? "always" : "never");
      form.proto.add_dummy_prefix |= scheme != "never";
      form.prefix_every_part = scheme != "first";
    } else if (type == "WhitespaceSplit") {
      form.proto.remove_extra_whitespaces = true;
    } else if (type == "Split" && marks && pattern_of(step, "String") == " ") {
      // Finds no space any more.
    } else {
      form.differences.push_back("the pre-tokenizer " + dump_json(json).substr(0, 120));
    }
  }
}

// Scores under which SentencePiece merges in the order of `parts.merges`. It merges any two neighbours that
// join to a piece, so every such pair must be a merge, and all merges that give one piece must stand
// together.
std::vector<float> scores_of_merges(const TokenizerParts& parts) {
  Vocabulary ids;
  ids.reserve(parts.vocabulary.size());
  int32_t size = 0;
  for (const auto& [token, id] : parts.vocabulary) {
    ids.emplace(token, id);
    size = std::max(size, id + 1);
  }
  struct Span {
    uint32_t first = 0, last = 0, merges = 0;
  };
  std::vector<Span> spans(static_cast<size_t>(size));
  for (const auto& merge : parts.merges) {
    Span& span = spans[merge.result];
    if (span.merges++ == 0) span.first = merge.rank;
    span.first = std::min(span.first, merge.rank);
    span.last = std::max(span.last, merge.rank);
  }
  for (const auto& [token, id] : parts.vocabulary) {
    const std::string_view text = token;
    uint32_t ways = 0;
    for (size_t cut = 0; next_code_point(text, cut), cut < text.size();)
      ways += ids.contains(text.substr(0, cut)) && ids.contains(text.substr(cut));
    require(spans[id].merges == 0 ? ways == 0 : ways == spans[id].merges,
            "{}: token '{}' has {} merges, but there are {} ways to cut it into tokens: SentencePiece would "
            "merge "
            "differently",
            parts.where, token, spans[id].merges, ways);
  }
  // Pieces whose spans overlap had equal scores.
  std::vector<int32_t> order;
  for (int32_t id = 0; id < size; ++id) {
    if (spans[id].merges > 0) order.push_back(id);
  }
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return spans[a].first < spans[b].first; });
  std::vector<float> scores(static_cast<size_t>(size), 0.0f);
  float score = 0;
  uint32_t last = 0;
  for (const int32_t id : order) {
    if (spans[id].first > last) score -= 1;
    last = std::max(last, spans[id].last);
    scores[id] = score;
  }
  return scores;
}

}  // namespace

SentencePieceForm sentencepiece_form(const TokenizerParts& parts) {
  using Model = TokenizerParts::Model;
  const bool unigram = parts.model == Model::unigram;
  require(unigram || (parts.model == Model::bpe && !parts.bpe.byte_level && !parts.bpe.ignore_merges &&
                      parts.bpe.continuing_subword_prefix.empty() && parts.bpe.end_of_word_suffix.empty()),
          "{}: expected Unigram or BPE with marks for spaces", parts.where);
  SentencePieceForm form;
  form.proto.algorithm =
      unigram ? SentencePieceProto::Algorithm::unigram : SentencePieceProto::Algorithm::bpe;
  form.proto.byte_fallback = unigram ? parts.unigram.byte_fallback : parts.bpe.byte_fallback;
  form.proto.add_dummy_prefix = form.proto.remove_extra_whitespaces = false;
  bool marks = false;
  read_normalizer(parts, form, marks);
  read_pretokenizer(parts, form, marks);
  require(marks, "{}: expected a normalizer or pre-tokenizer that marks spaces with ▁, found none",
          parts.where);

  const std::vector<float> merge_scores = unigram ? std::vector<float>() : scores_of_merges(parts);
  const auto unk = unigram ? parts.unigram.unk : parts.bpe.unk;
  auto& pieces = form.proto.pieces;
  const auto put = [&](int32_t id, const std::string& text, float score, PieceType type) {
    if (static_cast<size_t>(id) >= pieces.size()) pieces.resize(static_cast<size_t>(id) + 1);
    pieces[id] = {text, score, type};
  };
  for (size_t i = 0; i < parts.vocabulary.size(); ++i) {
    const auto& [token, id] = parts.vocabulary[i];
    const bool byte = form.proto.byte_fallback && byte_of_token(token);
    put(id, token, unigram ? static_cast<float>(parts.unigram.scores[i]) : merge_scores[id],
        id == unk ? PieceType::unknown
        : byte    ? PieceType::byte
                  : PieceType::normal);
  }
  constexpr float kAddedScore = -1000;  // never merged to
  for (const auto& token : parts.added) {
    if (token.id == unk) continue;
    put(token.id, token.content, kAddedScore, token.special ? PieceType::control : PieceType::user_defined);
  }
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].text.empty())
      put(static_cast<int32_t>(id), fmt::format("[PAD{}]", id), kAddedScore, PieceType::unused);
  }
  form.proto.unk_id = unk.value_or(-1);
  return form;
}

}  // namespace qkv
