// Where a text stands in a grammar: every way to read it at once. Stacks of rules that are under way share
// their tails, and rules that begin at the same place share one frame (a graph-structured stack: Tomita,
// 1985; Scott and Johnstone, "GLL parsing", 2010), so that ambiguity costs space linear in the length of the
// text.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "qkv/engine/grammar/automaton.h"

namespace qkv {

// Frames by number. A frame says where to go on when the rule that it belongs to has ended: at a node of the
// rule below, in that rule's own frame. Equal frames have the same number. A frame's callers have smaller
// numbers.
class FramePool {
 public:
  static constexpr uint32_t kBottom = 0;  // below the first rule
  struct Return {
    uint32_t frame, node;
    auto operator<=>(const Return&) const = default;
  };

  FramePool();
  uint32_t intern(std::span<const Return> returns);  // sorted
  std::span<const Return> returns(uint32_t frame) const {
    return {returns_.data() + begins_[frame], returns_.data() + begins_[frame + 1]};
  }
  size_t size() const { return begins_.size() - 1; }
  size_t bytes() const;

 private:
  std::vector<Return> returns_;
  std::vector<size_t> begins_;
  std::unordered_multimap<uint64_t, uint32_t> known_;  // by hash
};

// One way to go on: the next character leaves `node`. In the middle of a character `table` (see
// Utf8Automaton) says which bytes complete it, and `node` is where it leads.
struct ParseItem {
  uint32_t frame, node;
  uint16_t table = 0;
  auto operator<=>(const ParseItem&) const = default;
};

struct ParseState {
  std::vector<ParseItem> items;  // sorted
  bool at_end = false;           // the text so far is complete: the rule on kBottom can end here
  bool dead() const { return items.empty() && !at_end; }
  bool operator==(const ParseState&) const = default;
};

// Steps from state to state. Holds scratch memory: one per thread.
class ParseMachine {
 public:
  // Ways to read a text at the same time.
  static constexpr size_t kMaximumItems = 1 << 16;

  explicit ParseMachine(const Automaton& automaton)
      : automaton_(automaton), open_(automaton.rules().size()), numbers_(automaton.rules().size()) {}

  ParseState start(FramePool& pool);                 // before the first byte of the root
  ParseState enter(FramePool& pool, uint32_t node);  // at a node of a rule on kBottom
  // Error if there would be more than kMaximumItems ways.
  ParseState step(FramePool& pool, const ParseState& state, uint8_t byte);
  // The byte that all ways to go on begin with; nullopt if they differ, or there are none.
  std::optional<uint8_t> only_byte(const ParseState& state) const;

 private:
  // A frame that is being made: its callers are not all known yet.
  static constexpr uint32_t kOpen = 0x80000000;

  void begin();
  void visit(uint32_t frame, uint32_t node);
  bool is_new(uint32_t frame, uint32_t node);
  void run(const FramePool& pool);
  ParseState close(FramePool& pool);

  const Automaton& automaton_;
  std::vector<std::vector<FramePool::Return>> open_;  // by rule: returns of its open frame
  std::vector<uint32_t> opened_;                      // rules with an open frame
  std::vector<uint32_t> numbers_;                     // by rule: its open frame's final number
  std::vector<FramePool::Return> pending_;
  ParseState result_;
  // Pairs of this round, in a hash table that is cleared by counting rounds.
  struct Slot {
    uint64_t key = 0;
    uint64_t round = 0;
  };
  std::vector<Slot> slots_ = std::vector<Slot>(64);
  size_t used_ = 0;
  uint64_t round_ = 0;
};

}  // namespace qkv
