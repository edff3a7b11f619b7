// Values of the template language, with Python's types: what a template sees of messages, tools and its own
// literals. Everything but namespaces, iterators and loops is immutable, as in the sandbox that templates are
// written for.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "qkv/core/json.h"
#include "qkv/text/jinja/failure.h"
#include "qkv/text/jinja/text_value.h"

namespace qkv::jinja {

enum class Kind : uint8_t {
  missing,  // a variable's slot that holds nothing
  undefined,
  none,
  boolean,
  integer,
  real,
  string,
  list,
  tuple,
  dict,
  view,  // dict.keys(), values(), items()
  range,
  iterator,  // what lazy filters give: can be walked once
  name_space,
  special,  // functions, methods, macros, loop, cycler, joiner
};

struct Sequence;
struct Dict;
struct View;
struct Range;
struct Iterator;
struct Namespace;
struct Special;

class Value {
 public:
  Value() = default;
  Value(bool boolean) : kind_(Kind::boolean) { number_.integer = boolean ? 1 : 0; }
  Value(int64_t integer) : kind_(Kind::integer) { number_.integer = integer; }
  Value(double real) : kind_(Kind::real) { number_.real = real; }
  Value(TextPtr text) : kind_(Kind::string), object_(std::const_pointer_cast<Text>(std::move(text))) {}
  Value(std::shared_ptr<Text> text) : kind_(Kind::string), object_(std::move(text)) {}
  Value(Kind kind, std::shared_ptr<Object> object) : kind_(kind), object_(std::move(object)) {}
  // A pointer must not become a bool.
  template <typename T>
  Value(const T*) = delete;

  static Value none();
  // Printing gives nothing, any other use fails with `message`.
  static Value undefined(std::string message, FailureKind kind = FailureKind::undefined);

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_string() const { return kind_ == Kind::string; }
  // int or bool, which is an int in Python.
  bool is_integral() const { return kind_ == Kind::integer || kind_ == Kind::boolean; }
  bool is_number() const { return is_integral() || kind_ == Kind::real; }
  bool is_sequence() const { return kind_ == Kind::list || kind_ == Kind::tuple; }

  // Each expects the kind.
  bool boolean() const { return number_.integer != 0; }
  int64_t integer() const { return number_.integer; }
  double real() const { return number_.real; }
  double to_double() const {
    return kind_ == Kind::real ? number_.real : static_cast<double>(number_.integer);
  }
  const Text& text() const { return static_cast<const Text&>(*object_); }
  const std::vector<Value>& items() const;  // list, tuple
  const Sequence& sequence() const;
  const Dict& dict() const;
  const View& view() const;
  const Range& range() const;
  Iterator& iterator() const;
  Namespace& name_space() const;
  Special& special() const;
  [[noreturn]] void fail_undefined() const;

  const Object* object() const { return object_.get(); }
  const std::shared_ptr<Object>& shared() const { return object_; }
  uint32_t nesting() const { return object_ ? object_->nesting : 0; }

  // Where the value came from, for all kinds but strings, whose marks say it byte by byte.
  uint32_t tag() const { return tag_; }
  Value with_tag(uint32_t tag) const {
    Value copy = *this;
    copy.tag_ = tag;
    return copy;
  }

 private:
  Kind kind_ = Kind::missing;
  uint32_t tag_ = 0;
  union {
    int64_t integer;
    double real;
  } number_{0};
  std::shared_ptr<Object> object_;
};

struct Undefined final : Object {
  std::string message;
  FailureKind kind = FailureKind::undefined;
};

struct Sequence final : Object {
  std::vector<Value> items;
  bool group = false;  // a (grouper, list) pair of `groupby`, whose items have names
};

// Keeps the order of insertion.
struct Dict final : Object {
  using Entry = std::pair<Value, Value>;
  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  // Null if absent. Throws for keys that have no hash (lists).
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  // Inserts, or replaces the value in place; only before the dict is shared.
  void set(Value key, Value value);

 private:
  const Value* find_hashed(uint64_t hash, const Value& key) const;
  std::vector<Entry> entries_;
  std::unordered_multimap<uint64_t, uint32_t> index_;  // for more than a few entries
};

struct View final : Object {
  enum class Part { keys, values, items };
  std::shared_ptr<const Dict> dict;
  Part part = Part::keys;
};

struct Range final : Object {
  int64_t start = 0, stop = 0, step = 1;
  int64_t size() const;
  int64_t at(int64_t index) const { return start + index * step; }
};

struct Iterator : Object {
  // False at the end.
  virtual bool next(Value& item) = 0;
  // Python's name of the type, for messages.
  virtual std::string_view type_name() const { return "generator"; }
};

struct Namespace final : Object {
  std::vector<std::pair<std::string, Value>> attributes;
  const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);
};

struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

class Interpreter;

struct Special : Object {
  virtual std::string_view type_name() const = 0;
  virtual std::string representation() const;
  virtual std::optional<Value> attribute(Interpreter&, std::string_view) { return std::nullopt; }
  virtual bool callable() const { return false; }
  virtual Value call(Interpreter& interpreter, CallArguments& arguments);
  // Gives up what it holds, so that cycles end with the render.
  virtual void release(std::vector<Value>&) {}
};

// Makes values and charges for them.
class Heap {
 public:
  explicit Heap(Budget budget) : budget_(budget) {}
  Budget& budget() { return budget_; }
  Value text(std::string_view text);
  Value list(std::vector<Value> items) { return sequence(Kind::list, std::move(items)); }
  Value tuple(std::vector<Value> items) { return sequence(Kind::tuple, std::move(items)); }
  Value group(Value grouper, Value list);
  Value dict(std::shared_ptr<Dict> dict);
  Value view(std::shared_ptr<const Dict> dict, View::Part part);
  Value range(int64_t start, int64_t stop, int64_t step);
  // Bounds the nesting of a new object that refers to `parts`.
  void nest(Object& object, const Value& part);

 private:
  Value sequence(Kind kind, std::vector<Value> items);
  Budget budget_;
};

// Values of a message or tool. All of it, or each string inside, carries `tag`.
Value from_json(Heap& heap, const Json& json, uint32_t tag, std::string_view where);

// Python's name of the type: "str", "NoneType".
std::string_view type_name(const Value& value);

}  // namespace qkv::jinja
