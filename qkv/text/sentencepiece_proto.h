// What a SentencePiece model file says (Kudo and Richardson 2018), read straight from its protocol buffer and
// written as one: the library does not show all of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qkv {

enum class PieceType { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

struct Piece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::normal;
};

struct SentencePieceProto {
  enum class Algorithm { unigram = 1, bpe = 2, word = 3, character = 4 };
  std::vector<Piece> pieces;
  Algorithm algorithm = Algorithm::unigram;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  int64_t unk_id = 0, bos_id = 1, eos_id = 2, pad_id = -1;
  std::string unk_surface = " \xE2\x81\x87 ";
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  std::string charsmap;  // compiled rules of the normalizer, such as NFKC; see charsmap.h
};

// Throws Error `<where>: ...` if the bytes are no such model.
SentencePieceProto parse_sentencepiece_proto(std::string_view bytes, const std::string& where);
// A model file that says the same.
std::string serialize_sentencepiece_proto(const SentencePieceProto& proto);
// Bytes to append to a serialized model so that it puts no dummy prefix: messages merge, the last value
// counts.
std::string_view without_dummy_prefix();

}  // namespace qkv
