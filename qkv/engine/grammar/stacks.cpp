#include "qkv/engine/grammar/stacks.h"

#include <algorithm>
#include <utility>

#include "qkv/core/error.h"

namespace qkv {
namespace {

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL;
  return hash ^ (hash >> 29);
}

uint64_t key_of(uint32_t frame, uint32_t node) {
  return static_cast<uint64_t>(frame) << 32 | node;
}

}  // namespace

FramePool::FramePool() : begins_{0, 0} {}

uint32_t FramePool::intern(std::span<const Return> returns) {
  uint64_t hash = returns.size();
  for (const auto& [frame, node] : returns) hash = mix(hash, key_of(frame, node));
  const auto [first, last] = known_.equal_range(hash);
  for (auto entry = first; entry != last; ++entry) {
    const auto present = this->returns(entry->second);
    if (std::equal(present.begin(), present.end(), returns.begin(), returns.end())) return entry->second;
  }
  returns_.insert(returns_.end(), returns.begin(), returns.end());
  begins_.push_back(returns_.size());
  const auto frame = static_cast<uint32_t>(size() - 1);
  known_.emplace(hash, frame);
  return frame;
}

size_t FramePool::bytes() const {
  constexpr size_t kEntry = 40;  // of the hash table
  return returns_.capacity() * sizeof(Return) + begins_.capacity() * sizeof(size_t) + known_.size() * kEntry;
}

void ParseMachine::begin() {
  // An error may have left something behind.
  for (const uint32_t rule : opened_) open_[rule].clear();
  opened_.clear();
  pending_.clear();
  result_ = {};
  used_ = 0;
  ++round_;
}

bool ParseMachine::is_new(uint32_t frame, uint32_t node) {
  if (2 * (used_ + 1) > slots_.size()) {
    std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(2 * slots_.size()));
    used_ = 0;
    for (const Slot& slot : old) {
      if (slot.round == round_)
        is_new(static_cast<uint32_t>(slot.key >> 32), static_cast<uint32_t>(slot.key));
    }
  }
  const uint64_t key = key_of(frame, node);
  for (size_t place = mix(0, key);; ++place) {
    Slot& slot = slots_[place & (slots_.size() - 1)];
    if (slot.round != round_) {
      slot = {key, round_};
      ++used_;
      return true;
    }
    if (slot.key == key) return false;
  }
}

void ParseMachine::visit(uint32_t frame, uint32_t node) {
  if (is_new(frame, node)) pending_.push_back({frame, node});
}

// Follows what can be done without reading: jumps, calls, ends of rules.
void ParseMachine::run(const FramePool& pool) {
  while (!pending_.empty()) {
    const auto [frame, node] = pending_.back();
    pending_.pop_back();
    if (automaton_.is_end(node)) {
      // The end of a rule that has read nothing was foreseen where it was called.
      if (frame >= kOpen) continue;
      if (frame == FramePool::kBottom) result_.at_end = true;
      for (const auto& back : pool.returns(frame)) visit(back.frame, back.node);
      continue;
    }
    if (!automaton_.characters(node).empty()) result_.items.push_back({frame, node});
    for (const uint32_t target : automaton_.jumps(node)) visit(frame, target);
    for (const auto& [rule, target] : automaton_.calls(node)) {
      if (open_[rule].empty()) {
        opened_.push_back(rule);
        visit(kOpen | rule, automaton_.rules()[rule].start);
      }
      open_[rule].push_back({frame, target});
      if (automaton_.rules()[rule].nullable) visit(frame, target);
    }
    require(result_.items.size() <= kMaximumItems,
            "[grammar] the text so far can be read in more than {} ways", kMaximumItems);
  }
}

ParseState ParseMachine::close(FramePool& pool) {
  // A frame's callers are ranked before it, so theirs have their numbers already.
  std::sort(opened_.begin(), opened_.end(),
            [&](uint32_t a, uint32_t b) { return automaton_.rules()[a].rank < automaton_.rules()[b].rank; });
  std::vector<FramePool::Return> returns;
  for (const uint32_t rule : opened_) {
    returns.clear();
    for (auto [frame, node] : open_[rule]) {
      if (frame >= kOpen) frame = numbers_[frame & ~kOpen];
      // A call that is the last thing a rule does returns to that rule's callers at once: lists written as
      // recursion do not grow the stack.
      if (automaton_.is_end(node) && frame != FramePool::kBottom) {
        const auto further = pool.returns(frame);
        returns.insert(returns.end(), further.begin(), further.end());
      } else {
        returns.push_back({frame, node});
      }
    }
    std::sort(returns.begin(), returns.end());
    returns.erase(std::unique(returns.begin(), returns.end()), returns.end());
    numbers_[rule] = pool.intern(returns);
    open_[rule].clear();
  }
  opened_.clear();
  for (ParseItem& item : result_.items) {
    if (item.frame >= kOpen) item.frame = numbers_[item.frame & ~kOpen];
  }
  std::sort(result_.items.begin(), result_.items.end());
  result_.items.erase(std::unique(result_.items.begin(), result_.items.end()), result_.items.end());
  return std::exchange(result_, {});
}

ParseState ParseMachine::enter(FramePool& pool, uint32_t node) {
  begin();
  visit(FramePool::kBottom, node);
  run(pool);
  return close(pool);
}

ParseState ParseMachine::start(FramePool& pool) {
  return enter(pool, automaton_.rules().front().start);
}

ParseState ParseMachine::step(FramePool& pool, const ParseState& state, uint8_t byte) {
  begin();
  const Utf8Automaton& bytes = automaton_.bytes();
  const auto advance = [&](uint32_t frame, uint32_t target, uint16_t table) {
    if (table == Utf8Automaton::kDone) visit(frame, target);
    if (table >= Utf8Automaton::kFirstTable) result_.items.push_back({frame, target, table});
  };
  for (const ParseItem& item : state.items) {
    if (item.table != 0) {
      advance(item.frame, item.node, bytes.step(item.table, byte));
      continue;
    }
    for (const auto& [table, target] : automaton_.characters(item.node)) {
      advance(item.frame, target, bytes.step(table, byte));
    }
  }
  run(pool);
  return close(pool);
}

std::optional<uint8_t> ParseMachine::only_byte(const ParseState& state) const {
  std::optional<uint8_t> only;
  const auto differs = [&](uint16_t table) {
    for (unsigned byte = 0; byte < 256; ++byte) {
      if (automaton_.bytes().step(table, static_cast<uint8_t>(byte)) == Utf8Automaton::kReject) continue;
      if (only && *only != byte) return true;
      only = static_cast<uint8_t>(byte);
    }
    return false;
  };
  for (const ParseItem& item : state.items) {
    if (item.table != 0) {
      if (differs(item.table)) return std::nullopt;
      continue;
    }
    for (const auto& edge : automaton_.characters(item.node)) {
      if (differs(edge.table)) return std::nullopt;
    }
  }
  return only;
}

}  // namespace qkv
