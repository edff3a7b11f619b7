// What Python's operators and built-in functions do with values.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "qkv/text/jinja/value.h"

namespace qkv::jinja {

// ---- truth, equality, order (compare.cpp) ----
bool truth(const Value& value);
bool equal(const Value& a, const Value& b);
uint64_t hash_bytes(std::string_view bytes);
// Throws for lists and dictionaries, which have no hash.
uint64_t hash_value(const Value& value);
enum class Order { less, less_equal, greater, greater_equal };
// Throws where Python's types have no order.
bool ordered(const Value& a, const Value& b, Order order);
bool less(const Value& a, const Value& b);
bool contains(const Value& container, const Value& item);

// ---- arithmetic (arithmetic.cpp) ----
enum class BinaryOperator { add, subtract, multiply, divide, floor_divide, modulo, power };
Value binary(Heap& heap, BinaryOperator op, const Value& a, const Value& b);
Value negative(const Value& value);
Value positive(const Value& value);
// Python's round(): half to even.
Value round_number(const Value& value, int64_t digits);

// ---- containers (containers.cpp) ----
// len(); nullopt where Python's types have none.
std::optional<int64_t> try_length(const Value& value);
int64_t length(const Value& value);
bool is_iterable(const Value& value);
std::shared_ptr<Iterator> iterate(Heap& heap, const Value& value);
std::vector<Value> to_vector(Heap& heap, const Value& value);
// reversed(): nullptr for what cannot be walked backwards.
std::shared_ptr<Iterator> iterate_backwards(Heap& heap, const Value& value);
std::shared_ptr<Iterator> iterate_vector(Heap& heap, std::vector<Value> items);
Value iterator_value(Heap& heap, std::shared_ptr<Iterator> iterator);
// value[start:stop:step] with missing or none where it was left out.
Value slice(Heap& heap, const Value& value, const Value& start, const Value& stop, const Value& step);
Value slice_text(Heap& heap, const Text& text, int64_t begin, int64_t end);
// value[key] where Python has it; nullopt for a missing key, an index out of range or a type without items.
std::optional<Value> find_item(Heap& heap, const Value& value, const Value& key);

// ---- text (representation.cpp) ----
// str(): the text itself for strings.
TextPtr to_text(Heap& heap, const Value& value);
void append_text(TextBuilder& out, const Value& value);
// repr()
void append_representation(TextBuilder& out, const Value& value, int depth = 0);
std::string representation(const Value& value);
// Python's repr of a float: the shortest digits that read back.
std::string format_real(double value);
// Quoted and escaped as Python does.
void append_quoted(TextBuilder& out, const Text& text);
std::string quoted(std::string_view text);
// "'dict object'", as Jinja names what lacks an attribute.
std::string object_name(const Value& value);

// ---- numbers in text (numbers.cpp) ----
// int(text, base); nullopt if it is not a number. Throws if it does not fit 64 bits.
std::optional<int64_t> parse_integer(std::string_view text, int64_t base);
// float(text)
std::optional<double> parse_real(std::string_view text);
// int(): throws as Python does for what has no integer value.
int64_t to_integer(const Value& value);
// For arguments that must be an index or a count.
int64_t expect_integer(const Value& value, std::string_view what);
const Text& expect_text(const Value& value, std::string_view what);

}  // namespace qkv::jinja
