// What the parser makes of a template. Names are resolved to variables of scopes by scopes.cpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qkv/text/jinja/operators.h"
#include "qkv/text/jinja/value.h"

namespace qkv::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class ExpressionKind : uint8_t {
  constant,
  name,
  list,
  tuple,
  dict,  // parts: key, value, key, value, ...
  negative,
  positive,
  logical_not,
  logical_and,
  logical_or,
  binary,       // op
  concatenate,  // ~
  compare,      // parts[0] comparisons[0] parts[1] ...
  conditional,  // parts: condition, then, else (null if left out)
  attribute,    // parts[0].text
  item,         // parts[0][parts[1]]
  slice,        // parts[0][parts[1]:parts[2]:parts[3]], null where left out
  call,         // parts[0](arguments)
  filter,       // parts[0] | text(arguments); parts[0] is null for the body of a filter block
  test,         // parts[0] is text(arguments)
};

enum class Comparison : uint8_t { equal, not_equal, less, less_equal, greater, greater_equal, in, not_in };

struct Argument {
  enum class Kind : uint8_t { positional, named, spread, spread_named };
  Kind kind = Kind::positional;
  std::string name;
  ExpressionPtr value;
};

// Where a name's value is: slot `slot` of the scope `hops` levels out, or, with no slot, the render's
// variables.
struct Variable {
  int hops = 0;
  int slot = -1;
};

struct Expression {
  ExpressionKind kind = ExpressionKind::constant;
  BinaryOperator op = BinaryOperator::add;
  int line = 0;
  int height = 1;  // of the tree below; bounded, because evaluation recurses
  std::string text;
  Value constant;
  Variable variable;
  std::vector<ExpressionPtr> parts;
  std::vector<Comparison> comparisons;
  std::vector<Argument> arguments;
};

// How a slot begins when its scope is entered.
enum class SlotLoad : uint8_t {
  parameter,  // whoever enters fills it in
  nothing,    // not defined until it is set
  variable,   // the render's variable of that name
  outer,      // the value that an outer scope's slot has then
};

struct ScopeLayout {
  struct Slot {
    std::string name;
    SlotLoad load = SlotLoad::nothing;
    Variable outer;
  };
  std::vector<Slot> slots;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

enum class StatementKind : uint8_t {
  output,  // expressions
  for_loop,
  if_chain,
  set,        // target = expressions[0]
  set_block,  // target = body, through expressions[0] (filters) if it is not null
  macro,
  call_block,    // expressions[0] is the call, body its caller
  filter_block,  // expressions[0] are the filters
  with,          // targets and expressions
  break_loop,
  continue_loop,
  generation,  // {% generation %}: the text that the model wrote
};

// A name, a namespace's attribute, or several of them.
struct Target {
  enum class Kind : uint8_t { name, attribute, tuple };
  Kind kind = Kind::name;
  int line = 0;
  std::string name, attribute;
  Variable variable;
  std::vector<Target> items;
};

struct Branch {
  ExpressionPtr condition;  // null for else
  Body body;
};

struct Statement {
  StatementKind kind = StatementKind::output;
  int line = 0;
  std::vector<ExpressionPtr> expressions;
  std::vector<Target> targets;
  Body body, otherwise;
  std::vector<Branch> branches;
  ScopeLayout scope, otherwise_scope, test_scope;
  // for_loop
  ExpressionPtr iterable, test;
  bool recursive = false;
  int loop_slot = -1;  // where `loop` is in the body's scope, if it is used
  // macro, call_block
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // of the last parameters
  std::vector<int> parameter_slots;
  int caller_slot = -1, kwargs_slot = -1, varargs_slot = -1;
  Variable variable;  // of a macro's name
};

struct Syntax {
  Body body;
  ScopeLayout scope;
};

}  // namespace qkv::jinja
