// Runs a parsed template: statements write text, expressions give values.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "qkv/text/jinja/ast.h"
#include "qkv/text/jinja/value.h"

namespace qkv::jinja {

// What one render may use. A template that needs more is stopped with an error.
struct Limits {
  uint64_t max_steps = 20'000'000;         // expressions, items, iterations
  uint64_t max_bytes = uint64_t{1} << 30;  // of all text and lists ever made
  uint64_t max_output_bytes = uint64_t{1} << 28;
  int max_depth = 1000;  // of nested statements, expressions and macro calls
};

// Marks of text inside of {% generation %}.
constexpr uint32_t kGenerationTag = UINT32_MAX;

struct Scope final : Object {
  std::vector<Value> slots;
  std::shared_ptr<Scope> parent;
};
using ScopePtr = std::shared_ptr<Scope>;

class Interpreter {
 public:
  using Variables = std::unordered_map<std::string, Value>;

  Interpreter(Heap& heap, const Limits& limits, Variables variables,
              std::chrono::system_clock::time_point now)
      : heap_(heap), limits_(limits), variables_(std::move(variables)), now_(now) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // The text of the whole template. Throws Failure with its line.
  std::shared_ptr<Text> run(const Syntax& syntax);

  Heap& heap() { return heap_; }
  Budget& budget() { return heap_.budget(); }
  std::chrono::system_clock::time_point now() const { return now_; }

  // value.name and value[key] as the sandbox has them: undefined where there is nothing.
  Value attribute(const Value& value, std::string_view name);
  Value item(const Value& value, const Value& key);
  // Only what Python itself calls an attribute: methods, fields of namespaces and loops.
  std::optional<Value> own_attribute(const Value& value, std::string_view name);
  Value call(const Value& callee, CallArguments& arguments);
  // Keeps `object` to the end of the render, then makes it let go of what it holds: cycles are made only
  // through such.
  void pin(std::shared_ptr<Object> object) { pinned_.push_back(std::move(object)); }

 private:
  friend class Macro;
  friend class Loop;
  friend class LoopFilter;
  class Depth;
  enum class Flow { normal, break_loop, continue_loop };

  // ---- statements (interpreter.cpp) ----
  Flow execute(const Body& body, const ScopePtr& scope, TextBuilder& out);
  Flow execute(const Statement& statement, const ScopePtr& scope, TextBuilder& out);
  void write(const Statement& output, const ScopePtr& scope, TextBuilder& out);
  Flow choose(const Statement& statement, const ScopePtr& scope, TextBuilder& out);
  Flow repeat(const Statement& loop, const ScopePtr& scope, TextBuilder& out, const Value& iterable,
              int64_t depth);
  Flow set_block(const Statement& statement, const ScopePtr& scope);
  Flow filter_block(const Statement& statement, const ScopePtr& scope, TextBuilder& out);
  Flow with_block(const Statement& statement, const ScopePtr& scope, TextBuilder& out);
  void call_block(const Statement& statement, const ScopePtr& scope, TextBuilder& out);
  Value make_macro(const Statement& statement, const ScopePtr& scope);
  void assign(const Target& target, const Value& value, Scope& scope);

  // ---- scopes ----
  ScopePtr enter(const ScopeLayout& layout, const ScopePtr& parent);
  void reset(const ScopeLayout& layout, Scope& scope);
  Value variable(std::string_view name);
  static Value& slot(Scope& scope, const Variable& variable);

  // ---- expressions (evaluate.cpp) ----
  Value evaluate(const Expression& expression, const ScopePtr& scope);
  Value evaluate_name(const Expression& expression, const ScopePtr& scope);
  Value evaluate_items(const Expression& expression, const ScopePtr& scope);
  Value evaluate_dict(const Expression& expression, const ScopePtr& scope);
  Value evaluate_binary(const Expression& expression, const ScopePtr& scope);
  Value evaluate_concatenation(const Expression& expression, const ScopePtr& scope);
  Value evaluate_comparison(const Expression& expression, const ScopePtr& scope);
  Value evaluate_conditional(const Expression& expression, const ScopePtr& scope);
  Value evaluate_subscript(const Expression& expression, const ScopePtr& scope);
  Value evaluate_call(const Expression& expression, const ScopePtr& scope, const Value* caller);
  Value evaluate_filter(const Expression& expression, const ScopePtr& scope);
  Value evaluate_test(const Expression& expression, const ScopePtr& scope);
  CallArguments evaluate_arguments(const Expression& expression, const ScopePtr& scope);
  // Through the filters of a block.
  Value filter_text(const Expression& filters, Value text, const ScopePtr& scope);

  Heap& heap_;
  Limits limits_;
  Variables variables_;
  std::chrono::system_clock::time_point now_;
  Variables globals_;
  std::vector<std::shared_ptr<Object>> pinned_;
  Value block_text_;  // what a filter block's first filter is applied to
  int depth_ = 0;
  int line_ = 1;
};

}  // namespace qkv::jinja
