// JSON schemas without indirection: references followed, allOf folded into one schema, so that what is left
// can be turned into a grammar keyword by keyword.
#pragma once

#include <string>
#include <string_view>

#include "qkv/core/json.h"

namespace qkv {

class SchemaMerger {
 public:
  // `root` must outlive this; references point into it. `where` begins error sentences.
  SchemaMerger(const Json& root, std::string_view where) : root_(root), where_(where) {}

  // Error naming `pointer` for keywords that are not known.
  void check_keywords(const Json& schema, const std::string& pointer) const;
  // What "#/..." points to.
  const Json& resolve(const Json& reference, const std::string& pointer) const;
  // An equivalent schema without $ref, allOf, oneOf, const and annotations at its top: an object, or false.
  Json flatten(const Json& schema, const std::string& pointer, int depth = 0) const;
  // Of two flat schemas: what satisfies both.
  Json merge(const Json& a, const Json& b, const std::string& pointer) const;

  [[noreturn]] void refuse(const std::string& pointer, std::string_view sentence) const;

 private:
  void merge_objects(Json& merged, const Json& a, const Json& b) const;
  void merge_arrays(Json& merged, const Json& a, const Json& b) const;

  const Json& root_;
  std::string where_;
  mutable size_t flattened_ = 0;  // schemas so far
};

// Keywords that say nothing about which values are valid.
bool is_annotation(std::string_view keyword);
// True if a number is integral; JSON Schema takes 2.0 for an integer.
bool is_integral(const Json& value);

}  // namespace qkv
