// How filters look into items: attribute="user.name", attribute=0, attribute="age,name".
#pragma once

#include <functional>
#include <initializer_list>
#include <vector>

#include "qkv/text/jinja/interpreter.h"

namespace qkv::jinja {

class AttributePath {
 public:
  AttributePath() = default;  // the item itself
  // `attribute` is a string with dots or an integer. `fallback` replaces what is undefined, if it is not
  // null.
  AttributePath(Heap& heap, const Value& attribute, const Value* fallback = nullptr);
  Value find(Interpreter& interpreter, const Value& item) const;

 private:
  std::vector<Value> parts_;
  Value fallback_;
};

// A string in lower case; other values as they are.
Value ignore_case(Heap& heap, const Value& value);

// The iterator of a lazy filter. `next` is called until it returns false; `parts` are what it refers to.
Value make_generator(Heap& heap, std::initializer_list<Value> parts, std::function<bool(Value&)> next);

}  // namespace qkv::jinja
