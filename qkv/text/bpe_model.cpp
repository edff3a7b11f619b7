// Short words by scanning for the lowest rank, long ones by a heap over a linked list.
#include "qkv/text/bpe_model.h"

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/text/byte_alphabet.h"

namespace qkv {
namespace {

constexpr uint32_t kNoRank = ~uint32_t{0};
// Above this many symbols the quadratic scan loses to the heap.
constexpr size_t kScanLimit = 96;

int32_t find_or(const Vocabulary& words, std::string_view word, int32_t fallback) {
  const auto found = words.find(word);
  return found == words.end() ? fallback : found->second;
}

// The end of the character at `begin`; an invalid byte is a character.
size_t character_end(std::string_view word, size_t begin) {
  size_t end = begin;
  next_code_point(word, end);
  return end;
}

}  // namespace

void PairTable::build(const std::vector<BpeMerge>& merges) {
  size_t size = 16;
  while (size < merges.size() * 2) size *= 2;
  slots_.assign(size, Slot{});
  mask_ = size - 1;
  for (const auto& merge : merges) {
    const uint64_t key = key_of(merge.left, merge.right);
    size_t i = hash(key) & mask_;
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
    if (slots_[i].key == key && slots_[i].value.rank <= merge.rank) continue;
    slots_[i] = {key, {merge.rank, merge.result}};
  }
}

BpeModel::BpeModel(const Vocabulary& words, const std::vector<BpeMerge>& merges, BpeOptions options)
    : options_(std::move(options)), words_(words) {
  pairs_.build(merges);
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    byte_ids_[byte] = options_.byte_level ? find_or(words_, std::string_view(&text, 1), -1) : -1;
    fallback_ids_[byte] =
        options_.byte_fallback ? find_or(words_, byte_token(static_cast<uint8_t>(byte)), -1) : -1;
  }
}

void BpeModel::initial_symbols(std::string_view word, WordScratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  bool after_unknown = false;
  const auto add_unknown = [&] {
    if (options_.unk && !(options_.fuse_unk && after_unknown)) symbols.push_back(*options_.unk);
    after_unknown = true;
  };
  if (options_.byte_level && options_.continuing_subword_prefix.empty() &&
      options_.end_of_word_suffix.empty()) {
    for (const char c : word) {
      const int32_t id = byte_ids_[static_cast<uint8_t>(c)];
      if (id >= 0) {
        symbols.push_back(id);
        after_unknown = false;
      } else {
        add_unknown();
      }
    }
    return;
  }
  for (size_t begin = 0; begin < word.size();) {
    const size_t end = options_.byte_level ? begin + 1 : character_end(word, begin);
    auto& spelling = scratch.text;
    spelling.clear();
    if (begin > 0) spelling += options_.continuing_subword_prefix;
    spelling += word.substr(begin, end - begin);
    if (end == word.size()) spelling += options_.end_of_word_suffix;
    const int32_t id = find_or(words_, spelling, -1);
    const auto has_fallback = [&](char c) { return fallback_ids_[static_cast<uint8_t>(c)] >= 0; };
    if (id >= 0) {
      symbols.push_back(id);
      after_unknown = false;
    } else if (std::all_of(spelling.begin(), spelling.end(), has_fallback)) {
      for (const char c : spelling) symbols.push_back(fallback_ids_[static_cast<uint8_t>(c)]);
      after_unknown = false;
    } else {
      add_unknown();
    }
    begin = end;
  }
}

void BpeModel::merge_by_scan(WordScratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& ranks = scratch.ranks;
  auto& results = scratch.next;
  size_t count = symbols.size();
  ranks.resize(count);
  results.resize(count);
  const auto look_up = [&](size_t i) {
    const auto* pair = i + 1 < count ? pairs_.find(symbols[i], symbols[i + 1]) : nullptr;
    ranks[i] = pair ? pair->rank : kNoRank;
    results[i] = pair ? pair->result : 0;
  };
  for (size_t i = 0; i < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNoRank) break;
    symbols[best] = results[best];
    for (size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      ranks[i] = ranks[i + 1];
      results[i] = results[i + 1];
    }
    --count;
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  symbols.resize(count);
}

void BpeModel::merge_by_heap(WordScratch& scratch) const {
  using Candidate = WordScratch::Candidate;
  auto& symbols = scratch.symbols;
  auto& next = scratch.next;
  auto& previous = scratch.previous;
  auto& heap = scratch.heap;
  const auto count = static_cast<int32_t>(symbols.size());
  next.resize(symbols.size());
  previous.resize(symbols.size());
  heap.clear();
  for (int32_t i = 0; i < count; ++i) {
    next[i] = i + 1 < count ? i + 1 : -1;
    previous[i] = i - 1;
  }
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  const auto consider = [&](int32_t left) {
    const int32_t right = next[left];
    if (right < 0) return false;
    const auto* pair = pairs_.find(symbols[left], symbols[right]);
    if (!pair) return false;
    heap.push_back({pair->rank, left, symbols[left], symbols[right]});
    return true;
  };
  for (int32_t i = 0; i + 1 < count; ++i) consider(i);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate candidate = heap.back();
    heap.pop_back();
    const int32_t left = candidate.left, right = next[left];
    // Stale if either side has been merged since; a merged right side has symbol -1.
    if (right < 0 || symbols[left] != candidate.left_id || symbols[right] != candidate.right_id) continue;
    symbols[left] = pairs_.find(candidate.left_id, candidate.right_id)->result;
    symbols[right] = -1;
    next[left] = next[right];
    if (next[right] >= 0) previous[next[right]] = left;
    if (consider(left)) std::push_heap(heap.begin(), heap.end(), later);
    if (previous[left] >= 0 && consider(previous[left])) std::push_heap(heap.begin(), heap.end(), later);
  }
  std::erase(symbols, -1);
}

void BpeModel::encode_word(std::string_view word, WordScratch& scratch, std::vector<int32_t>& ids) const {
  require(word.size() <= static_cast<size_t>(INT32_MAX),
          "text to encode: expected at most 2 GiB in one piece, found {} bytes", word.size());
  if (options_.ignore_merges) {
    if (const int32_t id = find_or(words_, word, -1); id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  initial_symbols(word, scratch);
  if (scratch.symbols.size() <= kScanLimit) {
    merge_by_scan(scratch);
  } else {
    merge_by_heap(scratch);
  }
  ids.insert(ids.end(), scratch.symbols.begin(), scratch.symbols.end());
}

}  // namespace qkv
