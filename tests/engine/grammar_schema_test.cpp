// JSON Schema as a grammar: valid and invalid instances for every keyword, texts that are made by following
// the masks against an independent checker, and what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "tests/engine/grammar_support.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::accepts;
using test::random_text;
using test::SmallVocabulary;

std::shared_ptr<const Grammar> compile(const std::string& schema) {
  return grammar_from_json_schema(parse_json(schema, "s"), "s");
}

struct Instances {
  const char* schema;
  std::vector<std::string> valid, invalid;
};

const std::vector<Instances>& keyword_table() {
  static const std::vector<Instances> table = {
      // any JSON, and its white space
      {"{}",
       {"null", "{}", "[]", "[1, true, {\"a\": \"b\"}]", "{\n  \"a\": [\n    1\n  ]\n}", "-0.5e-7",
        "\"\\ud83d\\ude00\""},
       {"", "nul", "[1,]", "{a:1}", "01", "1.", "+1", "\"\\ud83d\"", "\"\\ude00\"", "\"\n\"", "1 ",
        "{\"a\":1,}", "\"\\x41\""}},
      {"true", {"0", "\"x\""}, {"x"}},
      // type
      {R"({"type": "string"})", {R"("")", R"("a\"\\\/\b\f\n\r\t\u00e9é")"}, {"1", "\"", R"("\q")"}},
      {R"({"type": "number"})", {"0", "-1", "3.25", "1e5", "1.5E-03"}, {"00", ".5", "1e", "1e100", "\"1\""}},
      {R"({"type": "integer"})",
       {"0", "-7", "9999999999999999"},
       {"1.5", "1e3", "-0", "01", "10000000000000000"}},
      {R"({"type": "boolean"})", {"true", "false"}, {"True", "null"}},
      {R"({"type": "null"})", {"null"}, {"0"}},
      {R"({"type": "object"})", {"{}", R"({"x": {"y": [1]}})"}, {"[]", R"({"x"})"}},
      {R"({"type": "array"})", {"[]", "[[], {}]"}, {"{}"}},
      {R"({"type": ["string", "null", "integer", "number"]})", {"\"a\"", "null", "1", "1.5"}, {"true"}},
      // enum, const
      {R"({"enum": ["a", 1, null, {"k": [true]}, "q\"\u00e9"]})",
       {"\"a\"", "1", "null", R"({"k":[true]})", "\"q\\\"é\""},
       {"\"b\"", "2"}},
      {R"({"enum": ["a", 1, 2.0, 2.5], "type": "integer"})", {"1", "2.0"}, {"\"a\"", "2.5"}},
      {R"({"const": [1, "x"]})", {R"([1,"x"])"}, {"[1]"}},
      // objects
      {R"({"properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["a"]})",
       {R"({"a":1})", R"({"a": 1, "b": true})", "{\n\t\"a\": 1\n}"},
       {"{}", R"({"b":true})", R"({"a":1,"c":2})", R"({"b":true,"a":1})", R"({"a":1,})"}},
      {R"({"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}})",
       {"{}", R"({"a":null})", R"({"b":null})", R"({"c":null})", R"({"a":null,"c":null})",
        R"({"b":null, "c":null})", R"({"a":null,"b":null,"c":null})"},
       {R"({"b":null,"a":null})", R"({"a":null,"a":null})", R"({,"a":null})", R"({"a":null "c":null})"}},
      {R"({"properties": {"a": {}, "b": {}, "c": {}}, "required": ["c", "b"]})",
       {R"({"b":1,"c":2})", R"({"a":0,"b":1,"c":2})"},
       {R"({"a":0,"c":2})", R"({"c":2})", R"({"a":0,"b":1})"}},
      {R"({"type": "object", "properties": {}})", {"{}", "{ }"}, {R"({"a":1})"}},
      {R"({"type": "object", "additionalProperties": {"type": "integer"}})",
       {"{}", R"({"x":1,"y": 2})"},
       {R"({"x":"1"})"}},
      {R"({"type": "object", "additionalProperties": false})", {"{}"}, {R"({"x":1})"}},
      {R"({"properties": {"abc": {"type": "integer"}, "abd": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}})",
       {"{}", R"({"abc":1})", R"({"abc":1,"ab":true,"abcd":false})", R"({"x":true})", R"({"":true})",
        R"({"é\n":true})"},
       {R"({"abc":true})", R"({"x":1})", R"({"x":true,"abc":1})", R"({"abd":1,"abd":true})",
        R"({"\u0061bc":true})"}},
      {R"({"properties": {"a": {"type": "null"}}, "required": ["a"], "additionalProperties": true})",
       {R"({"a":null})", R"({"a":null,"b":[1]})"},
       {R"({"b":1})"}},
      {R"({"required": ["z"]})", {R"({"z":1})", R"({"z":{},"y":2})"}, {"{}", R"({"y":1})"}},
      {R"({"properties": {"a": false, "b": true}})", {"{}", R"({"b":[]})"}, {R"({"a":1})"}},
      {R"({"properties": {"a/b~\"é": {"const": 1}}, "required": ["a/b~\"é"]})",
       {"{\"a/b~\\\"é\":1}"},
       {"{}"}},
      // arrays
      {R"({"type": "array", "items": {"type": "integer"}})",
       {"[]", "[1]", "[1, 2,3]", "[\n  1,\n  2\n]"},
       {"[\"a\"]", "[1 2]", "[,1]"}},
      {R"({"items": {"type": "null"}, "minItems": 2, "maxItems": 3})",
       {"[null,null]", "[null,null,null]"},
       {"[]", "[null]", "[null,null,null,null]"}},
      {R"({"minItems": 1})", {"[0]", "[0,\"x\"]"}, {"[]"}},
      {R"({"maxItems": 0})", {"[]"}, {"[1]"}},
      {R"({"items": {"const": 1}, "minItems": 3})", {"[1,1,1]", "[1,1,1,1,1]"}, {"[1,1]"}},
      {R"({"prefixItems": [{"type": "integer"}, {"type": "string"}]})",
       {"[]", "[1]", "[1,\"a\"]", "[1,\"a\",null,{}]"},
       {"[\"a\"]", "[1,2]"}},
      {R"({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false, "minItems": 1})",
       {"[1]", "[1,\"a\"]"},
       {"[]", "[1,\"a\",2]"}},
      {R"({"prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 3}, "minItems": 3, "maxItems": 4})",
       {"[1,2,3]", "[1,2,3,3]"},
       {"[1,2]", "[1,2,3,3,3]", "[3,3,3]"}},
      {R"({"prefixItems": [{"const": 1}, {"const": 2}, {"const": 3}], "maxItems": 2})",
       {"[]", "[1]", "[1,2]"},
       {"[1,2,3]"}},
      {R"({"prefixItems": [{"const": 1}, false]})", {"[]", "[1]"}, {"[1,2]"}},
      // strings
      {R"({"minLength": 2, "maxLength": 3})",
       {"\"ab\"", "\"é€😀\"", "\"\\n\\u0041x\"", "\"\\ud83d\\ude00x\""},
       {"\"a\"", "\"abcd\"", "\"\""}},
      {R"({"type": "string", "maxLength": 0})", {"\"\""}, {"\"a\""}},
      {R"({"pattern": "^[a-c]+\\d$"})", {"\"ab1\""}, {"\"1\"", "\"ab1x\"", "\"xab1\""}},
      {R"({"pattern": "b"})", {"\"b\"", "\"abc\""}, {"\"a\"", "\"\""}},
      {R"({"pattern": "^\"\\\\\n$"})", {R"("\"\\\n")"}, {R"("\"")", "\"\"\\\n\""}},
      {R"({"pattern": "^.$"})", {"\"é\"", R"("\t")", R"("\\")", R"("\u0001")"}, {R"("\n")", "\"\""}},
      {R"({"format": "date"})",
       {"\"2024-02-29\"", "\"2000-02-29\"", "\"2023-12-31\""},
       {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\"", "\"23-01-01\""}},
      {R"({"type": "string", "format": "time"})",
       {"\"23:59:59Z\"", "\"00:00:00.123+05:30\""},
       {"\"24:00:00Z\"", "\"12:00:00\""}},
      {R"({"format": "date-time"})", {"\"2024-02-29T12:30:00Z\""}, {"\"2024-02-29 12:30:00Z\""}},
      {R"({"format": "duration"})",
       {"\"P3Y6M4DT12H30M5S\"", "\"P1W\"", "\"PT36H\"", "\"P1M\""},
       {"\"P\"", "\"PT\"", "\"3D\""}},
      {R"({"format": "uuid"})",
       {"\"123e4567-e89b-12d3-A456-426614174000\""},
       {"\"123e4567e89b12d3a456426614174000\""}},
      {R"({"format": "ipv4"})", {"\"255.0.10.199\""}, {"\"256.0.0.1\"", "\"1.2.3\""}},
      {R"({"format": "hostname"})", {"\"a-b.example\""}, {"\"-a\"", "\"a..b\""}},
      {R"({"format": "email"})", {"\"jo.e+x@mail.example\""}, {"\"joe\"", "\"@b.c\""}},
      // integers
      {R"({"type": "integer", "minimum": 0})", {"0", "17"}, {"-1"}},
      {R"({"type": "integer", "minimum": -12, "maximum": 105})",
       {"-12", "-9", "0", "10", "99", "100", "105"},
       {"-13", "106", "110", "1000", "-100", "00"}},
      {R"({"type": "integer", "exclusiveMinimum": 2.5, "exclusiveMaximum": 5})", {"3", "4"}, {"2", "5"}},
      {R"({"type": "integer", "minimum": 1234, "maximum": 98765})",
       {"1234", "1999", "9999", "10000", "98765"},
       {"1233", "98766", "999"}},
      {R"({"type": "integer", "maximum": -5})", {"-5", "-10"}, {"-4", "0", "5"}},
      {R"({"type": "integer", "minimum": 99999999999999999})",
       {"99999999999999999", "9223372036854775807"},
       {"99999999999999998", "9223372036854775808"}},
      {R"({"type": "integer", "minimum": 7, "maximum": 7})", {"7"}, {"6", "8", "77"}},
      // numbers
      {R"({"type": "number", "minimum": 0, "maximum": 1})",
       {"0", "1", "0.5", "1.0", "0.00001"},
       {"-0.1", "1.01", "2", "1e0", "-0"}},
      {R"({"type": "number", "exclusiveMinimum": -2.5, "exclusiveMaximum": 10.25})",
       {"-2.4999", "-2", "0", "10.2", "10.24999", "9.99", "-0.5", "10"},
       {"-2.5", "-2.50", "10.25", "10.250", "11", "-3", "10.3"}},
      {R"({"type": "number", "minimum": 12.34})",
       {"12.34", "12.340", "12.5", "13", "9999.5"},
       {"12.3", "12", "12.33999", "-13"}},
      {R"({"type": "number", "maximum": -5e-1})", {"-0.5", "-0.75", "-3"}, {"-0.4", "0", "0.5", "-0"}},
      {R"({"minimum": 5, "maximum": 5.0})", {"5", "5.0"}, {"5.1", "4.9"}},
      {R"({"type": "number", "exclusiveMinimum": 0, "minimum": 0, "maximum": 0.05})",
       {"0.05", "0.01", "0.049"},
       {"0", "0.0", "0.06", "0.1"}},
      // combinations
      {R"({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]})",
       {"1", "\"a\""},
       {"\"ab\"", "null"}},
      {R"({"oneOf": [{"const": "a"}, {"type": "null"}, false]})", {"\"a\"", "null"}, {"\"b\""}},
      {R"({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"b": {"type": "null"}}, "required": ["b"]}]})",
       {R"({"a":1,"b":null})"},
       {R"({"a":1})", R"({"b":null})"}},
      {R"({"allOf": [{"type": "integer", "minimum": 3}, {"type": "number", "maximum": 5}, {"minimum": 4}]})",
       {"4", "5"},
       {"3", "6"}},
      {R"({"allOf": [{"type": ["string", "null"]}, {"type": ["null", "integer"]}]})",
       {"null"},
       {"\"a\"", "1"}},
      {R"({"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}, {"const": 3}]})", {"3"}, {"2"}},
      {R"({"allOf": [{"anyOf": [{"minimum": 5}, {"maximum": 1}]}, {"type": "integer", "minimum": 0, "maximum": 6}]})",
       {"0", "1", "5", "6"},
       {"2", "4", "7"}},
      {R"({"allOf": [{"properties": {"a": {}}, "additionalProperties": false}, {"properties": {"b": {}}}]})",
       {"{}", R"({"a":1})"},
       {R"({"b":1})", R"({"a":1,"b":1})"}},
      {R"({"allOf": [{"prefixItems": [{"type": "integer"}]}, {"items": {"maximum": 3, "type": "integer"}, "minItems": 1}]})",
       {"[3]", "[1,2]"},
       {"[]", "[4]"}},
      {R"({"type": "object", "properties": {"k": {"type": "integer"}, "v": {}}, "anyOf": [{"required": ["k"]}, {"required": ["v"]}]})",
       {R"({"k":1})", R"({"v":1})", R"({"k":1,"v":[]})"},
       {"{}"}},
      // references
      {R"({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}})", {"[1,2]"}, {"[\"1\"]"}},
      {R"({"definitions": {"a/b~": {"const": 1}}, "$ref": "#/definitions/a~1b~0"})", {"1"}, {"2"}},
      {R"({"$ref": "#/$defs/node", "$defs": {"node": {"properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"]}}})",
       {R"({"value":1,"next":null})", R"({"value":1,"next":{"value":2,"next":{"value":3,"next":null}}})"},
       {R"({"value":1})", R"({"value":1,"next":{}})"}},
      {R"({"properties": {"children": {"items": {"$ref": "#"}}, "x": {"type": "null"}}})",
       {"{}", R"({"children":[{},{"children":[],"x":null}]})"},
       {R"({"children":[1]})"}},
      {R"({"$defs": {"p": {"type": "integer", "minimum": 0}}, "allOf": [{"$ref": "#/$defs/p"}], "maximum": 3, "description": "d"})",
       {"0", "3"},
       {"-1", "4"}},
      {R"({"$defs": {"s": {"properties": {"in": {"allOf": [{"$ref": "#/$defs/s"}, {"required": ["in"]}]}}}}, "$ref": "#/$defs/s"})",
       {"{}"},
       {R"({"in":{}})"}},
      // annotations say nothing
      {R"({"title": "t", "description": "d", "default": 1, "examples": [], "$comment": "", "deprecated": true, "type": "null"})",
       {"null"},
       {"1"}},
  };
  return table;
}

