// Callable values that hold on to a running template: macros and the `loop` of a for statement.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qkv/text/jinja/interpreter.h"

namespace qkv::jinja {

// A macro, or the body of a call block as `caller`.
class Macro final : public Special {
 public:
  Macro(const Statement& statement, ScopePtr closure) : statement_(statement), closure_(std::move(closure)) {}
  std::string_view type_name() const override { return "Macro"; }
  std::string representation() const override;
  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override;
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, CallArguments& arguments) override;
  void release(std::vector<Value>& values) override;

 private:
  const Statement& statement_;
  ScopePtr closure_;
};

// What `loop` says inside of a for statement. Looks one item ahead only when asked.
class Loop final : public Special, public std::enable_shared_from_this<Loop> {
 public:
  // `iterator` walks `iterable`, which is missing if its length says nothing (a filtered loop).
  Loop(std::shared_ptr<Iterator> iterator, Value iterable, int64_t depth, const Statement* recursive,
       ScopePtr scope);
  bool next(Value& item);

  std::string_view type_name() const override { return "LoopContext"; }
  std::string representation() const override;
  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override;
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, CallArguments& arguments) override;
  void release(std::vector<Value>& values) override;

  Value cycle(CallArguments& arguments) const;
  Value changed(Interpreter& interpreter, CallArguments& arguments);

 private:
  bool peek();
  int64_t size(Interpreter& interpreter);

  std::shared_ptr<Iterator> iterator_;
  Value iterable_, before_, current_, after_;
  int64_t depth_;
  int64_t index_ = -1;
  std::optional<int64_t> size_;
  std::optional<std::vector<Value>> last_changed_;
  const Statement* recursive_;
  ScopePtr scope_;
  bool pinned_ = false;
};

}  // namespace qkv::jinja
