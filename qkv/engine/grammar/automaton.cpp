#include "qkv/engine/grammar/automaton.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "qkv/core/error.h"
#include "qkv/engine/grammar/rule_analysis.h"

namespace qkv {
namespace {

using Kind = Expression::Kind;

constexpr size_t kMaximumEdges = size_t{1} << 22;
constexpr size_t kMaximumSteps = size_t{1} << 24;  // of the compilation: expressions visited, copies counted
// From here on rules are called, so that a grammar which fits without copies is not refused.
constexpr size_t kCopyingEnds = Automaton::kMaximumNodes / 4;

template <typename Target>
struct Draft {
  uint32_t from;
  Target edge;
};

}  // namespace

class Automaton::Compiler {
 public:
  Compiler(const GrammarBuilder& builder, RuleId root, Automaton& result)
      : builder_(builder), analysis_(analyse_rules(builder, root)), result_(result) {
    tables_.resize(builder.sets().size());
    emitted_.resize(builder.rules().size());
    rule_index(root);
  }

  void run() {
    for (size_t index = 0; index < sources_.size(); ++index) {
      const uint32_t start = node(), end = node();
      end_[end] = true;
      result_.rules_[index].start = start;
      emit(builder_.rules()[sources_[index]].body, start, end);
    }
    rank_rules();
    skip_single_jumps();
    lay_out();
    result_.byte_classes_ = result_.bytes_.byte_classes();
  }

 private:
  uint32_t node() {
    require(end_.size() < kMaximumNodes,
            "[grammar] the rules expand to more than {} states: lower the counts of repetitions",
            kMaximumNodes);
    end_.push_back(false);
    return static_cast<uint32_t>(end_.size() - 1);
  }

  void count(size_t& counter, size_t limit) {
    require(++counter <= limit,
            "[grammar] the rules expand to more than {} transitions: lower the counts of repetitions",
            kMaximumEdges);
  }

  void jump(uint32_t from, uint32_t to) {
    if (from == to) return;
    count(edges_, kMaximumEdges);
    jumps_.push_back({from, to});
  }

  uint32_t rule_index(RuleId rule) {
    if (!emitted_[rule]) {
      emitted_[rule] = static_cast<uint32_t>(sources_.size());
      sources_.push_back(rule);
      result_.rules_.push_back({.nullable = analysis_.nullable[builder_.rules()[rule].body]});
    }
    return *emitted_[rule];
  }

  // Adds ways from one node to the other that read what the expression matches: edges that leave `from`,
  // edges that enter `to`, and nodes between. Never an edge that enters `from`, unless they are the same.
  void emit(ExpressionId id, uint32_t from, uint32_t to) {
    count(steps_, kMaximumSteps);
    const Expression& expression = builder_.expressions()[id];
    if (!analysis_.productive[id]) return;
    switch (expression.kind) {
      case Kind::characters: {
        auto& table = tables_[expression.target];
        if (!table) table = result_.bytes_.add(builder_.sets()[expression.target]);
        count(edges_, kMaximumEdges);
        characters_.push_back({from, {*table, to}});
        break;
      }
      case Kind::sequence: {
        if (expression.parts.empty()) jump(from, to);
        for (size_t i = 0; i < expression.parts.size(); ++i) {
          const uint32_t next = i + 1 == expression.parts.size() ? to : node();
          emit(expression.parts[i], from, next);
          from = next;
        }
        break;
      }
      case Kind::choice:
        for (const ExpressionId part : expression.parts) emit(part, from, to);
        break;
      case Kind::repeat:
        emit_repeat(expression, from, to);
        break;
      case Kind::rule:
        if (analysis_.copied[expression.target] && end_.size() < kCopyingEnds) {
          emit(builder_.rules()[expression.target].body, from, to);
        } else {
          count(edges_, kMaximumEdges);
          calls_.push_back({from, {rule_index(expression.target), to}});
        }
        break;
    }
  }

  void emit_repeat(const Expression& expression, uint32_t from, uint32_t to) {
    const ExpressionId part = expression.parts.front();
    const bool unlimited = expression.maximum == Expression::kUnlimited;
    if (!analysis_.productive[part]) {
      jump(from, to);
      return;
    }
    for (int32_t i = 0; i < expression.minimum; ++i) {
      const uint32_t next = i + 1 == expression.maximum ? to : node();
      emit(part, from, next);
      from = next;
    }
    if (unlimited) {
      // The loop needs a node that nothing else leaves.
      if (expression.minimum == 0) {
        const uint32_t loop = node();
        jump(from, loop);
        from = loop;
      }
      emit(part, from, from);
      jump(from, to);
      return;
    }
    for (int32_t i = expression.minimum; i < expression.maximum; ++i) {
      jump(from, to);
      const uint32_t next = i + 1 == expression.maximum ? to : node();
      emit(part, from, next);
      from = next;
    }
  }

