#include "qkv/codec/dictionary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr int kLeastBits = 4, kMostBits = 12;
constexpr size_t kGroup = 8;
constexpr size_t kPadding = 8;  // after packed indices, so that a word may always be loaded

size_t index_bytes(size_t covered, int bits) {
  return bits == 8 ? covered : (covered * static_cast<size_t>(bits) + 7) / 8 + kPadding;
}

size_t encoded_bytes(size_t n, size_t covered, int bits) {
  const size_t codebook = size_t{2} << bits;
  return 2 + codebook + (covered == n ? 0 : (n + kGroup - 1) / kGroup) + index_bytes(covered, bits) +
         2 * (n - covered);
}

// Distinct words by falling count, the smaller word first among equals.
std::vector<std::pair<uint32_t, uint16_t>> by_count(std::span<const uint16_t> words) {
  std::vector<uint32_t> counts(65536);
  for (const uint16_t word : words) ++counts[word];
  std::vector<std::pair<uint32_t, uint16_t>> order;
  for (size_t w = 0; w < counts.size(); ++w) {
    if (counts[w] > 0) order.emplace_back(counts[w], static_cast<uint16_t>(w));
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  return order;
}

// Appends numbers of a fixed width, least significant bit first.
class BitWriter {
 public:
  BitWriter(std::vector<std::byte>& out, int bits) : out_(out), bits_(bits) {}
  void put(uint64_t value) {
    word_ |= value << used_;
    used_ += bits_;
    while (used_ >= 8) {
      out_.push_back(static_cast<std::byte>(word_ & 0xFF));
      word_ >>= 8;
      used_ -= 8;
    }
  }
  void finish() {
    if (used_ > 0) out_.push_back(static_cast<std::byte>(word_ & 0xFF));
  }

 private:
  std::vector<std::byte>& out_;
  int bits_, used_ = 0;
  uint64_t word_ = 0;
};

// The i-th index.
template <bool kBytes>
inline size_t index_at(const std::byte* indices, size_t i, int bits) {
  if constexpr (kBytes) return static_cast<size_t>(indices[i]);
  const size_t bit = i * static_cast<size_t>(bits);
  uint32_t word;
  std::memcpy(&word, indices + bit / 8, sizeof word);
  return word >> bit % 8 & ((1u << bits) - 1);
}

// For every bitmap, how many of its lower bits are set before each position.
constexpr std::array<std::array<uint8_t, kGroup>, 256> kBefore = [] {
  std::array<std::array<uint8_t, kGroup>, 256> table{};
  for (size_t map = 0; map < 256; ++map) {
    for (size_t i = 0; i < kGroup; ++i)
      table[map][i] = static_cast<uint8_t>(std::popcount(map & ((1u << i) - 1)));
  }
  return table;
}();

struct Layout {
  int bits;
  const std::byte *bitmaps, *indices, *raws;  // bitmaps null: all covered
};

template <bool kBytes>
void expand(const Layout& at, const uint16_t* codebook, uint16_t* words, size_t n) {
  if (at.bitmaps == nullptr) {
    for (size_t i = 0; i < n; ++i) words[i] = codebook[index_at<kBytes>(at.indices, i, at.bits)];
    return;
  }
  size_t index = 0;
  const std::byte* raw = at.raws;
  const auto raw_at = [&](size_t i) {
    uint16_t word;
    std::memcpy(&word, raw + 2 * i, 2);
    return word;
  };
  const size_t groups = n / kGroup;
  for (size_t g = 0; g < groups; ++g) {
    const auto map = static_cast<size_t>(at.bitmaps[g]);
    uint16_t* to = words + g * kGroup;
    if (map == 0) {
      std::memcpy(to, raw, 2 * kGroup);
      raw += 2 * kGroup;
      continue;
    }
    const auto covered = static_cast<size_t>(std::popcount(map));
    if (map == 255) {
      for (size_t i = 0; i < kGroup; ++i) to[i] = codebook[index_at<kBytes>(at.indices, index + i, at.bits)];
    } else {
      // Indices and raws go to their places one after the other: no element waits for the one before it.
      const auto& before = kBefore[map];
      for (size_t i = 0; i < kGroup; ++i) {
        const bool is_index = (map >> i & 1) != 0;
        const uint16_t known =
            codebook[index_at<kBytes>(at.indices, index + std::min<size_t>(before[i], covered - 1), at.bits)];
        const uint16_t other = raw_at(std::min<size_t>(i - before[i], kGroup - covered - 1));
        to[i] = is_index ? known : other;
      }
    }
    index += covered;
    raw += 2 * (kGroup - covered);
  }
  for (size_t i = groups * kGroup; i < n; ++i) {
    if ((static_cast<size_t>(at.bitmaps[groups]) >> (i - groups * kGroup) & 1) != 0) {
      words[i] = codebook[index_at<kBytes>(at.indices, index++, at.bits)];
    } else {
      words[i] = raw_at(0);
      raw += 2;
    }
  }
}

}  // namespace

