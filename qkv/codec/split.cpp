#include "qkv/codec/split.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "qkv/codec/huffman.h"
#include "qkv/core/error.h"
#include "qkv/kernels/codec_kernels.h"

namespace qkv {
namespace {

// 16-bit numbers: sign | nine field bits | six low bits.
constexpr int kFieldShift = 6;
constexpr int kFieldSymbols = 512;

enum class Form : uint8_t { plain = 0, coded = 1 };

void append(std::vector<std::byte>& out, const void* data, size_t n) {
  const auto* bytes = static_cast<const std::byte*>(data);
  out.insert(out.end(), bytes, bytes + n);
}

size_t packed_bytes(size_t n) {
  return (n + 7) / 8 * 7;
}

void append_packed(const std::vector<uint8_t>& rest, std::vector<std::byte>& out) {
  const size_t start = out.size(), n = rest.size();
  out.resize(start + packed_bytes(n) + 1);
  codec_kernels().pack7(rest.data(), static_cast<int64_t>(n), out.data() + start);
  out.resize(start + packed_bytes(n));
}

// Bits per symbol by a sample of every 8th.
double sampled_entropy(const std::vector<uint8_t>& symbols) {
  std::vector<uint8_t> sample;
  for (size_t i = 0; i < symbols.size(); i += 8) sample.push_back(symbols[i]);
  return entropy_bits(count_symbols(sample));
}

// A plane of bytes, coded if that pays. `plain` appends it uncoded, in `plain_bytes`.
template <typename Plain>
void append_plane(const std::vector<uint8_t>& plane, size_t plain_bytes, int plain_bits,
                  std::vector<std::byte>& out, Plain&& plain) {
  if (sampled_entropy(plane) < 0.98 * plain_bits) {
    const SymbolCounts counts = count_symbols(plane);
    const HuffmanCode code(counts);
    if (code.encoded_bytes(counts) * 100 < plain_bytes * 99) {
      out.push_back(static_cast<std::byte>(Form::coded));
      code.encode(plane, out);
      return;
    }
  }
  out.push_back(static_cast<std::byte>(Form::plain));
  plain();
}

// To the scratch's field and plane.
void split_words16(std::span<const std::byte> raw, SplitScratch& scratch) {
  const size_t n = raw.size() / 2;
  scratch.field.resize(n);
  scratch.plane.resize(n);
  // Chunks of mapped files and tensors are aligned; what is not takes a copy.
  const uint16_t* words = reinterpret_cast<const uint16_t*>(raw.data());
  if (reinterpret_cast<uintptr_t>(raw.data()) % alignof(uint16_t) != 0) {
    scratch.words.resize(n);
    std::memcpy(scratch.words.data(), raw.data(), 2 * n);
    words = scratch.words.data();
  }
  codec_kernels().split_words(words, static_cast<int64_t>(n), scratch.field.data(), scratch.plane.data());
}

void encode_words16(std::span<const std::byte> raw, SplitScratch& scratch, std::vector<std::byte>& out) {
  split_words16(raw, scratch);
  const SymbolCounts counts = count_symbols(scratch.field);
  HuffmanCode(counts).encode(scratch.field, out);
  append_plane(scratch.plane, packed_bytes(scratch.plane.size()), 7, out,
               [&] { append_packed(scratch.plane, out); });
}

void decode_words16(std::span<const std::byte> data, std::span<uint16_t> words) {
  const size_t n = words.size();
  size_t at = huffman_decode(data, kFieldSymbols, kFieldShift, words);
  require(at < data.size(), "[codec] split: the data end after the coded field");
  const auto form = static_cast<Form>(data[at++]);
  if (form == Form::coded) {
    std::vector<uint8_t> plane(n);
    huffman_decode(data.subspan(at), 128, plane);
    return codec_kernels().join_words(plane.data(), static_cast<int64_t>(n), words.data());
  }
  require(data.size() - at == packed_bytes(n), "[codec] split: expected {} packed bytes, found {}",
          packed_bytes(n), data.size() - at);
  codec_kernels().join_packed(data.data() + at, static_cast<int64_t>(n), words.data());
}

// 32-bit numbers: the exponent, then sign and mantissa as three bytes, the highest first. Bytes: themselves.
std::vector<std::vector<uint8_t>> planes_of(std::span<const std::byte> raw, Elements elements) {
  if (elements == Elements::bytes) {
    std::vector<uint8_t> plane(raw.size());
    std::memcpy(plane.data(), raw.data(), raw.size());
    return {std::move(plane)};
  }
  const size_t n = raw.size() / 4;
  std::vector<std::vector<uint8_t>> planes(4, std::vector<uint8_t>(n));
  for (size_t i = 0; i < n; ++i) {
    uint32_t word;
    std::memcpy(&word, raw.data() + 4 * i, 4);
    planes[0][i] = static_cast<uint8_t>(word >> 23);
    planes[1][i] = static_cast<uint8_t>((word >> 24 & 0x80) | (word >> 16 & 0x7F));
    planes[2][i] = static_cast<uint8_t>(word >> 8);
    planes[3][i] = static_cast<uint8_t>(word);
  }
  return planes;
}

void decode_planes(std::span<const std::byte> data, Elements elements, std::span<std::byte> raw) {
  const size_t count = elements == Elements::bytes ? 1 : 4, n = raw.size() / count;
  std::vector<std::vector<uint8_t>> planes(count, std::vector<uint8_t>(n));
  size_t at = 0;
  for (auto& plane : planes) {
    require(at < data.size(), "[codec] split: the data end before all planes");
    const auto form = static_cast<Form>(data[at++]);
    if (form == Form::coded) {
      at += huffman_decode(data.subspan(at), 256, plane);
    } else {
      require(n <= data.size() - at, "[codec] split: expected a plane of {} bytes, found {}", n,
              data.size() - at);
      std::memcpy(plane.data(), data.data() + at, n);
      at += n;
    }
  }
  require(at == data.size(), "[codec] split: expected {} bytes of planes, found {}", at, data.size());
  if (elements == Elements::bytes) {
    std::memcpy(raw.data(), planes[0].data(), n);
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    const uint32_t word = static_cast<uint32_t>(planes[1][i] & 0x80) << 24 |
                          static_cast<uint32_t>(planes[0][i]) << 23 |
                          static_cast<uint32_t>(planes[1][i] & 0x7F) << 16 |
                          static_cast<uint32_t>(planes[2][i]) << 8 | planes[3][i];
    std::memcpy(raw.data() + 4 * i, &word, 4);
  }
}

size_t element_bytes(Elements elements) {
  return elements == Elements::words16 ? 2 : elements == Elements::words32 ? 4 : 1;
}

}  // namespace

bool split_encode(std::span<const std::byte> raw, Elements elements, SplitScratch& scratch,
                  std::vector<std::byte>& out) {
  out.clear();
  if (raw.empty() || raw.size() % element_bytes(elements) != 0) return false;
  out.push_back(static_cast<std::byte>(elements));
  if (elements == Elements::words16) {
    encode_words16(raw, scratch, out);
  } else {
    for (const auto& plane : planes_of(raw, elements)) {
      append_plane(plane, plane.size(), 8, out, [&] { append(out, plane.data(), plane.size()); });
    }
  }
  return out.size() < raw.size();
}

void split_decode(std::span<const std::byte> data, std::span<std::byte> raw) {
  require(!data.empty(), "[codec] split: expected data, found none");
  const auto elements = static_cast<Elements>(data[0]);
  require(elements == Elements::bytes || elements == Elements::words16 || elements == Elements::words32,
          "[codec] split: unknown element kind {}", static_cast<int>(data[0]));
  require(!raw.empty() && raw.size() % element_bytes(elements) == 0,
          "[codec] split: {} bytes are no whole number of elements of {}", raw.size(),
          element_bytes(elements));
  if (elements == Elements::words16) {
    if (reinterpret_cast<uintptr_t>(raw.data()) % alignof(uint16_t) == 0) {
      decode_words16(data.subspan(1), {reinterpret_cast<uint16_t*>(raw.data()), raw.size() / 2});
    } else {
      std::vector<uint16_t> words(raw.size() / 2);
      decode_words16(data.subspan(1), words);
      std::memcpy(raw.data(), words.data(), raw.size());
    }
  } else {
    decode_planes(data.subspan(1), elements, raw);
  }
}

double split_share(std::span<const std::byte> raw, Elements elements, SplitScratch& scratch) {
  if (raw.empty() || raw.size() % element_bytes(elements) != 0) return 1;
  if (elements != Elements::words16) return std::min(1.0, plane_entropy_share(raw, elements));
  split_words16(raw, scratch);
  const double field = entropy_bits(count_symbols(scratch.field)),
               rest = std::min(7.0, entropy_bits(count_symbols(scratch.plane)));
  return std::min(1.0, (field + rest) / 16);
}

double plane_entropy_share(std::span<const std::byte> raw, Elements elements) {
  if (elements != Elements::words16) {
    double bits = 0;
    const auto planes = planes_of(raw, elements);
    for (const auto& plane : planes) bits += entropy_bits(count_symbols(plane));
    return bits / 8 / static_cast<double>(planes.size());
  }
  // bf16: the exponent, and sign with mantissa.
  std::vector<uint8_t> exponent(raw.size() / 2), rest(raw.size() / 2);
  for (size_t i = 0; i < exponent.size(); ++i) {
    uint16_t word;
    std::memcpy(&word, raw.data() + 2 * i, 2);
    exponent[i] = static_cast<uint8_t>(word >> 7);
    rest[i] = static_cast<uint8_t>((word >> 8 & 0x80) | (word & 0x7F));
  }
  return (entropy_bits(count_symbols(exponent)) + entropy_bits(count_symbols(rest))) / 16;
}

}  // namespace qkv
