// The filters, tests, methods and global functions of the language, by name.
#pragma once

#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "qkv/text/jinja/value.h"

namespace qkv::jinja {

using Filter = Value (*)(Interpreter& interpreter, const Value& value, CallArguments& arguments);
using Test = bool (*)(Interpreter& interpreter, const Value& value, CallArguments& arguments);

template <typename Function>
struct Named {
  std::string_view name;
  Function function;
};

// Each file of filters gives its own.
std::span<const Named<Filter>> text_filters();      // filters_text.cpp
std::span<const Named<Filter>> wrapping_filters();  // filters_wrapping.cpp
std::span<const Named<Filter>> sequence_filters();  // filters_sequence.cpp
std::span<const Named<Filter>> lazy_filters();      // filters_lazy.cpp
std::span<const Named<Filter>> value_filters();     // filters_value.cpp
std::span<const Named<Test>> tests();               // tests.cpp

bool is_filter(std::string_view name);
bool is_test(std::string_view name);
// Throw Failure for unknown names.
Value apply_filter(Interpreter& interpreter, std::string_view name, const Value& value,
                   CallArguments& arguments);
bool apply_test(Interpreter& interpreter, std::string_view name, const Value& value,
                CallArguments& arguments);

// A method of strings, lists, tuples or dictionaries; nullopt if Python has none of that name.
std::optional<Value> find_method(Heap& heap, const Value& self, std::string_view name);
using Method = Value (*)(Interpreter& interpreter, const Value& self, CallArguments& arguments);
std::span<const Named<Method>> string_methods();              // methods_string.cpp
std::span<const Named<Method>> string_tests();                // methods_string_tests.cpp
std::span<const Named<Method>> container_methods(Kind kind);  // methods_container.cpp
// True for methods that would change a list or dictionary, which the sandbox refuses.
bool is_mutating_method(Kind kind, std::string_view name);

// range, dict, namespace, cycler, joiner, raise_exception, strftime_now, ...; nullopt for other names.
std::optional<Value> find_global(Heap& heap, std::string_view name);

// json.dumps with the arguments of transformers' tojson.
struct JsonStyle {
  bool ascii = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false;
};
void append_json(TextBuilder& out, const Value& value, const JsonStyle& style);

// ---- arguments ----

// Puts the arguments of a call to its parameters, as Python does. A parameter with an empty name is
// positional only.
class Bound {
 public:
  // The first `required` parameters must be given.
  Bound(std::string_view function, CallArguments& arguments,
        std::initializer_list<std::string_view> parameters, size_t required = 0);
  // Null if it was left out.
  const Value* get(size_t index) const {
    return values_[index].is(Kind::missing) ? nullptr : &values_[index];
  }
  const Value& operator[](size_t index) const { return values_[index]; }
  // What was given, and neither left out nor none.
  const Value* some(size_t index) const;
  int64_t integer(size_t index, int64_t fallback) const;
  bool flag(size_t index, bool fallback) const;

 private:
  std::string_view function_;
  std::vector<Value> values_;
};

}  // namespace qkv::jinja