bool dictionary_encode(std::span<const std::byte> raw, int entries, std::vector<std::byte>& out) {
  out.clear();
  if (raw.empty() || raw.size() % 2 != 0) return false;
  const size_t n = raw.size() / 2;
  std::vector<uint16_t> words(n);
  std::memcpy(words.data(), raw.data(), raw.size());
  const auto order = by_count(words);

  int best_bits = -1;
  size_t best_bytes = raw.size();
  for (int bits = kLeastBits; bits <= kMostBits; ++bits) {
    if (entries != 0 && entries != 1 << bits) continue;
    size_t covered = 0;
    for (size_t e = 0; e < std::min(order.size(), size_t{1} << bits); ++e) covered += order[e].first;
    const size_t bytes = encoded_bytes(n, covered, bits);
    if (bytes < best_bytes) {
      best_bytes = bytes;
      best_bits = bits;
    }
  }
  if (best_bits < 0) return false;

  const size_t size = size_t{1} << best_bits;
  constexpr uint16_t none = 0xFFFF;
  std::vector<uint16_t> index_of(65536, none), codebook(size);
  for (size_t e = 0; e < std::min(order.size(), size); ++e) {
    codebook[e] = order[e].second;
    index_of[order[e].second] = static_cast<uint16_t>(e);
  }
  const bool all = order.size() <= size;
  out.reserve(best_bytes + kPadding);
  out.push_back(static_cast<std::byte>(best_bits));
  out.push_back(static_cast<std::byte>(all ? 1 : 0));
  const auto append = [&](const void* data, size_t bytes) {
    const auto* from = static_cast<const std::byte*>(data);
    out.insert(out.end(), from, from + bytes);
  };
  append(codebook.data(), 2 * size);
  if (!all) {
    for (size_t g = 0; g < n; g += kGroup) {
      unsigned map = 0;
      for (size_t i = g; i < std::min(n, g + kGroup); ++i)
        map |= (index_of[words[i]] != none ? 1u : 0u) << (i - g);
      out.push_back(static_cast<std::byte>(map));
    }
  }
  BitWriter indices(out, best_bits);
  for (const uint16_t word : words) {
    if (index_of[word] != none) indices.put(index_of[word]);
  }
  indices.finish();
  if (best_bits != 8) out.insert(out.end(), kPadding, std::byte{0});
  for (const uint16_t word : words) {
    if (index_of[word] == none) append(&word, 2);
  }
  return true;
}

void dictionary_decode(std::span<const std::byte> data, std::span<std::byte> raw) {
  require(data.size() >= 2 && raw.size() % 2 == 0,
          "[codec] dictionary: expected 16-bit words, found {} bytes from {}", raw.size(), data.size());
  const int bits = static_cast<int>(data[0]);
  const bool all = data[1] != std::byte{0};
  require(kLeastBits <= bits && bits <= kMostBits,
          "[codec] dictionary: expected 2^{} to 2^{} entries, found 2^{}", kLeastBits, kMostBits, bits);
  const size_t n = raw.size() / 2, entries = size_t{1} << bits, groups = (n + kGroup - 1) / kGroup;
  const size_t header = 2 + 2 * entries + (all ? 0 : groups);
  require(data.size() >= header, "[codec] dictionary: expected {} bytes before the indices, found {}", header,
          data.size());
  std::vector<uint16_t> codebook(entries);
  std::memcpy(codebook.data(), data.data() + 2, 2 * entries);
  Layout at{bits, all ? nullptr : data.data() + 2 + 2 * entries, data.data() + header, nullptr};
  size_t covered = n;
  if (!all) {
    covered = 0;
    for (size_t g = 0; g < groups; ++g)
      covered += static_cast<size_t>(std::popcount(static_cast<unsigned>(at.bitmaps[g])));
    require(
        covered <= n && (n % kGroup == 0 || static_cast<unsigned>(at.bitmaps[groups - 1]) >> n % kGroup == 0),
        "[codec] dictionary: bitmaps cover more than the {} elements", n);
  }
  const size_t expected = header + index_bytes(covered, bits) + 2 * (n - covered);
  require(data.size() == expected, "[codec] dictionary: expected {} bytes, found {}", expected, data.size());
  at.raws = at.indices + index_bytes(covered, bits);
  std::vector<uint16_t> words(n);
  if (bits == 8) {
    expand<true>(at, codebook.data(), words.data(), n);
  } else {
    expand<false>(at, codebook.data(), words.data(), n);
  }
  std::memcpy(raw.data(), words.data(), raw.size());
}

}  // namespace qkv
