// Length of the longest token (i32), then per token its score (f32), its length (i32) and its bytes, with
// spaces for the marks and line feeds around BOS and EOS.
#include "qkv/text/llama2c_vocabulary.h"

#include <cstring>
#include <optional>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/text/byte_alphabet.h"
#include "qkv/text/replace.h"

namespace qkv {
namespace {

constexpr size_t kFirstByte = 3;  // tokens 3 to 258 are the bytes
constexpr size_t kFewestTokens = kFirstByte + 256;

struct Reader {
  std::string_view bytes;
  size_t at = 0;
  template <typename T>
  std::optional<T> take() {
    if (bytes.size() - at < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof(T));
    at += sizeof(T);
    return value;
  }
};

// Calls visit(score, text) on each token; false if the bytes do not end with one.
template <typename Visit>
bool for_each_token(std::string_view bytes, Visit&& visit) {
  Reader reader{bytes};
  const auto longest = reader.take<int32_t>();
  if (!longest || *longest <= 0) return false;
  while (reader.at < bytes.size()) {
    const auto score = reader.take<float>();
    const auto size = reader.take<int32_t>();
    if (!score || !size || *size <= 0 || *size > *longest ||
        static_cast<size_t>(*size) > bytes.size() - reader.at) {
      return false;
    }
    visit(*score, bytes.substr(reader.at, static_cast<size_t>(*size)));
    reader.at += static_cast<size_t>(*size);
  }
  return true;
}

}  // namespace

bool looks_like_llama2c_vocabulary(std::string_view bytes) {
  size_t tokens = 0;
  bool spells_bytes = true;
  const bool whole = for_each_token(bytes, [&](float, std::string_view text) {
    if (tokens >= kFirstByte && tokens < kFewestTokens) spells_bytes &= byte_of_token(text).has_value();
    ++tokens;
  });
  return whole && spells_bytes && tokens >= kFewestTokens;
}

SentencePieceProto parse_llama2c_vocabulary(std::string_view bytes, const std::string& where) {
  SentencePieceProto proto;
  proto.algorithm = SentencePieceProto::Algorithm::bpe;
  proto.byte_fallback = true;
  proto.remove_extra_whitespaces = false;
  require(looks_like_llama2c_vocabulary(bytes),
          "{}: expected a tokenizer.bin of llama2.c, found something else", where);
  for_each_token(bytes, [&](float score, std::string_view text) {
    const size_t id = proto.pieces.size();
    const PieceType type = id == 0                                     ? PieceType::unknown
                           : id < kFirstByte                           ? PieceType::control
                           : id < kFewestTokens && byte_of_token(text) ? PieceType::byte
                                                                       : PieceType::normal;
    if (type == PieceType::control) {
      while (text.starts_with('\n')) text.remove_prefix(1);
      while (text.ends_with('\n')) text.remove_suffix(1);
    }
    require(!first_invalid_utf8(text), "{}: token {}: expected UTF-8", where, id);
    proto.pieces.push_back(
        {type == PieceType::normal ? replace_all(text, " ", "▁") : std::string(text), score, type});
  });
  return proto;
}

}  // namespace qkv
