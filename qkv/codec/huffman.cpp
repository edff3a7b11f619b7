#include "qkv/codec/huffman.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "qkv/core/error.h"
#include "qkv/kernels/codec_kernels.h"

namespace qkv {
namespace {

constexpr int kStreams = kCodecStreams;
constexpr size_t kPadding = 8;  // bytes after each stream
static_assert(kHuffmanBits == kCodecBits);
constexpr size_t kTableSize = size_t{1} << kHuffmanBits;

uint64_t load64(const std::byte* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

template <typename T>
SymbolCounts count(std::span<const T> symbols) {
  // Four tables: equal neighbours would otherwise wait for each other's store.
  std::vector<std::array<uint32_t, kHuffmanSymbols>> tables(4);
  size_t i = 0;
  for (; i + 4 <= symbols.size(); i += 4) {
    for (size_t t = 0; t < 4; ++t) ++tables[t][symbols[i + t]];
  }
  for (; i < symbols.size(); ++i) ++tables[0][symbols[i]];
  SymbolCounts total{};
  for (const auto& table : tables) {
    for (size_t s = 0; s < total.size(); ++s) total[s] += table[s];
  }
  return total;
}

// Package-merge: the cheapest way to buy n - 1 units of Kraft sum with coins 2^-1 ... 2^-limit, one of each
// per symbol. Each level pairs the packages of the level below with fresh leaves; a symbol's length is how
// often it is bought.
void limited_lengths(const std::vector<std::pair<uint32_t, int>>& leaves,
                     std::array<uint8_t, kHuffmanSymbols>& lengths) {
  struct Item {
    uint64_t weight;
    int symbol;       // -1: a package
    int left, right;  // items of the level below
  };
  std::vector<std::vector<Item>> levels(kHuffmanBits);
  for (size_t level = 0; level < levels.size(); ++level) {
    std::vector<Item> packages;
    if (level > 0) {
      const auto& below = levels[level - 1];
      for (size_t i = 0; i + 1 < below.size(); i += 2) {
        packages.push_back(
            {below[i].weight + below[i + 1].weight, -1, static_cast<int>(i), static_cast<int>(i + 1)});
      }
    }
    std::vector<Item> fresh;
    for (const auto& [weight, symbol] : leaves) fresh.push_back({weight, symbol, -1, -1});
    levels[level].resize(packages.size() + fresh.size());
    std::merge(fresh.begin(), fresh.end(), packages.begin(), packages.end(), levels[level].begin(),
               [](const Item& a, const Item& b) { return a.weight < b.weight; });
  }
  std::vector<std::pair<size_t, int>> stack;
  for (size_t i = 0; i < 2 * leaves.size() - 2; ++i)
    stack.emplace_back(levels.size() - 1, static_cast<int>(i));
  while (!stack.empty()) {
    const auto [level, index] = stack.back();
    stack.pop_back();
    const Item& item = levels[level][static_cast<size_t>(index)];
    if (item.symbol >= 0) {
      ++lengths[static_cast<size_t>(item.symbol)];
    } else {
      stack.emplace_back(level - 1, item.left);
      stack.emplace_back(level - 1, item.right);
    }
  }
}

uint32_t reversed(uint32_t code, int bits) {
  uint32_t result = 0;
  for (int i = 0; i < bits; ++i) result |= (code >> i & 1u) << (bits - 1 - i);
  return result;
}

// Canonical codes: by length, then by symbol. False if the lengths are no prefix code.
bool canonical_codes(const std::array<uint8_t, kHuffmanSymbols>& lengths,
                     std::array<uint32_t, kHuffmanSymbols>& codes) {
  std::array<uint32_t, kHuffmanBits + 2> of_length{}, next{};
  for (const uint8_t length : lengths) {
    if (length > 0) ++of_length[length];
  }
  uint32_t code = 0, space = 0;
  for (size_t length = 1; length <= kHuffmanBits; ++length) {
    code = (code + of_length[length - 1]) << 1;
    next[length] = code;
    space += of_length[length] << (kHuffmanBits - length);
  }
  if (space > kTableSize) return false;
  for (size_t s = 0; s < lengths.size(); ++s) {
    const int length = lengths[s];
    if (length > 0)
      codes[s] = reversed(next[static_cast<size_t>(length)]++, length) | static_cast<uint32_t>(length) << 16;
  }
  return true;
}

struct Single {
  uint16_t symbol = 0;
  uint8_t bits = 0;
};

struct DecodeTables {
  std::vector<Single> single;   // by the next kHuffmanBits bits: their first symbol
  std::vector<uint64_t> multi;  // all symbols that fit (codec_kernels.h)
};

template <typename T>
DecodeTables build_tables(const std::array<uint32_t, kHuffmanSymbols>& codes, int shift) {
  DecodeTables tables;
  // Bits that begin no code, which only damaged data have, count as some symbol: decoding goes on and ends.
  tables.single.assign(kTableSize, {0, kHuffmanBits});
  for (size_t s = 0; s < codes.size(); ++s) {
    const uint32_t bits = codes[s] >> 16, code = codes[s] & 0xFFFF;
    if (bits == 0) continue;
    for (size_t i = code; i < kTableSize; i += size_t{1} << bits)
      tables.single[i] = {static_cast<uint16_t>(s << shift), static_cast<uint8_t>(bits)};
  }
  tables.multi.resize(kTableSize);
  for (size_t i = 0; i < kTableSize; ++i) {
    uint64_t entry = 0;
    int used = 0, n = 0;
    while (n < kCodecSymbols<T>) {
      const Single& next = tables.single[i >> used];
      if (used + next.bits > kHuffmanBits) break;
      entry |= static_cast<uint64_t>(static_cast<T>(next.symbol)) << (16 + 8 * static_cast<int>(sizeof(T)) * n);
      used += next.bits;
      ++n;
    }
    tables.multi[i] = entry | static_cast<uint64_t>(n) << 8 | static_cast<uint64_t>(used);
  }
  return tables;
}

void read_streams(std::array<HuffmanReader<uint16_t>, kStreams>& streams, const uint64_t* table) {
  codec_kernels().huffman_read16(streams.data(), table);
}
void read_streams(std::array<HuffmanReader<uint8_t>, kStreams>& streams, const uint64_t* table) {
  codec_kernels().huffman_read8(streams.data(), table);
}

// One lookup.
template <typename T>
void read_word(HuffmanReader<T>& stream, const uint64_t* table) {
  const uint64_t entry = table[load64(stream.in) >> stream.bit & (kTableSize - 1)];
  const uint64_t symbols = entry >> 16;
  std::memcpy(stream.out, &symbols, sizeof symbols);
  stream.out += entry >> 8 & 0xFF;
  stream.bit += entry & 0xFF;
  stream.in += stream.bit >> 3;
  stream.bit &= 7;
}

// The last symbols one by one, so that the stream ends where its last code does.
template <typename T>
void finish_stream(HuffmanReader<T>& stream, const std::vector<Single>& table) {
  while (stream.out < stream.out_end) {
    require(stream.in <= stream.in_last, "[codec] a coded plane ends before its {} last symbols",
            stream.out_end - stream.out);
    const Single& next = table[load64(stream.in) >> stream.bit & (kTableSize - 1)];
    *stream.out++ = static_cast<T>(next.symbol);
    stream.bit += next.bits;
    stream.in += stream.bit >> 3;
    stream.bit &= 7;
  }
}

template <typename T>
size_t decode_plane(std::span<const std::byte> data, int alphabet, int shift, std::span<T> symbols) {
  const auto u16_at = [&](size_t at) {
    return static_cast<size_t>(data[at]) | static_cast<size_t>(data[at + 1]) << 8;
  };
  require(data.size() >= 4, "[codec] a coded plane of {} bytes is too short", data.size());
  const size_t first = u16_at(0), last = u16_at(2);
  require(first <= last && last < static_cast<size_t>(alphabet),
          "[codec] a coded plane has symbols {} to {}, expected some below {}", first, last, alphabet);
  size_t at = 4 + (last - first + 2) / 2;
  require(data.size() >= at + 4 * (kStreams - 1),
          "[codec] a coded plane of {} bytes is too short for its header", data.size());
  std::array<uint8_t, kHuffmanSymbols> lengths{};
  for (size_t s = first; s <= last; ++s) {
    const auto pair = static_cast<uint8_t>(data[4 + (s - first) / 2]);
    lengths[s] = (s - first) % 2 == 0 ? pair & 15 : pair >> 4;
    require(lengths[s] <= kHuffmanBits, "[codec] a coded plane has a code of {} bits, expected at most {}",
            lengths[s], kHuffmanBits);
  }
  std::array<uint32_t, kHuffmanSymbols> codes{};
  require(canonical_codes(lengths, codes), "[codec] a coded plane's lengths are those of no code");
  const DecodeTables tables = build_tables<T>(codes, shift);

  std::array<HuffmanReader<T>, kStreams> streams;
  std::array<uint32_t, kStreams - 1> sizes;
  std::memcpy(sizes.data(), data.data() + at, sizeof sizes);
  at += sizeof sizes;
  const size_t n = symbols.size();
  for (size_t s = 0; s < kStreams; ++s) {
    const size_t rest = data.size() - at;
    // The last stream's size follows from its symbols only: its end is found by decoding.
    const size_t size = s + 1 < kStreams ? sizes[s] : rest;
    require(kPadding <= size && size <= rest,
            "[codec] a coded plane's stream of {} bytes does not fit the {} that are left", size, rest);
    streams[s] = {data.data() + at, data.data() + at + size - kPadding, 0, symbols.data() + n * s / kStreams,
                  symbols.data() + n * (s + 1) / kStreams};
    at += s + 1 < kStreams ? size : 0;
  }
  read_streams(streams, tables.multi.data());
  for (auto& stream : streams) {
    // The streams do not end together: what is left of each, alone.
    while (stream.has_step()) read_word(stream, tables.multi.data());
    finish_stream(stream, tables.single);
  }
  const HuffmanReader<T>& tail = streams[kStreams - 1];
  const size_t end = static_cast<size_t>(tail.in - data.data()) + (tail.bit > 0 ? 1 : 0) + kPadding;
  require(end <= data.size(), "[codec] a coded plane ends before its last symbol");
  return end;
}

}  // namespace

SymbolCounts count_symbols(std::span<const uint16_t> symbols) {
  return count(symbols);
}
SymbolCounts count_symbols(std::span<const uint8_t> symbols) {
  return count(symbols);
}

double entropy_bits(const SymbolCounts& counts) {
  double total = 0, bits = 0;
  for (const uint32_t n : counts) total += n;
  for (const uint32_t n : counts) {
    if (n > 0) bits -= n / total * std::log2(n / total);
  }
  return bits;
}

HuffmanCode::HuffmanCode(const SymbolCounts& counts) {
  std::vector<std::pair<uint32_t, int>> leaves;
  for (size_t s = 0; s < counts.size(); ++s) {
    if (counts[s] > 0) leaves.emplace_back(counts[s], static_cast<int>(s));
  }
  require(!leaves.empty(), "[codec] a plane without symbols cannot be coded");
  first_ = leaves.front().second;
  last_ = leaves.back().second;
  std::sort(leaves.begin(), leaves.end());
  if (leaves.size() == 1) {
    lengths_[static_cast<size_t>(first_)] = 1;
  } else {
    limited_lengths(leaves, lengths_);
  }
  canonical_codes(lengths_, codes_);
}

size_t HuffmanCode::header_bytes() const {
  return 4 + static_cast<size_t>(last_ - first_ + 2) / 2 + 4 * (kStreams - 1);
}

size_t HuffmanCode::encoded_bytes(const SymbolCounts& counts) const {
  uint64_t bits = 0;
  for (size_t s = 0; s < counts.size(); ++s) bits += static_cast<uint64_t>(counts[s]) * lengths_[s];
  return header_bytes() + static_cast<size_t>(bits / 8) +
         kStreams * (kPadding + 1);  // at most: streams end in whole bytes
}

namespace {

void write_streams(std::array<HuffmanWriter<uint16_t>, kStreams>& writers, int64_t steps,
                   const uint32_t* codes) {
  codec_kernels().huffman_write16(writers.data(), steps, codes);
}
void write_streams(std::array<HuffmanWriter<uint8_t>, kStreams>& writers, int64_t steps,
                   const uint32_t* codes) {
  codec_kernels().huffman_write8(writers.data(), steps, codes);
}

}  // namespace

template <typename T>
void HuffmanCode::encode_plane(std::span<const T> symbols, std::vector<std::byte>& out) const {
  const auto append_u16 = [&](size_t value) {
    out.push_back(static_cast<std::byte>(value & 0xFF));
    out.push_back(static_cast<std::byte>(value >> 8));
  };
  append_u16(static_cast<size_t>(first_));
  append_u16(static_cast<size_t>(last_));
  for (int s = first_; s <= last_; s += 2) {
    const uint8_t low = lengths_[static_cast<size_t>(s)],
                  high = s + 1 <= last_ ? lengths_[static_cast<size_t>(s) + 1] : 0;
    out.push_back(static_cast<std::byte>(low | high << 4));
  }
  const size_t sizes_at = out.size(), n = symbols.size();
  const size_t room = (n / kStreams + 1) * kHuffmanBits / 8 + 2 * kPadding;  // of one stream
  const size_t start = sizes_at + 4 * (kStreams - 1);
  out.resize(start + kStreams * room);

  std::array<HuffmanWriter<T>, kStreams> writers;
  std::array<std::byte*, kStreams> begins;
  for (size_t s = 0; s < kStreams; ++s) {
    begins[s] = out.data() + start + s * room;
    writers[s] = {symbols.data() + n * s / kStreams, begins[s], 0, 0};
  }
  write_streams(writers, static_cast<int64_t>(n / kStreams / kCodecLookups), codes_.data());
  std::byte* end = out.data() + start;
  for (size_t s = 0; s < kStreams; ++s) {
    HuffmanWriter<T>& writer = writers[s];
    for (const T* last = symbols.data() + n * (s + 1) / kStreams; writer.symbol < last; ++writer.symbol) {
      const uint32_t code = codes_[*writer.symbol];
      writer.word |= static_cast<uint64_t>(code & 0xFFFF) << writer.used;
      writer.used += code >> 16;
      for (; writer.used >= 8; writer.used -= 8, writer.word >>= 8)
        *writer.to++ = static_cast<std::byte>(writer.word & 0xFF);
    }
    if (writer.used > 0) *writer.to++ = static_cast<std::byte>(writer.word & 0xFF);
    std::memset(writer.to, 0, kPadding);
    const auto size = static_cast<uint32_t>(writer.to - begins[s] + static_cast<std::ptrdiff_t>(kPadding));
    std::memmove(end, begins[s], size);
    end += size;
    if (s + 1 < kStreams) std::memcpy(out.data() + sizes_at + 4 * s, &size, sizeof size);
  }
  out.resize(static_cast<size_t>(end - out.data()));
}

void HuffmanCode::encode(std::span<const uint16_t> symbols, std::vector<std::byte>& out) const {
  encode_plane(symbols, out);
}
void HuffmanCode::encode(std::span<const uint8_t> symbols, std::vector<std::byte>& out) const {
  encode_plane(symbols, out);
}

size_t huffman_decode(std::span<const std::byte> data, int alphabet, int shift, std::span<uint16_t> symbols) {
  return decode_plane(data, alphabet, shift, symbols);
}
size_t huffman_decode(std::span<const std::byte> data, int alphabet, std::span<uint8_t> symbols) {
  return decode_plane(data, alphabet, 0, symbols);
}

}  // namespace qkv
