// Recently encoded words and their ids, so that frequent words are looked up instead of merged. Bounded: a
// new word pushes out the older of the two that share its hash.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

namespace qkv {

class WordCache {
 public:
  // Appends the ids and returns true if the word is there.
  bool find(std::string_view word, size_t hash, std::vector<int32_t>& ids) const {
    if (!slots_ || word.size() > kWordBytes) return false;
    const Slot* pair = &slots_[hash & (kSlots - 2)];
    for (const Slot* slot = pair; slot != pair + 2; ++slot) {
      if (slot->size != word.size() || std::memcmp(slot->word, word.data(), word.size()) != 0) continue;
      ids.insert(ids.end(), slot->ids, slot->ids + slot->count);
      return true;
    }
    return false;
  }
  void keep(std::string_view word, size_t hash, const int32_t* ids, size_t count) {
    if (word.empty() || word.size() > kWordBytes || count > kIds) return;
    if (!slots_) slots_ = std::make_unique<Slot[]>(kSlots);
    Slot* pair = &slots_[hash & (kSlots - 2)];
    pair[1] = pair[0];
    Slot& slot = pair[0];
    slot.size = static_cast<uint8_t>(word.size());
    slot.count = static_cast<uint8_t>(count);
    std::memcpy(slot.word, word.data(), word.size());
    std::memcpy(slot.ids, ids, count * sizeof(int32_t));
  }
  static size_t hash(std::string_view word) { return std::hash<std::string_view>()(word); }

 private:
  static constexpr size_t kSlots = size_t{1} << 15;
  static constexpr size_t kWordBytes = 34;
  static constexpr size_t kIds = 7;
  struct Slot {  // one cache line
    uint8_t size = 0;
    uint8_t count = 0;
    char word[kWordBytes];
    int32_t ids[kIds];
  };
  static_assert(sizeof(Slot) == 64);
  std::unique_ptr<Slot[]> slots_;
};

}  // namespace qkv
