// Viterbi over the positions of the text.
#include "qkv/text/unigram.h"

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"

namespace qkv {
namespace {

constexpr double kUnknownPenalty = 10.0;
constexpr int32_t kUnknown = -2;  // a path's token

}  // namespace

size_t ByteTrie::slot_of(uint64_t key) const {
  const size_t mask = slots_.size() - 1;
  uint64_t hash = key * 0x9E3779B97F4A7C15ull;
  hash ^= hash >> 29;
  size_t i = hash & mask;
  while (slots_[i].key != 0 && slots_[i].key != key) i = (i + 1) & mask;
  return i;
}

void ByteTrie::grow() {
  std::vector<Slot> old(slots_.size() * 2);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.key != 0) slots_[slot_of(slot.key)] = slot;
  }
}

void ByteTrie::reserve(size_t bytes) {
  // Strings share beginnings: about two bytes in three make a node.
  while (slots_.size() < bytes) grow();
}

void ByteTrie::insert(std::string_view text, int32_t value) {
  int32_t node = kRoot;
  for (const char c : text) {
    const uint64_t key = key_of(node, static_cast<uint8_t>(c));
    size_t slot = slot_of(key);
    if (slots_[slot].key == 0) {
      if (++used_ * 4 > slots_.size() * 3) {
        grow();
        slot = slot_of(key);
      }
      slots_[slot] = {key, static_cast<int32_t>(values_.size())};
      values_.push_back(kNone);
    }
    node = slots_[slot].node;
  }
  values_[node] = value;
}

int32_t ByteTrie::child(int32_t node, uint8_t byte) const {
  const Slot& slot = slots_[slot_of(key_of(node, byte))];
  return slot.key == 0 ? kNone : slot.node;
}

UnigramModel::UnigramModel(const std::vector<Token>& tokens, double lowest_score, std::optional<int32_t> unk,
                           const std::array<int32_t, 256>& byte_ids, std::string where)
    : unknown_score_(lowest_score - kUnknownPenalty),
      unk_(unk),
      byte_ids_(byte_ids),
      where_(std::move(where)) {
  size_t bytes = 0;
  for (const Token& token : tokens) bytes += token.text.size();
  trie_.reserve(bytes);
  for (const Token& token : tokens) {
    if (token.text.empty()) continue;
    trie_.insert(token.text, static_cast<int32_t>(ids_.size()));
    ids_.push_back(token.id);
    scores_.push_back(token.score);
  }
}

void UnigramModel::append_unknown(std::string_view text, std::vector<int32_t>& ids) const {
  const auto has_byte = [&](char c) { return byte_ids_[static_cast<uint8_t>(c)] >= 0; };
  if (std::all_of(text.begin(), text.end(), has_byte)) {
    for (const char c : text) ids.push_back(byte_ids_[static_cast<uint8_t>(c)]);
    return;
  }
  require(unk_.has_value(), "{}: '{}' is not in the vocabulary, which has no unknown token", where_,
          replace_invalid_utf8(text.substr(0, 80)));
  ids.push_back(*unk_);
}

void UnigramModel::encode_word(std::string_view word, WordScratch& scratch, std::vector<int32_t>& ids) const {
  require(word.size() < static_cast<size_t>(INT32_MAX),
          "text to encode: expected at most 2 GiB in one piece, found {} bytes", word.size());
  const auto size = static_cast<int32_t>(word.size());
  auto& paths = scratch.paths;
  paths.assign(word.size() + 1, {0.0, ByteTrie::kNone, ByteTrie::kNone});
  // The better way to reach a place, of equal ones the first: the one whose last token is longer.
  const auto consider = [&](int32_t begin, int32_t end, int32_t token, double score) {
    auto& path = paths[end];
    if (path.begin == ByteTrie::kNone || score > path.score) path = {score, begin, token};
  };
  for (int32_t begin = 0; begin < size;) {
    size_t next = begin;
    next_code_point(word, next);
    const auto end_of_character = static_cast<int32_t>(next);
    const double score = paths[begin].score;
    bool character_known = false;
    int32_t node = ByteTrie::kRoot;
    for (int32_t end = begin; end < size;) {
      node = trie_.child(node, static_cast<uint8_t>(word[end]));
      if (node == ByteTrie::kNone) break;
      ++end;
      const int32_t token = trie_.value(node);
      if (token == ByteTrie::kNone) continue;
      consider(begin, end, token, score + scores_[token]);
      if (end == end_of_character) character_known = true;
    }
    if (!character_known) consider(begin, end_of_character, kUnknown, score + unknown_score_);
    begin = end_of_character;
  }

  // From the end back; neighbouring unknown characters are one.
  const size_t first = ids.size();
  auto& cuts = scratch.symbols;
  cuts.clear();
  for (int32_t end = size; end > 0; end = paths[end].begin) cuts.push_back(end);
  std::reverse(cuts.begin(), cuts.end());
  ids.reserve(first + cuts.size());
  int32_t begin = 0;
  for (size_t i = 0; i < cuts.size(); ++i) {
    const int32_t token = paths[cuts[i]].token;
    if (token != kUnknown) {
      ids.push_back(ids_[token]);
    } else {
      while (unk_ && i + 1 < cuts.size() && paths[cuts[i + 1]].token == kUnknown) ++i;
      append_unknown(word.substr(begin, cuts[i] - begin), ids);
    }
    begin = cuts[i];
  }
}

}  // namespace qkv
