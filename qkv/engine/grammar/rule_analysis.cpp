#include "qkv/engine/grammar/rule_analysis.h"

#include <algorithm>
#include <string>
#include <utility>

#include "qkv/core/error.h"

namespace qkv {
namespace {

using Kind = Expression::Kind;

// A rule that becomes this many nodes is copied to where it is used.
constexpr uint64_t kCopiedNodes = 256;
// Copies within copies make a tree that is walked recursively.
constexpr int32_t kCopiedDepth = 2000;

class Analyser {
 public:
  Analyser(const GrammarBuilder& builder, RuleId root)
      : expressions_(builder.expressions()), rules_(builder.rules()), root_(root) {
    extents_.resize(expressions_.size());
    visited_.resize(expressions_.size());
  }

  RuleAnalysis run() {
    find_references();
    find_users();
    RuleAnalysis analysis;
    analysis.nullable = derive(false);
    analysis.productive = derive(true);
    rank_rules(analysis);
    require(rules_[root_].defined && analysis.productive[rules_[root_].body],
            "[grammar] rule '{}' matches no text: every way through it goes on forever or contradicts itself",
            rules_[root_].name);
    choose_copies(analysis);
    return analysis;
  }

 private:
  struct Extent {
    uint64_t size = 0;  // 0: not known yet
    int32_t depth = 0;
  };
  struct Visit {
    RuleId rule;
    size_t next = 0;
  };