  void rank_rules() {
    std::vector<uint32_t> order(sources_.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return analysis_.rank[sources_[a]] < analysis_.rank[sources_[b]];
    });
    for (uint32_t i = 0; i < order.size(); ++i) result_.rules_[order[i]].rank = i;
  }

  // A node that only jumps to one other is that other. Such jumps form no circle: every node has a way to the
  // end of its rule, because what matches nothing was left out.
  void skip_single_jumps() {
    constexpr uint32_t kNone = UINT32_MAX, kMany = UINT32_MAX - 1;
    std::vector<uint32_t> only(end_.size(), kNone);
    for (const auto& [from, to] : jumps_) only[from] = only[from] == kNone || only[from] == to ? to : kMany;
    for (const auto& draft : characters_) only[draft.from] = kMany;
    for (const auto& draft : calls_) only[draft.from] = kMany;
    const auto skips = [&](uint32_t id) { return only[id] != kNone && only[id] != kMany; };
    const auto last = [&](uint32_t id) {
      uint32_t target = id;
      while (skips(target)) target = only[target];
      while (skips(id)) id = std::exchange(only[id], target);
      return target;
    };
    std::vector<uint32_t> number(end_.size(), kNone);
    uint32_t kept = 0;
    for (uint32_t id = 0; id < end_.size(); ++id) {
      if (skips(id)) continue;
      end_[kept] = end_[id];
      number[id] = kept++;
    }
    for (auto& draft : characters_) draft.edge.target = number[last(draft.edge.target)];
    for (auto& draft : calls_) draft.edge.target = number[last(draft.edge.target)];
    std::erase_if(jumps_, [&](const auto& draft) { return skips(draft.from); });
    for (auto& draft : jumps_) draft.edge = number[last(draft.edge)];
    for (auto& rule : result_.rules_) rule.start = number[last(rule.start)];
    for (auto& draft : characters_) draft.from = number[draft.from];
    for (auto& draft : calls_) draft.from = number[draft.from];
    for (auto& draft : jumps_) draft.from = number[draft.from];
    end_.resize(kept);
  }

  template <typename Edge>
  static void sort_by_node(std::vector<Draft<Edge>>& drafts, std::vector<Edge>& edges) {
    std::stable_sort(drafts.begin(), drafts.end(),
                     [](const auto& a, const auto& b) { return a.from < b.from; });
    edges.reserve(drafts.size());
    for (const auto& draft : drafts) edges.push_back(draft.edge);
  }

  void lay_out() {
    sort_by_node(characters_, result_.characters_);
    sort_by_node(jumps_, result_.jumps_);
    sort_by_node(calls_, result_.calls_);
    result_.nodes_.resize(end_.size() + 1);
    size_t characters = 0, jumps = 0, calls = 0;
    for (uint32_t id = 0; id <= end_.size(); ++id) {
      while (characters < characters_.size() && characters_[characters].from < id) ++characters;
      while (jumps < jumps_.size() && jumps_[jumps].from < id) ++jumps;
      while (calls < calls_.size() && calls_[calls].from < id) ++calls;
      result_.nodes_[id] = {static_cast<uint32_t>(characters), static_cast<uint32_t>(jumps),
                            static_cast<uint32_t>(calls), id < end_.size() && end_[id]};
    }
  }

  const GrammarBuilder& builder_;
  const RuleAnalysis analysis_;
  Automaton& result_;
  std::vector<std::optional<uint16_t>> tables_;   // by set
  std::vector<std::optional<uint32_t>> emitted_;  // by rule of the builder
  std::vector<RuleId> sources_;                   // by rule of the automaton
  std::vector<bool> end_;                         // by node
  std::vector<Draft<CharacterEdge>> characters_;
  std::vector<Draft<uint32_t>> jumps_;
  std::vector<Draft<CallEdge>> calls_;
  size_t edges_ = 0, steps_ = 0;
};

Automaton::Automaton(const GrammarBuilder& builder, RuleId root) {
  Compiler(builder, root, *this).run();
}

}  // namespace qkv
