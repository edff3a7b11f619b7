// The few fields of ModelProto that are needed, by the wire format (varints, lengths, 32- and 64-bit values).
#include "qkv/text/sentencepiece_proto.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "qkv/core/error.h"

namespace qkv {
namespace {

struct Field {
  uint32_t number = 0;
  uint32_t wire_type = 0;
  uint64_t value = 0;         // varint, or the bits of a fixed-size value
  std::string_view contents;  // of a length-delimited field
};

class WireReader {
 public:
  WireReader(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  bool next(Field& field) {
    if (at_ == bytes_.size()) return false;
    const uint64_t tag = varint();
    field = {static_cast<uint32_t>(tag >> 3), static_cast<uint32_t>(tag & 7), 0, {}};
    if (field.number == 0 || tag >> 32 != 0) broken();
    switch (field.wire_type) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed(8);
        break;
      case 2:
        field.contents = take(varint());
        break;
      case 5:
        field.value = fixed(4);
        break;
      default:
        broken();
    }
    return true;
  }

  [[noreturn]] void broken() const {
    fail(
        "{}: expected a SentencePiece model, found something else or a damaged one (at byte {} of a message)",
        where_, at_);
  }

 private:
  std::string_view take(uint64_t size) {
    if (size > bytes_.size() - at_) broken();
    const std::string_view taken = bytes_.substr(at_, size);
    at_ += size;
    return taken;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    broken();
  }
  uint64_t fixed(size_t size) {
    uint64_t value = 0;
    std::memcpy(&value, take(size).data(), size);
    return value;
  }

  std::string_view bytes_;
  const std::string& where_;
  size_t at_ = 0;
};

Piece parse_piece(std::string_view bytes, const std::string& where) {
  WireReader reader(bytes, where);
  Piece piece;
  for (Field field; reader.next(field);) {
    if (field.number == 1 && field.wire_type == 2) {
      piece.text = field.contents;
    } else if (field.number == 2 && field.wire_type == 5) {
      const auto bits = static_cast<uint32_t>(field.value);
      std::memcpy(&piece.score, &bits, sizeof bits);
      if (!std::isfinite(piece.score)) reader.broken();
    } else if (field.number == 3 && field.wire_type == 0) {
      if (field.value < 1 || field.value > 6) reader.broken();
      piece.type = static_cast<PieceType>(field.value);
    }
  }
  return piece;
}

void parse_trainer_spec(std::string_view bytes, const std::string& where, SentencePieceProto& proto) {
  WireReader reader(bytes, where);
  for (Field field; reader.next(field);) {
    if (field.number == 44 && field.wire_type == 2) proto.unk_surface = field.contents;
    if (field.wire_type != 0) continue;
    const auto integer = static_cast<int32_t>(field.value);
    switch (field.number) {
      case 3:
        if (field.value < 1 || field.value > 4) reader.broken();
        proto.algorithm = static_cast<SentencePieceProto::Algorithm>(field.value);
        break;
      case 24:
        proto.treat_whitespace_as_suffix = field.value != 0;
        break;
      case 35:
        proto.byte_fallback = field.value != 0;
        break;
      case 40:
        proto.unk_id = integer;
        break;
      case 41:
        proto.bos_id = integer;
        break;
      case 42:
        proto.eos_id = integer;
        break;
      case 43:
        proto.pad_id = integer;
        break;
      default:
        break;
    }
  }
}

void parse_normalizer_spec(std::string_view bytes, const std::string& where, SentencePieceProto& proto) {
  WireReader reader(bytes, where);
  for (Field field; reader.next(field);) {
    if (field.number == 2 && field.wire_type == 2) proto.charsmap = field.contents;
    if (field.wire_type != 0) continue;
    if (field.number == 3) proto.add_dummy_prefix = field.value != 0;
    if (field.number == 4) proto.remove_extra_whitespaces = field.value != 0;
    if (field.number == 5) proto.escape_whitespaces = field.value != 0;
  }
}

class WireWriter {
 public:
  void integer(uint32_t field, int64_t value) {
    varint(static_cast<uint64_t>(field) << 3);
    varint(static_cast<uint64_t>(value));  // negative ones take ten bytes, as the format has it
  }
  void number(uint32_t field, float value) {
    varint(static_cast<uint64_t>(field) << 3 | 5);
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    for (int shift = 0; shift < 32; shift += 8) bytes_ += static_cast<char>(bits >> shift & 0xFF);
  }
  void contents(uint32_t field, std::string_view value) {
    varint(static_cast<uint64_t>(field) << 3 | 2);
    varint(value.size());
    bytes_ += value;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

}  // namespace

SentencePieceProto parse_sentencepiece_proto(std::string_view bytes, const std::string& where) {
  SentencePieceProto proto;
  WireReader reader(bytes, where);
  for (Field field; reader.next(field);) {
    if (field.wire_type != 2) continue;
    if (field.number == 1) proto.pieces.push_back(parse_piece(field.contents, where));
    if (field.number == 2) parse_trainer_spec(field.contents, where, proto);
    if (field.number == 3) parse_normalizer_spec(field.contents, where, proto);
  }
  require(!proto.pieces.empty(), "{}: expected a SentencePiece model, found no pieces", where);
  return proto;
}

std::string serialize_sentencepiece_proto(const SentencePieceProto& proto) {
  WireWriter model;
  for (const Piece& piece : proto.pieces) {
    WireWriter message;
    message.contents(1, piece.text);
    message.number(2, piece.score);
    message.integer(3, static_cast<int64_t>(piece.type));
    model.contents(1, message.bytes());
  }
  WireWriter trainer;
  trainer.integer(3, static_cast<int64_t>(proto.algorithm));
  trainer.integer(4, static_cast<int64_t>(proto.pieces.size()));
  trainer.integer(24, proto.treat_whitespace_as_suffix);
  trainer.integer(35, proto.byte_fallback);
  // The library finds these four by their names.
  const std::pair<uint32_t, int64_t> special[] = {
      {40, proto.unk_id}, {41, proto.bos_id}, {42, proto.eos_id}, {43, proto.pad_id}};
  for (const auto& [field, id] : special) {
    trainer.integer(field, id);
    if (id >= 0 && id < static_cast<int64_t>(proto.pieces.size()))
      trainer.contents(field + 5, proto.pieces[static_cast<size_t>(id)].text);
  }
  trainer.contents(44, proto.unk_surface);
  model.contents(2, trainer.bytes());
  WireWriter normalizer;
  if (!proto.charsmap.empty()) normalizer.contents(2, proto.charsmap);
  normalizer.integer(3, proto.add_dummy_prefix);
  normalizer.integer(4, proto.remove_extra_whitespaces);
  normalizer.integer(5, proto.escape_whitespaces);
  model.contents(3, normalizer.bytes());
  return model.bytes();
}

std::string_view without_dummy_prefix() {
  // Field 3 (normalizer_spec), 2 bytes: field 3 (add_dummy_prefix) = 0.
  static constexpr char kBytes[] = {0x1A, 0x02, 0x18, 0x00};
  return {kBytes, sizeof kBytes};
}

}  // namespace qkv