TEST(JsonSchemaGrammar, EveryKeyword) {
  for (const Instances& row : keyword_table()) {
    SCOPED_TRACE(row.schema);
    const auto grammar = compile(row.schema);
    for (const auto& text : row.valid) {
      EXPECT_TRUE(accepts(grammar, text)) << text;
      EXPECT_TRUE(Json::accept(text)) << text;
    }
    for (const auto& text : row.invalid) EXPECT_FALSE(accepts(grammar, text)) << text;
  }
}

TEST(JsonSchemaGrammar, RefusesNamingThePlace) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"properties": {"a": {"type": "string", "not": {}}}})",
       "s: #/properties/a/not: the keyword 'not' is not supported"},
      {R"({"items": {"uniqueItems": true}})",
       "s: #/items/uniqueItems: the keyword 'uniqueItems' is not supported"},
      {R"({"anyOf": [{"type": "null"}, {"patternProperties": {}}]})",
       "#/anyOf/1/patternProperties: the keyword"},
      {R"({"$defs": {"x": {"if": {}}}, "$ref": "#/$defs/x"})",
       "#/$defs/x/if: the keyword 'if' is not supported"},
      {R"({"maxlength": 3})", "did you mean 'maxLength'?"},
      {R"({"properties": {"a/b": {"type": "text"}}})", "s: #/properties/a~1b/type: expected object, array"},
      {R"({"type": 3})", "#/type: expected object, array"},
      {R"({"type": "number", "minimum": 0.1234567890123456})",
       "#/minimum: expected a bound of at most 15 digits"},
      {R"({"type": "integer", "minimum": "1"})", "#/minimum: expected a number, found string"},
      {R"({"type": "integer", "minimum": 1e300})", "#/minimum: expected a bound that fits 64 bits"},
      {R"({"minItems": -1})", "#/minItems: expected an integer from 0 to 65536, found -1"},
      {R"({"maxLength": 1.5})", "#/maxLength: expected an integer"},
      {R"({"format": "regex"})", "#/format: expected a known format (date, time, "},
      {"{\"pattern\": \"(?=a)\"}", "s: #/pattern:1:1: look-ahead"},
      {R"({"pattern": "a", "minLength": 3})", "'pattern' beside a length is not supported"},
      {R"({"pattern": "a", "format": "date"})", "'pattern' beside 'format' is not supported"},
      {R"({"allOf": [{"pattern": "a"}, {"pattern": "b"}]})", "two values of 'pattern'"},
      {R"({"enum": [1], "minimum": 1})", "#/minimum: 'minimum' beside enum or const is not supported"},
      {R"({"$ref": "other.json"})",
       "#/$ref: expected a reference into this schema (#/...), found 'other.json'"},
      {R"({"$ref": "#/$defs/x"})", "#/$ref: '#/$defs/x' points to nothing"},
      {R"({"$ref": 1})", "#/$ref: expected a string, found number"},
      {R"({"$ref": "#"})", "nested deeper than 64 levels, or in a circle"},
      {R"({"properties": {"a": {"$ref": "#"}}, "required": ["a"]})", "matches no text"},
      {"false", "s: #: no value satisfies this schema"},
      {R"({"type": "integer", "minimum": 3, "maximum": 2})", "no value satisfies"},
      {R"({"allOf": [{"type": "string"}, {"type": "null"}]})", "no value satisfies"},
      {R"({"properties": {"a": false}, "required": ["a"]})", "no value satisfies"},
      {"[]", "s: #: expected a schema (an object, true or false), found array"},
      {R"({"properties": []})", "#/properties: expected an object of schemas"},
      {R"({"properties": {"a": 1}})", "#/properties/a: expected a schema"},
      {R"({"required": "a"})", "#/required: expected an array of names"},
      {R"({"anyOf": []})", "#/anyOf: expected an array of schemas"},
      {R"({"prefixItems": {}})", "#/prefixItems: expected an array of schemas"},
  };
  for (const auto& [schema, sentence] : cases) {
    const std::string found = test::error_of([&] { compile(schema); });
    EXPECT_NE(found.find(sentence), std::string::npos) << schema << "\n  " << found;
  }
  // References that multiply.
  std::string doubling = R"({"$ref": "#/$defs/a0", "$defs": {)";
  for (int i = 0; i < 30; ++i) {
    const std::string next = R"({"$ref": "#/$defs/a)" + std::to_string(i + 1) + "\"}";
    doubling += "\"a" + std::to_string(i) + "\": {\"allOf\": [" + next + "," + next + "]},";
  }
  EXPECT_NE(test::error_of([&] { compile(doubling + "\"a30\": {}}}"); }).find("more than 100000 schemas"),
            std::string::npos);
  // Nesting multiplies nothing.
  std::string nested = "true";
  for (int i = 0; i < 60; ++i) nested = R"({"properties": {"a": )" + nested + R"(, "b": true, "c": true}})";
  EXPECT_TRUE(accepts(compile(nested), "{\"a\":{\"a\":{}, \"c\":1}}"));
}

std::wstring wide(const std::string& text) {
  std::wstring characters;
  for (size_t position = 0; position < text.size();)
    characters.push_back(static_cast<wchar_t>(*next_code_point(text, position)));
  return characters;
}

// A checker of the keywords above that shares nothing with what it checks.
bool satisfies(const Json& value, const Json& schema, const Json& root) {
  if (schema.is_boolean()) return schema.get<bool>();
  const auto has = [&](const char* key) { return schema.contains(key); };
  if (has("$ref") &&
      !satisfies(value, root.at(Json::json_pointer(schema["$ref"].get<std::string>().substr(1))), root))
    return false;
  if (has("const") && value != schema["const"]) return false;
  if (has("enum") && std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end())
    return false;
  for (const char* key : {"anyOf", "oneOf"}) {
    if (has(key) && std::none_of(schema[key].begin(), schema[key].end(),
                                 [&](const Json& s) { return satisfies(value, s, root); }))
      return false;
  }
  if (has("allOf") && !std::all_of(schema["allOf"].begin(), schema["allOf"].end(),
                                   [&](const Json& s) { return satisfies(value, s, root); }))
    return false;
  if (has("type")) {
    bool fits = false;
    for (const Json& type : schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]})) {
      const std::string name = type;
      fits =
          fits || (name == "object" && value.is_object()) || (name == "array" && value.is_array()) ||
          (name == "string" && value.is_string()) || (name == "number" && value.is_number()) ||
          (name == "null" && value.is_null()) || (name == "boolean" && value.is_boolean()) ||
          (name == "integer" && value.is_number() && std::trunc(value.get<double>()) == value.get<double>());
    }
    if (!fits) return false;
  }
  if (value.is_object()) {
    for (const auto& name : schema.value("required", Json::array())) {
      if (!value.contains(name.get<std::string>())) return false;
    }
    const Json properties = schema.value("properties", Json::object());
    for (const auto& [name, member] : value.items()) {
      if (properties.contains(name)
              ? !satisfies(member, properties[name], root)
              : !satisfies(member, schema.value("additionalProperties", Json(true)), root))
        return false;
    }
  }
  if (value.is_array()) {
    if (value.size() < schema.value("minItems", size_t{0}) ||
        value.size() > schema.value("maxItems", SIZE_MAX))
      return false;
    const Json prefix = schema.value("prefixItems", Json::array());
    for (size_t i = 0; i < value.size(); ++i) {
      if (!satisfies(value[i], i < prefix.size() ? prefix[i] : schema.value("items", Json(true)), root))
        return false;
    }
  }
  if (value.is_string()) {
    const std::string text = value;
    const auto length = static_cast<size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
    if (length < schema.value("minLength", size_t{0}) || length > schema.value("maxLength", SIZE_MAX))
      return false;
    if (has("pattern") && !std::regex_search(wide(text), std::wregex(wide(schema["pattern"])))) return false;
  }
  if (value.is_number()) {
    const double number = value;
    if (has("minimum") && number < schema["minimum"].get<double>()) return false;
    if (has("maximum") && number > schema["maximum"].get<double>()) return false;
    if (has("exclusiveMinimum") && number <= schema["exclusiveMinimum"].get<double>()) return false;
    if (has("exclusiveMaximum") && number >= schema["exclusiveMaximum"].get<double>()) return false;
  }
  return true;
}

