#include "qkv/engine/grammar/schema_merge.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr int kMaximumDepth = 64;
constexpr size_t kMaximumAlternatives = 1024;
constexpr size_t kMaximumSchemas = 100'000;  // references can multiply them

constexpr std::string_view kAnnotations[] = {
    "$schema",  "$id",         "$comment",         "$defs",          "definitions",
    "title",    "description", "default",          "examples",       "deprecated",
    "readOnly", "writeOnly",   "contentMediaType", "contentEncoding"};
constexpr std::string_view kKeywords[] = {"$ref",
                                          "allOf",
                                          "anyOf",
                                          "oneOf",
                                          "type",
                                          "enum",
                                          "const",
                                          "properties",
                                          "required",
                                          "additionalProperties",
                                          "items",
                                          "prefixItems",
                                          "minItems",
                                          "maxItems",
                                          "pattern",
                                          "format",
                                          "minLength",
                                          "maxLength",
                                          "minimum",
                                          "maximum",
                                          "exclusiveMinimum",
                                          "exclusiveMaximum"};

template <typename List>
bool contains(const List& list, std::string_view word) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

Json both(const Json& a, const Json& b) {
  if (a == b || b == Json(true) || b == Json::object()) return a;
  if (a == Json(true) || a == Json::object()) return b;
  if (a == Json(false) || b == Json(false)) return false;
  return Json{{"allOf", Json::array({a, b})}};
}

Json as_list(const Json& value) {
  return value.is_array() ? value : Json::array({value});
}

Json common_types(const Json& a, const Json& b) {
  Json common = Json::array();
  const Json others = as_list(b);
  for (const Json& type : as_list(a)) {
    const bool number = type == "number" || type == "integer";
    for (const Json& other : others) {
      if (type == other) {
        common.push_back(type);
      } else if (number && (other == "number" || other == "integer")) {
        common.push_back("integer");
      }
    }
  }
  return common;
}

Json common_values(const Json& a, const Json& b) {
  Json common = Json::array();
  for (const Json& value : a) {
    if (std::find(b.begin(), b.end(), value) != b.end()) common.push_back(value);
  }
  return common;
}

const Json& at_or(const Json& schema, const char* key, const Json& fallback) {
  const auto found = schema.find(key);
  return found == schema.end() ? fallback : *found;
}

std::string unescape(std::string_view token) {
  std::string text;
  for (size_t i = 0; i < token.size(); ++i) {
    if (token.substr(i, 2) == "~1" || token.substr(i, 2) == "~0") {
      text += token[++i] == '1' ? '/' : '~';
    } else {
      text += token[i];
    }
  }
  return text;
}

}  // namespace

bool is_annotation(std::string_view keyword) {
  return contains(kAnnotations, keyword);
}

bool is_integral(const Json& value) {
  return value.is_number_integer() ||
         (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>());
}

void SchemaMerger::refuse(const std::string& pointer, std::string_view sentence) const {
  fail("{}: {}: {}", where_, pointer, sentence);
}

void SchemaMerger::check_keywords(const Json& schema, const std::string& pointer) const {
  if (!schema.is_object())
    refuse(pointer,
           fmt::format("expected a schema (an object, true or false), found {}", schema.type_name()));
  for (const auto& [keyword, value] : schema.items()) {
    if (contains(kKeywords, keyword) || is_annotation(keyword)) continue;
    const std::vector<std::string> known(std::begin(kKeywords), std::end(kKeywords));
    refuse(pointer + "/" + keyword,
           fmt::format("the keyword '{}' is not supported{}", keyword, suggestion(keyword, known)));
  }
}

const Json& SchemaMerger::resolve(const Json& reference, const std::string& pointer) const {
  const std::string place = pointer + "/$ref";
  if (!reference.is_string())
    refuse(place, fmt::format("expected a string, found {}", reference.type_name()));
  const auto& text = reference.get_ref<const std::string&>();
  if (text != "#" && !text.starts_with("#/"))
    refuse(place, fmt::format("expected a reference into this schema (#/...), found '{}'", text));
  const Json* target = &root_;
  for (size_t begin = 1; begin < text.size();) {
    const size_t end = std::min(text.find('/', begin + 1), text.size());
    const std::string token = unescape(std::string_view(text).substr(begin + 1, end - begin - 1));
    begin = end;
    const Json* next = nullptr;
    if (target->is_object()) {
      const auto found = target->find(token);
      if (found != target->end()) next = &*found;
    } else if (target->is_array() && !token.empty() && token.size() < 9 &&
               token.find_first_not_of("0123456789") == std::string::npos) {
      const size_t index = std::stoul(token);
      if (index < target->size()) next = &(*target)[index];
    }
    if (next == nullptr) refuse(place, fmt::format("'{}' points to nothing", text));
    target = next;
  }
  return *target;
}

