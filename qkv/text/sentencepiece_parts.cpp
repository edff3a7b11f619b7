// Vocabulary, merges, normalizer and decoder from the pieces and the few settings of the model.
#include "qkv/text/sentencepiece_parts.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/text/base64.h"
#include "qkv/text/post_processor.h"

namespace qkv {
namespace {

constexpr char kSpaceMark[] = "▁";

bool joins(const Piece& piece) {
  return piece.type == PieceType::normal || piece.type == PieceType::user_defined;
}

// SentencePiece merges any neighbours that join to a piece, best score first: as merges, every way to cut
// each piece in two.
std::vector<BpeMerge> merges_of(const std::vector<Piece>& pieces) {
  Vocabulary ids;
  ids.reserve(pieces.size());
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (joins(pieces[id])) ids.emplace(pieces[id].text, static_cast<int32_t>(id));
  }
  std::vector<BpeMerge> merges;
  for (const auto& [text, id] : ids) {
    const std::string_view whole = text;
    for (size_t cut = 0; next_code_point(whole, cut), cut < whole.size();) {
      const auto left = ids.find(whole.substr(0, cut));
      const auto right = left == ids.end() ? left : ids.find(whole.substr(cut));
      if (right != ids.end()) merges.push_back({left->second, right->second, id, 0});
    }
  }
  const auto order = [&](const BpeMerge& merge) {
    return std::tuple(-pieces[merge.result].score, merge.result,
                      -static_cast<int64_t>(pieces[merge.left].text.size()));
  };
  std::sort(merges.begin(), merges.end(),
            [&](const BpeMerge& a, const BpeMerge& b) { return order(a) < order(b); });
  for (size_t rank = 0; rank < merges.size(); ++rank) merges[rank].rank = static_cast<uint32_t>(rank);
  return merges;
}

Json replace(const char* kind, const char* pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
}

Json metaspace(const char* scheme, bool split) {
  return {{"type", "Metaspace"}, {"replacement", kSpaceMark}, {"prepend_scheme", scheme}, {"split", split}};
}

// The rules for characters and spaces. The mark for the space in front belongs here if every part of a text
// gets one, else to the pre-tokenizer, which knows where the text begins.
Json normalizer(const SentencePieceProto& proto, bool prefix_every_part) {
  Json steps = Json::array();
  if (!proto.charsmap.empty()) {
    steps.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", encode_base64(proto.charsmap)}});
  }
  if (proto.remove_extra_whitespaces) steps.push_back(replace("Regex", R"(\A +| +\z| +(?= ))", ""));
  if (proto.add_dummy_prefix && prefix_every_part)
    steps.push_back({{"type", "Prepend"}, {"prepend", kSpaceMark}});
  steps.push_back(replace("String", " ", kSpaceMark));
  return {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
}

Json decoder(const SentencePieceProto& proto) {
  Json steps = Json::array({replace("String", kSpaceMark, " ")});
  if (proto.byte_fallback) steps.push_back({{"type", "ByteFallback"}});
  steps.push_back({{"type", "Fuse"}});
  if (proto.add_dummy_prefix || proto.remove_extra_whitespaces)
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

}  // namespace

std::vector<AddedToken> all_added_tokens(const SentencePieceTokenizer& tokenizer) {
  std::vector<AddedToken> added = tokenizer.added_tokens();
  const auto& pieces = tokenizer.proto().pieces;
  std::vector<bool> known(pieces.size());
  for (const auto& token : added) {
    if (static_cast<size_t>(token.id) < pieces.size()) known[token.id] = true;
  }
  for (size_t id = 0; id < pieces.size(); ++id) {
    const PieceType type = pieces[id].type;
    if (known[id] ||
        (type != PieceType::control && type != PieceType::unknown && type != PieceType::user_defined)) {
      continue;
    }
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = pieces[id].text;
    token.special = type != PieceType::user_defined;
    added.push_back(std::move(token));
  }
  std::sort(added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return added;
}

std::optional<std::string> tokenizer_json_obstacle(const SentencePieceProto& proto) {
  if (proto.treat_whitespace_as_suffix) return "spaces behind words have no counterpart there";
  if (!proto.escape_whitespaces) return "spaces without marks have no counterpart there";
  if (proto.algorithm == SentencePieceProto::Algorithm::word)
    return "a model of words makes one token of neighbouring unknown words, which has no counterpart there";
  return std::nullopt;
}

TokenizerParts sentencepiece_parts(const SentencePieceTokenizer& tokenizer) {
  using Algorithm = SentencePieceProto::Algorithm;
  using Model = TokenizerParts::Model;
  const SentencePieceProto& proto = tokenizer.proto();
  TokenizerParts parts;
  parts.where = "tokenizer.json of a SentencePiece model";
  if (const auto obstacle = tokenizer_json_obstacle(proto)) fail("{}: {}", parts.where, *obstacle);
  std::optional<int32_t> unk;
  for (size_t i = 0; i < proto.pieces.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    parts.vocabulary.push_back({proto.pieces[i].text, id});
    if (proto.pieces[i].type == PieceType::unknown) unk = id;
  }
  const bool every_part = tokenizer.prefixes_every_part();
  parts.normalizer = dump_json(normalizer(proto, every_part));
  if (proto.add_dummy_prefix && !every_part) parts.pre_tokenizer = dump_json(metaspace("first", false));
  parts.decoder = dump_json(decoder(proto));
  parts.added = all_added_tokens(tokenizer);
  const SpecialFrame frame{tokenizer.prefix_ids(), tokenizer.suffix_ids()};
  parts.post_processor =
      dump_json(make_post_processor(frame, [&](int32_t id) { return tokenizer.id_to_token(id); }));
  switch (proto.algorithm) {
    case Algorithm::bpe:
      parts.merges = merges_of(proto.pieces);
      [[fallthrough]];
    case Algorithm::character:
      parts.model = Model::bpe;
      parts.bpe.unk = unk;
      parts.bpe.fuse_unk = true;
      parts.bpe.byte_fallback = proto.byte_fallback;
      break;
    case Algorithm::unigram:
      parts.model = Model::unigram;
      parts.unigram.unk = unk;
      parts.unigram.byte_fallback = proto.byte_fallback;
      for (const Piece& piece : proto.pieces) parts.unigram.scores.push_back(piece.score);
      break;
    case Algorithm::word:
      break;  // refused above
  }
  return parts;
}

}  // namespace qkv
