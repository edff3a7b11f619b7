#include "qkv/codec/dictionary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "qkv/core/error.h"
#include "qkv/kernels/codec_kernels.h"

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
  // Two tables: equal neighbours would otherwise wait for each other's store.
  std::vector<uint32_t> counts(65536), odd(65536);
  for (size_t i = 0; i + 1 < words.size(); i += 2) {
    ++counts[words[i]];
    ++odd[words[i + 1]];
  }
  if (words.size() % 2 != 0) ++counts[words.back()];
  for (size_t w = 0; w < counts.size(); ++w) counts[w] += odd[w];
  std::vector<std::pair<uint32_t, uint16_t>> order;
  for (size_t w = 0; w < counts.size(); ++w) {
    if (counts[w] > 0) order.emplace_back(counts[w], static_cast<uint16_t>(w));
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  return order;
}

std::vector<uint16_t> words_of(std::span<const std::byte> raw) {
  std::vector<uint16_t> words(raw.size() / 2);
  std::memcpy(words.data(), raw.data(), raw.size());
  return words;
}

struct Choice {
  int bits = -1;  // no codebook makes the chunk smaller
  size_t covered = 0, bytes = 0;
};
Choice best_choice(const std::vector<std::pair<uint32_t, uint16_t>>& order, size_t n, int entries) {
  Choice best{-1, 0, 2 * n};
  for (int bits = kLeastBits; bits <= kMostBits; ++bits) {
    if (entries != 0 && entries != 1 << bits) continue;
    size_t covered = 0;
    for (size_t e = 0; e < std::min(order.size(), size_t{1} << bits); ++e) covered += order[e].first;
    const size_t bytes = encoded_bytes(n, covered, bits);
    if (bytes < best.bytes) best = {bits, covered, bytes};
  }
  return best;
}

// Writes numbers of a fixed width, least significant bit first, into zeros.
class BitWriter {
 public:
  BitWriter(std::byte* to, int bits) : to_(to), bits_(bits) {}
  void put(uint64_t value) {
    word_ |= value << used_;
    used_ += bits_;
    for (; used_ >= 8; used_ -= 8, word_ >>= 8) *to_++ = static_cast<std::byte>(word_ & 0xFF);
  }
  void finish() {
    if (used_ > 0) *to_ = static_cast<std::byte>(word_ & 0xFF);
  }

 private:
  std::byte* to_;
  int bits_, used_ = 0;
  uint64_t word_ = 0;
};

// Set bits of the bitmaps.
size_t count_covered(std::span<const std::byte> bitmaps) {
  size_t count = 0, i = 0;
  for (; i + 8 <= bitmaps.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bitmaps.data() + i, sizeof word);
    count += static_cast<size_t>(std::popcount(word));
  }
  for (; i < bitmaps.size(); ++i)
    count += static_cast<size_t>(std::popcount(static_cast<unsigned>(bitmaps[i])));
  return count;
}

// What merging may read behind the words that it needs.
constexpr size_t kMergeSlack = 32;

// Elements of which some are indices: looked up and merged a piece at a time, which stays in the cache.
void expand(std::span<const std::byte> bitmaps, const std::byte* indices, int bits, const uint16_t* codebook,
            std::span<const std::byte> others, std::span<uint16_t> words) {
  constexpr size_t piece_groups = 512;
  std::array<uint16_t, piece_groups * kGroup + kGroup + kMergeSlack> known{};
  std::array<uint16_t, piece_groups * kGroup + kMergeSlack> last_others{};
  size_t index = 0, other = 0;
  for (size_t g = 0; g < bitmaps.size();) {
    const size_t count = std::min(piece_groups, bitmaps.size() - g);
    const size_t covered = count_covered(bitmaps.subspan(g, count));
    // Lookups begin at whole bytes: at a multiple of eight indices, up to seven before the first new one.
    const size_t before = index % kGroup;
    codec_kernels().look_up(indices + (index - before) / kGroup * static_cast<size_t>(bits), bits,
                            static_cast<int64_t>(before + covered), codebook, known.data());
    const size_t begin = g * kGroup, n = std::min(words.size() - begin, count * kGroup);
    const size_t needed = n - covered;
    const std::byte* from = others.data() + 2 * other;
    if (others.size() / 2 - other <
        needed + kMergeSlack) {  // the end is near: from memory with room behind it
      std::memcpy(last_others.data(), from, 2 * needed);
      from = reinterpret_cast<const std::byte*>(last_others.data());
    }
    const size_t whole = n / kGroup;
    codec_kernels().merge_words(bitmaps.data() + g, static_cast<int64_t>(whole), known.data() + before, from,
                                words.data() + begin);
    if (n % kGroup != 0) {
      std::array<uint16_t, kGroup> group{};
      const size_t merged = count_covered(bitmaps.subspan(g, whole));
      codec_kernels().merge_words(bitmaps.data() + g + whole, 1, known.data() + before + merged,
                                  from + 2 * (whole * kGroup - merged), group.data());
      std::copy_n(group.data(), n % kGroup, words.data() + begin + whole * kGroup);
    }
    index += covered;
    other += needed;
    g += count;
  }
}

}  // namespace

