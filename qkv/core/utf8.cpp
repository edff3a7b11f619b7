#include "qkv/core/utf8.h"

#include <algorithm>

namespace qkv {
namespace {

// How a sequence that starts at text[0] goes: its full length (0 if the lead byte is invalid) and how many of its bytes
// are present and valid.
struct Sequence {
  size_t length = 0;
  size_t valid = 0;
};

Sequence examine(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {1, 1};
  size_t length = 0;
  uint8_t low = 0x80, high = 0xBF;  // range of the second byte: excludes overlong forms, surrogates, > U+10FFFF
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {0, 0};
  }
  size_t valid = 1;
  while (valid < length && valid < text.size()) {
    if (byte(valid) < low || byte(valid) > high) break;
    low = 0x80;
    high = 0xBF;
    ++valid;
  }
  return {length, valid};
}

}  // namespace

std::optional<size_t> first_invalid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Sequence sequence = examine(text.substr(i));
    if (sequence.length == 0 || sequence.valid < sequence.length) return i;
    i += sequence.length;
  }
  return std::nullopt;
}

size_t complete_utf8_prefix(std::string_view text) {
  // Only the last three bytes can begin a sequence that is still incomplete.
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const size_t start = text.size() - back;
    const uint8_t byte = static_cast<uint8_t>(text[start]);
    if ((byte & 0xC0) == 0x80) continue;
    const Sequence sequence = examine(text.substr(start));
    return sequence.length > back && sequence.valid == back ? start : text.size();
  }
  return text.size();
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Sequence sequence = examine(text.substr(i));
    if (sequence.length != 0 && sequence.valid == sequence.length) {
      out.append(text.substr(i, sequence.length));
      i += sequence.length;
    } else {
      out += "\xEF\xBF\xBD";
      i += std::max<size_t>(1, sequence.valid);
    }
  }
  return out;
}

std::optional<char32_t> next_code_point(std::string_view text, size_t& position) {
  const Sequence sequence = examine(text.substr(position));
  if (sequence.length == 0 || sequence.valid < sequence.length) {
    ++position;
    return std::nullopt;
  }
  constexpr uint8_t lead_mask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  char32_t code_point = static_cast<uint8_t>(text[position]) & lead_mask[sequence.length];
  for (size_t i = 1; i < sequence.length; ++i) {
    code_point = (code_point << 6) | (static_cast<uint8_t>(text[position + i]) & 0x3F);
  }
  position += sequence.length;
  return code_point;
}

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

}  // namespace qkv