TEST(JsonSchemaGrammar, CheckerAgreesWithTheTable) {
  for (const Instances& row : keyword_table()) {
    const Json schema = parse_json(row.schema, "s");
    for (const auto& text : row.valid)
      EXPECT_TRUE(satisfies(parse_json(text, "t"), schema, schema)) << row.schema << " " << text;
  }
}

TEST(JsonSchemaGrammar, WhateverIsGeneratedSatisfiesTheSchema) {
  const SmallVocabulary vocabulary = SmallVocabulary::mixed();
  std::vector<std::string> schemas;
  for (const Instances& row : keyword_table()) schemas.push_back(row.schema);
  schemas.push_back(R"({"type": "object", "properties": {
      "name": {"type": "string", "minLength": 1, "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
      "mail": {"format": "email"}, "tags": {"items": {"enum": ["a", "ab", "abc"]}, "maxItems": 4}, "when": {"format": "date-time"},
      "place": {"$ref": "#/$defs/place"}, "more": {"type": ["number", "null"]}}, "required": ["name", "tags", "more"],
      "additionalProperties": {"type": "boolean"},
      "$defs": {"place": {"properties": {"x": {"type": "number"}, "in": {"$ref": "#/$defs/place"}}, "required": ["x"]}}})");
  size_t texts = 0;
  for (const std::string& source : schemas) {
    const Json schema = parse_json(source, "s");
    const auto grammar = grammar_from_json_schema(schema, "s");
    for (uint64_t seed = 0; seed < 12; ++seed) {
      const std::string text = random_text(grammar, vocabulary, seed, 30 + 10 * (seed % 4), seed == 0);
      ASSERT_TRUE(Json::accept(text)) << source << "\n" << text;
      EXPECT_TRUE(satisfies(parse_json(text, "text"), schema, schema)) << source << "\n" << text;
      ++texts;
    }
  }
  EXPECT_GT(texts, 600u);
}

}  // namespace
}  // namespace qkv