Json SchemaMerger::flatten(const Json& schema, const std::string& pointer, int depth) const {
  if (depth > kMaximumDepth)
    refuse(pointer,
           fmt::format("references and allOf nested deeper than {} levels, or in a circle", kMaximumDepth));
  if (++flattened_ > kMaximumSchemas)
    refuse(pointer, fmt::format("references and allOf make more than {} schemas", kMaximumSchemas));
  if (schema.is_boolean()) return schema.get<bool>() ? Json::object() : Json(false);
  check_keywords(schema, pointer);
  Json flat = Json::object();
  for (const auto& [keyword, value] : schema.items()) {
    if (keyword != "$ref" && keyword != "allOf" && keyword != "const" && keyword != "oneOf" &&
        !is_annotation(keyword))
      flat[keyword] = value;
  }
  const auto add = [&](const Json& part) { flat = merge(flat, part, pointer); };
  if (schema.contains("enum") && !schema["enum"].is_array())
    refuse(pointer + "/enum", fmt::format("expected an array, found {}", schema["enum"].type_name()));
  for (const char* list : {"anyOf", "oneOf", "allOf"}) {
    if (schema.contains(list) && (!schema[list].is_array() || schema[list].empty()))
      refuse(pointer + "/" + list, "expected an array of schemas");
  }
  if (schema.contains("const")) add(Json{{"enum", Json::array({schema["const"]})}});
  if (schema.contains("oneOf")) add(Json{{"anyOf", schema["oneOf"]}});
  if (schema.contains("$ref")) {
    const Json& target = resolve(schema["$ref"], pointer);
    add(flatten(target, schema["$ref"].get<std::string>(), depth + 1));
  }
  if (schema.contains("allOf")) {
    size_t index = 0;
    for (const Json& part : schema["allOf"])
      add(flatten(part, pointer + "/allOf/" + std::to_string(index++), depth + 1));
  }
  return flat;
}

Json SchemaMerger::merge(const Json& a, const Json& b, const std::string& pointer) const {
  if (a.is_boolean() || b.is_boolean()) return false;  // a flat schema that is no object is false
  Json merged = a;
  for (const auto& [keyword, value] : b.items()) {
    if (!a.contains(keyword)) {
      merged[keyword] = value;
      continue;
    }
    const Json& present = a[keyword];
    if (present == value) continue;
    if (keyword == "type") {
      merged[keyword] = common_types(present, value);
      if (merged[keyword].empty()) return false;
    } else if (keyword == "enum") {
      merged[keyword] = common_values(present, value);
      if (merged[keyword].empty()) return false;
    } else if (keyword == "required") {
      for (const Json& name : value) {
        if (std::find(present.begin(), present.end(), name) == present.end()) merged[keyword].push_back(name);
      }
    } else if (keyword == "anyOf") {
      Json products = Json::array();
      for (const Json& first : present) {
        for (const Json& second : value) products.push_back(both(first, second));
      }
      if (products.size() > kMaximumAlternatives)
        refuse(pointer, fmt::format("its alternatives combine to more than {}", kMaximumAlternatives));
      merged[keyword] = products;
    } else if (keyword == "pattern" || keyword == "format") {
      refuse(pointer, fmt::format("two values of '{}' for the same string are not supported", keyword));
    } else if (keyword.starts_with("min") || keyword == "exclusiveMinimum") {
      if (!present.is_number() || (value.is_number() && value > present)) merged[keyword] = value;
    } else if (keyword.starts_with("max") || keyword == "exclusiveMaximum") {
      if (!present.is_number() || (value.is_number() && value < present)) merged[keyword] = value;
    }
  }
  merge_objects(merged, a, b);
  merge_arrays(merged, a, b);
  return merged;
}

// A property that one of the schemas does not list is an additional one there.
void SchemaMerger::merge_objects(Json& merged, const Json& a, const Json& b) const {
  const Json none = Json::object(), free = true;
  const Json &listed_a = at_or(a, "properties", none), &listed_b = at_or(b, "properties", none);
  const Json &others_a = at_or(a, "additionalProperties", free),
             &others_b = at_or(b, "additionalProperties", free);
  if (!listed_a.is_object() || !listed_b.is_object()) return;  // refused where it is read
  if (a.contains("properties") || b.contains("properties")) {
    Json properties = Json::object();
    for (const auto& [name, schema] : listed_a.items())
      properties[name] = both(schema, listed_b.contains(name) ? listed_b[name] : others_b);
    for (const auto& [name, schema] : listed_b.items()) {
      if (!listed_a.contains(name)) properties[name] = both(others_a, schema);
    }
    merged["properties"] = properties;
  }
  if (a.contains("additionalProperties") && b.contains("additionalProperties"))
    merged["additionalProperties"] = both(others_a, others_b);
}

void SchemaMerger::merge_arrays(Json& merged, const Json& a, const Json& b) const {
  const Json none = Json::array(), free = true;
  const Json &prefix_a = at_or(a, "prefixItems", none), &prefix_b = at_or(b, "prefixItems", none);
  const Json &rest_a = at_or(a, "items", free), &rest_b = at_or(b, "items", free);
  if (!prefix_a.is_array() || !prefix_b.is_array()) return;
  if (!prefix_a.empty() || !prefix_b.empty()) {
    Json prefix = Json::array();
    for (size_t i = 0; i < std::max(prefix_a.size(), prefix_b.size()); ++i)
      prefix.push_back(
          both(i < prefix_a.size() ? prefix_a[i] : rest_a, i < prefix_b.size() ? prefix_b[i] : rest_b));
    merged["prefixItems"] = prefix;
  }
  if (a.contains("items") && b.contains("items")) merged["items"] = both(rest_a, rest_b);
}

}  // namespace qkv
