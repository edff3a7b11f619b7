// JSON as a stream of events: for headers and indexes with tens of thousands of keys, where a document tree
// costs time and memory, and where duplicate keys must be noticed rather than overwritten.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace qkv {

// null; true or false; a negative integer; an integer from 0 up; any other number; text.
using JsonScalar = std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string>;
// "the number 3", "a string": how error sentences call the value.
std::string describe(const JsonScalar& value);

// The keys down to a value, outermost first; an element of a list has the key "". The root's path is empty.
using JsonPath = std::vector<std::string>;

class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  virtual void open(const JsonPath& path, bool is_list) = 0;
  virtual void close(const JsonPath& path, bool is_list) = 0;
  virtual void scalar(const JsonPath& path, JsonScalar value) = 0;
};

// Calls `events` in the order of the text. Throws Error `<where>: not valid JSON: ...` (with a position),
// also for text that is not UTF-8 or nested deeper than 512, and passes on what the events throw.
void scan_json(std::string_view text, std::string_view where, JsonEvents& events);

}  // namespace qkv