  // The rules that the body of a rule mentions, or those that it may begin with if `nullable` is given:
  // sorted, one entry for each mention.
  std::vector<RuleId> collect_rules(RuleId rule, const std::vector<bool>* nullable) {
    std::vector<RuleId> found;
    std::vector<ExpressionId> stack;
    ++visits_;
    const auto visit = [&](ExpressionId id) {  // parts may be shared
      if (std::exchange(visited_[id], visits_) != visits_) stack.push_back(id);
    };
    visit(rules_[rule].body);
    while (!stack.empty()) {
      const Expression& expression = expressions_[stack.back()];
      stack.pop_back();
      if (expression.kind == Kind::rule) found.push_back(expression.target);
      for (const ExpressionId part : expression.parts) {
        visit(part);
        if (nullable != nullptr && expression.kind == Kind::sequence && !(*nullable)[part]) break;
      }
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  // references_[r]: the rules that r's body mentions, for every rule in reach.
  void find_references() {
    references_.resize(rules_.size());
    reached_.resize(rules_.size());
    std::vector<RuleId> pending = {root_};
    reached_[root_] = true;
    while (!pending.empty()) {
      const RuleId rule = pending.back();
      pending.pop_back();
      require(rules_[rule].defined, "[grammar] rule '{}' is used but not defined", rules_[rule].name);
      references_[rule] = collect_rules(rule, nullptr);
      std::vector<RuleId>& found = references_[rule];
      found.erase(std::unique(found.begin(), found.end()), found.end());
      for (const RuleId next : found) {
        if (!reached_[next]) pending.push_back(next);
        reached_[next] = true;
      }
    }
  }

  void find_users() {
    users_.resize(expressions_.size());
    referrers_.resize(rules_.size());
    bodies_.resize(expressions_.size());
    for (ExpressionId id = 0; id < expressions_.size(); ++id) {
      for (const ExpressionId part : expressions_[id].parts) users_[part].push_back(id);
      if (expressions_[id].kind == Kind::rule) referrers_[expressions_[id].target].push_back(id);
    }
    for (RuleId rule = 0; rule < rules_.size(); ++rule) {
      if (rules_[rule].defined) bodies_[rules_[rule].body].push_back(rule);
    }
  }

  // The least solution of: a sequence holds if all parts do, a choice if one does, a repetition if it may be
  // absent or its part holds, a rule if its body does.
  std::vector<bool> derive(bool characters_hold) const {
    std::vector<bool> holds(expressions_.size());
    std::vector<size_t> missing(expressions_.size());
    std::vector<ExpressionId> fresh;
    const auto set = [&](ExpressionId id) {
      if (!holds[id]) fresh.push_back(id);
      holds[id] = true;
    };
    for (ExpressionId id = 0; id < expressions_.size(); ++id) {
      const Expression& expression = expressions_[id];
      missing[id] = expression.parts.size();
      if ((expression.kind == Kind::characters && characters_hold) ||
          (expression.kind == Kind::sequence && expression.parts.empty()) ||
          (expression.kind == Kind::repeat && expression.minimum == 0))
        set(id);
    }
    while (!fresh.empty()) {
      const ExpressionId id = fresh.back();
      fresh.pop_back();
      for (const ExpressionId user : users_[id]) {
        if (expressions_[user].kind != Kind::sequence || --missing[user] == 0) set(user);
      }
      for (const RuleId rule : bodies_[id]) {
        for (const ExpressionId reference : referrers_[rule]) set(reference);
      }
    }
    return holds;
  }

  // Depth-first over what rules begin with; ranks are the reverse of the order in which they are left.
  void rank_rules(RuleAnalysis& analysis) {
    enum : uint8_t { fresh, open, closed };
    std::vector<uint8_t> state(rules_.size(), fresh);
    std::vector<std::vector<RuleId>> first(rules_.size());
    analysis.rank.resize(rules_.size());
    auto rank = static_cast<uint32_t>(rules_.size());
    std::vector<Visit> path;
    const auto enter = [&](RuleId rule) {
      state[rule] = open;
      first[rule] = collect_rules(rule, &analysis.nullable);
      path.push_back({rule});
    };
    for (RuleId start = 0; start < rules_.size(); ++start) {
      if (state[start] != fresh || !reached_[start]) continue;
      enter(start);
      while (!path.empty()) {
        Visit& visit = path.back();
        if (visit.next == first[visit.rule].size()) {
          state[visit.rule] = closed;
          analysis.rank[visit.rule] = --rank;
          path.pop_back();
          continue;
        }
        const RuleId next = first[visit.rule][visit.next++];
        if (state[next] == open) refuse_cycle(path, next);
        if (state[next] == fresh) enter(next);
      }
    }
  }

  [[noreturn]] void refuse_cycle(const std::vector<Visit>& path, RuleId back_to) const {
    std::string way;
    bool inside = false;
    size_t shown = 0;
    for (const Visit& visit : path) {
      inside = inside || visit.rule == back_to;
      if (inside && ++shown <= 8) way += rules_[visit.rule].name + " -> ";
    }
    fail("[grammar] rule '{0}' is left-recursive: it may begin with itself ({1}{0})", rules_[back_to].name,
         shown > 8 ? way + "... -> " : way);
  }

  // A rule that some path of references comes back to must be called. Of the others the small ones are
  // copied, and those that are used once.
  void choose_copies(RuleAnalysis& analysis) {
    enum : uint8_t { fresh, open, closed };
    std::vector<uint8_t> state(rules_.size(), fresh);
    std::vector<bool> called(rules_.size());
    analysis.copied.resize(rules_.size());
    std::vector<Visit> path = {{root_}};
    state[root_] = open;
    while (!path.empty()) {
      Visit& visit = path.back();
      if (visit.next < references_[visit.rule].size()) {
        const RuleId next = references_[visit.rule][visit.next++];
        if (state[next] == open) called[next] = true;
        if (state[next] == fresh) {
          state[next] = open;
          path.push_back({next});
        }
        continue;
      }
      const RuleId rule = visit.rule;
      path.pop_back();
      state[rule] = closed;
      const auto [size, depth] = extent(rules_[rule].body, analysis);
      analysis.copied[rule] =
          !called[rule] && depth <= kCopiedDepth && (size <= kCopiedNodes || mentions(rule) == 1);
    }
  }

  // Of a rule, counting a shared expression as often as it is a part.
  size_t mentions(RuleId rule) const {
    size_t total = 0;
    for (const ExpressionId reference : referrers_[rule])
      total += std::max<size_t>(users_[reference].size() + bodies_[reference].size(), 1);
    return total;
  }

  // Sizes and depths of expressions with copies in place; of shared parts they are found once.
  Extent extent(ExpressionId id, const RuleAnalysis& analysis) {
    constexpr uint64_t kHuge = uint64_t{1} << 32;
    Extent& known = extents_[id];
    if (known.size > 0) return known;
    const Expression& expression = expressions_[id];
    Extent result = {1, 1};
    if (expression.kind == Kind::rule && analysis.copied[expression.target]) {
      const Extent& body = extents_[rules_[expression.target].body];
      result = {body.size, body.depth + 1};
    }
    for (const ExpressionId part : expression.parts) {
      const Extent inner = extent(part, analysis);
      result.size = std::min(result.size + inner.size, kHuge);
      result.depth = std::max(result.depth, inner.depth + 1);
    }
    if (expression.kind == Kind::repeat) {
      const int32_t copies = std::max({expression.minimum, expression.maximum, 1});
      result.size = std::min(result.size * static_cast<uint64_t>(copies), kHuge);
    }
    return known = result;
  }

  const std::vector<Expression>& expressions_;
  const std::vector<GrammarBuilder::Rule>& rules_;
  RuleId root_;
  std::vector<std::vector<RuleId>> references_;       // by rule
  std::vector<bool> reached_;                         // by rule
  std::vector<std::vector<ExpressionId>> users_;      // by expression: those it is a part of
  std::vector<std::vector<RuleId>> bodies_;           // by expression: the rules whose body it is
  std::vector<std::vector<ExpressionId>> referrers_;  // by rule
  std::vector<Extent> extents_;                       // by expression
  std::vector<uint32_t> visited_;                     // by expression: the visit that saw it last
  uint32_t visits_ = 0;
};

}  // namespace

RuleAnalysis analyse_rules(const GrammarBuilder& builder, RuleId root) {
  return Analyser(builder, root).run();
}

}  // namespace qkv