size_t dictionary_bytes(std::span<const std::byte> raw, int entries) {
  if (raw.empty() || raw.size() % 2 != 0) return raw.size();
  const std::vector<uint16_t> words = words_of(raw);
  return best_choice(by_count(words), words.size(), entries).bytes;
}

bool dictionary_encode(std::span<const std::byte> raw, int entries, std::vector<std::byte>& out) {
  out.clear();
  if (raw.empty() || raw.size() % 2 != 0) return false;
  const size_t n = raw.size() / 2;
  const std::vector<uint16_t> words = words_of(raw);
  const auto order = by_count(words);
  const auto [best_bits, best_covered, best_bytes] = best_choice(order, n, entries);
  if (best_bits < 0) return false;

  const size_t size = size_t{1} << best_bits;
  constexpr uint16_t none = 0xFFFF;
  std::vector<uint16_t> index_of(65536, none), codebook(size);
  for (size_t e = 0; e < std::min(order.size(), size); ++e) {
    codebook[e] = order[e].second;
    index_of[order[e].second] = static_cast<uint16_t>(e);
  }
  const bool all = order.size() <= size;
  out.assign(best_bytes, std::byte{0});
  out[0] = static_cast<std::byte>(best_bits);
  out[1] = static_cast<std::byte>(all ? 1 : 0);
  std::memcpy(out.data() + 2, codebook.data(), 2 * size);
  std::byte* bitmaps = out.data() + 2 + 2 * size;
  BitWriter indices(bitmaps + (all ? 0 : (n + kGroup - 1) / kGroup), best_bits);
  std::byte* others = out.data() + best_bytes - 2 * (n - best_covered);
  for (size_t g = 0; g < n; g += kGroup) {
    unsigned map = 0;
    for (size_t i = g; i < std::min(n, g + kGroup); ++i) {
      const uint16_t entry = index_of[words[i]];
      if (entry != none) {
        map |= 1u << (i - g);
        indices.put(entry);
      } else {
        std::memcpy(others, &words[i], 2);
        others += 2;
      }
    }
    if (!all) *bitmaps++ = static_cast<std::byte>(map);
  }
  indices.finish();
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
  const std::byte *bitmaps = all ? nullptr : data.data() + 2 + 2 * entries, *indices = data.data() + header;
  size_t covered = n;
  if (!all) {
    covered = count_covered({bitmaps, groups});
    require(
        covered <= n && (n % kGroup == 0 || static_cast<unsigned>(bitmaps[groups - 1]) >> n % kGroup == 0),
        "[codec] dictionary: bitmaps cover more than the {} elements", n);
  }
  const size_t expected = header + index_bytes(covered, bits) + 2 * (n - covered);
  require(data.size() == expected, "[codec] dictionary: expected {} bytes, found {}", expected, data.size());
  // Words are made where they belong if that is a place for words.
  std::vector<uint16_t> copy;
  uint16_t* words = reinterpret_cast<uint16_t*>(raw.data());
  if (reinterpret_cast<uintptr_t>(raw.data()) % alignof(uint16_t) != 0) {
    copy.resize(n);
    words = copy.data();
  }
  if (all) {
    codec_kernels().look_up(indices, bits, static_cast<int64_t>(n), codebook.data(), words);
  } else {
    const auto others = data.subspan(header + index_bytes(covered, bits));
    expand({bitmaps, groups}, indices, bits, codebook.data(), others, {words, n});
  }
  if (!copy.empty()) std::memcpy(raw.data(), words, raw.size());
}

}  // namespace qkv
