// A grammar compiled to a recursive automaton: each rule is a graph of nodes whose edges read a character of
// a set, go on without reading, or call a rule and come back (Woods, "Transition network grammars", CACM
// 1970). Rules that are small and not recursive are copied to where they are used, so that most grammars call
// little.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "qkv/engine/grammar/grammar_builder.h"
#include "qkv/engine/grammar/utf8_automaton.h"

namespace qkv {

class Automaton {
 public:
  static constexpr size_t kMaximumNodes = size_t{1} << 20;

  struct CharacterEdge {
    uint16_t table;  // of the first byte, in bytes()
    uint32_t target;
  };
  struct CallEdge {
    uint32_t rule;
    uint32_t target;  // where to go on when the rule has ended
  };
  struct RuleInfo {
    uint32_t start = 0;
    uint32_t rank = 0;  // a rule is ranked after every rule that may begin with it
    bool nullable = false;
  };

  // Error, one sentence each: a rule that is used and not defined, one that may begin with itself (left
  // recursion), a root that no text matches, more than kMaximumNodes nodes.
  Automaton(const GrammarBuilder& builder, RuleId root);

  // Rule 0 is the root.
  const std::vector<RuleInfo>& rules() const { return rules_; }
  const Utf8Automaton& bytes() const { return bytes_; }
  const Utf8Automaton::ByteClasses& byte_classes() const { return byte_classes_; }
  size_t nodes() const { return nodes_.size() - 1; }

  std::span<const CharacterEdge> characters(uint32_t node) const {
    return {characters_.data() + nodes_[node].characters, characters_.data() + nodes_[node + 1].characters};
  }
  std::span<const uint32_t> jumps(uint32_t node) const {
    return {jumps_.data() + nodes_[node].jumps, jumps_.data() + nodes_[node + 1].jumps};
  }
  std::span<const CallEdge> calls(uint32_t node) const {
    return {calls_.data() + nodes_[node].calls, calls_.data() + nodes_[node + 1].calls};
  }
  // The end of its rule. Such a node has no edges, and each rule has one.
  bool is_end(uint32_t node) const { return nodes_[node].end; }

 private:
  class Compiler;
  struct Node {
    uint32_t characters = 0, jumps = 0, calls = 0;  // where its edges begin
    bool end = false;
  };

  std::vector<RuleInfo> rules_;
  std::vector<Node> nodes_;  // and one behind the last
  std::vector<CharacterEdge> characters_;
  std::vector<uint32_t> jumps_;
  std::vector<CallEdge> calls_;
  Utf8Automaton bytes_;
  Utf8Automaton::ByteClasses byte_classes_{};
};

}  // namespace qkv
