// JSON Schema (draft 2020-12, and what drafts 6 and 7 share with it) as a grammar of JSON texts. Members come
// in the order in which the schema lists them. Whether exactly one alternative of oneOf holds cannot be seen
// from the left: it is taken for anyOf. An object that lists properties is closed unless additionalProperties
// says otherwise.
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "qkv/core/error.h"
#include "qkv/engine/grammar/grammar.h"
#include "qkv/engine/grammar/json_expressions.h"
#include "qkv/engine/grammar/json_numbers.h"
#include "qkv/engine/grammar/regex_grammar.h"
#include "qkv/engine/grammar/schema_merge.h"
#include "qkv/engine/grammar/string_formats.h"

namespace qkv {
namespace {

constexpr int kMaximumDepth = 128;
constexpr int64_t kMaximumCount = GrammarBuilder::kMaximumRepetitions;

// The types that a keyword is about.
const std::vector<std::pair<std::string, std::vector<std::string>>>& keywords_by_type() {
  static const std::vector<std::pair<std::string, std::vector<std::string>>> table = {
      {"object", {"properties", "required", "additionalProperties"}},
      {"array", {"items", "prefixItems", "minItems", "maxItems"}},
      {"string", {"minLength", "maxLength", "pattern", "format"}},
      {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}}};
  return table;
}

const std::set<std::string>& type_names() {
  static const std::set<std::string> names = {"object",  "array",   "string", "number",
                                              "integer", "boolean", "null"};
  return names;
}

// RFC 6901.
std::string pointer_token(std::string_view name) {
  std::string token;
  for (const char c : name) token += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return token;
}

bool has_type(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "number") return value.is_number();
  if (type == "integer") return is_integral(value);
  if (type == "boolean") return value.is_boolean();
  return value.is_null();
}

class SchemaCompiler {
 public:
  // nullopt stands for "no value", so that a property which cannot be there is left out.
  using Result = std::optional<ExpressionId>;

  SchemaCompiler(const Json& root, std::string_view where)
      : root_(root), where_(where), merger_(root, where), json_(builder_) {}

  std::shared_ptr<const Grammar> compile() {
    const RuleId root = builder_.declare("#");
    const Result body = visit(root_, "#");
    if (!body) merger_.refuse("#", "no value satisfies this schema");
    builder_.define(root, *body);
    return compile_grammar(builder_, root, where_);
  }

 private:
  Result visit(const Json& schema, const std::string& pointer) {
    if (schema.is_boolean()) return schema.get<bool>() ? Result(json_.value()) : std::nullopt;
    merger_.check_keywords(schema, pointer);
    const bool is_reference = schema.contains("$ref");
    if (!is_reference && !schema.contains("allOf") && !schema.contains("anyOf") && !schema.contains("oneOf"))
      return visit_flat(merger_.flatten(schema, pointer), pointer);
    // What may come back to itself becomes a rule, known by the schema's content: a plain reference by its
    // target's.
    const bool plain =
        is_reference && std::all_of(schema.items().begin(), schema.items().end(), [](const auto& item) {
          return item.key() == "$ref" || is_annotation(item.key());
        });
    if (!plain) return visit_as_rule(schema, pointer);
    const Json& target = merger_.resolve(schema["$ref"], pointer);
    return visit_as_rule(target, schema["$ref"].get<std::string>());
  }

  Result visit_as_rule(const Json& schema, const std::string& pointer) {
    const std::string key = dump_json(schema);
    if (const auto known = rules_.find(key); known != rules_.end())
      return known->second.impossible ? Result() : Result(builder_.reference(known->second.rule));
    if (++depth_ > kMaximumDepth)
      merger_.refuse(pointer, fmt::format("schemas nested deeper than {} levels", kMaximumDepth));
    const RuleId rule = builder_.declare(pointer);
    rules_.emplace(key, KnownRule{rule});
    const Result body = visit_flat(merger_.flatten(schema, pointer), pointer);
    builder_.define(rule, body ? *body : builder_.choice({}));
    rules_.at(key).impossible = !body;
    --depth_;
    return body ? Result(builder_.reference(rule)) : std::nullopt;
  }

  // Without references and allOf at its top.
  Result visit_flat(const Json& schema, const std::string& pointer) {
    if (schema.is_boolean()) return std::nullopt;
    if (schema.contains("anyOf")) {
      Json base = schema;
      base.erase("anyOf");
      std::vector<Result> ways;
      size_t index = 0;
      for (const Json& alternative : schema["anyOf"]) {
        const std::string place = pointer + "/anyOf/" + std::to_string(index++);
        ways.push_back(base.empty()
                           ? visit(alternative, place)
                           : visit_as_rule(Json{{"allOf", Json::array({base, alternative})}}, place));
      }
      return any_of(std::move(ways));
    }
    if (schema.contains("enum")) return visit_enum(schema, pointer);
    std::vector<Result> ways;
    for (const std::string& type : types_of(schema, pointer))
      ways.push_back(visit_type(type, schema, pointer));
    return any_of(std::move(ways));
  }

  // A rule of its own, for what is used more than once: copies of copies would grow exponentially.
  ExpressionId shared(std::string name, ExpressionId body) {
    const RuleId rule = builder_.declare(std::move(name));
    builder_.define(rule, body);
    return builder_.reference(rule);
  }

  Result any_of(std::vector<Result> ways) {
    std::vector<ExpressionId> possible;
    for (const Result& way : ways) {
      if (way) possible.push_back(*way);
    }
    return possible.empty() ? Result() : Result(builder_.choice(std::move(possible)));
  }

  // Those that "type" names; else those that the other keywords are about; else all.
  std::vector<std::string> types_of(const Json& schema, const std::string& pointer) const {
    std::vector<std::string> types;
    if (schema.contains("type")) {
      const Json& named = schema["type"];
      for (const Json& type : named.is_array() ? named : Json::array({named})) {
        if (!type.is_string() || !type_names().contains(type.get<std::string>()))
          merger_.refuse(
              pointer + "/type",
              fmt::format("expected object, array, string, number, integer, boolean or null, found {}",
                          dump_json(type)));
        types.push_back(type.get<std::string>());
      }
      // An integer is a number.
      if (std::find(types.begin(), types.end(), "number") != types.end()) std::erase(types, "integer");
      return types;
    }
    for (const auto& [type, keywords] : keywords_by_type()) {
      if (std::any_of(keywords.begin(), keywords.end(),
                      [&](const auto& keyword) { return schema.contains(keyword); }))
        types.push_back(type);
    }
    return types.empty() ? std::vector<std::string>{"any"} : types;
  }

  Result visit_enum(const Json& schema, const std::string& pointer) {
    for (const auto& [keyword, value] : schema.items()) {
      if (keyword != "enum" && keyword != "type")
        merger_.refuse(pointer + "/" + keyword,
                       fmt::format("'{}' beside enum or const is not supported", keyword));
    }
    const std::vector<std::string> types = types_of(schema, pointer);
    std::vector<Result> ways;
    for (const Json& value : schema["enum"]) {
      if (types.front() == "any" ||
          std::any_of(types.begin(), types.end(), [&](const auto& type) { return has_type(value, type); }))
        ways.push_back(json_.constant(value));
    }
    return any_of(std::move(ways));
  }

  Result visit_type(const std::string& type, const Json& schema, const std::string& pointer) {
    if (type == "any") return json_.value();
    if (type == "boolean") return json_.boolean();
    if (type == "null") return json_.null();
    if (type == "string") return visit_string(schema, pointer);
    if (type == "integer" || type == "number") return visit_number(type, schema, pointer);
    if (++depth_ > kMaximumDepth)
      merger_.refuse(pointer, fmt::format("schemas nested deeper than {} levels", kMaximumDepth));
    const Result result = type == "array" ? visit_array(schema, pointer) : visit_object(schema, pointer);
    --depth_;
    return result;
  }

  // A count such as minItems.
  int64_t count(const Json& schema, const char* keyword, const std::string& pointer, int64_t fallback) const {
    if (!schema.contains(keyword)) return fallback;
    const Json& value = schema[keyword];
    if (!is_integral(value) || value < 0 || value > kMaximumCount)
      merger_.refuse(pointer + "/" + keyword, fmt::format("expected an integer from 0 to {}, found {}",
                                                          kMaximumCount, dump_json(value)));
    return value.get<int64_t>();
  }

  Result visit_string(const Json& schema, const std::string& pointer) {
    const int64_t minimum = count(schema, "minLength", pointer, 0);
    const int64_t maximum = count(schema, "maxLength", pointer, Expression::kUnlimited);
    if (maximum != Expression::kUnlimited && minimum > maximum) return std::nullopt;
    const char* keyword = schema.contains("pattern") ? "pattern" : "format";
    if (!schema.contains(keyword)) return json_.string(minimum, maximum);
    const std::string place = pointer + "/" + keyword;
    if (schema.contains("pattern") && schema.contains("format"))
      merger_.refuse(place, "'pattern' beside 'format' is not supported");
    if (schema.contains("minLength") || schema.contains("maxLength"))
      merger_.refuse(
          place,
          fmt::format("'{}' beside a length is not supported: put the length into a pattern", keyword));
    if (!schema[keyword].is_string())
      merger_.refuse(place, fmt::format("expected a string, found {}", schema[keyword].type_name()));
    std::string pattern = schema[keyword].get<std::string>();
    if (!schema.contains("pattern")) {
      const auto known = format_pattern(pattern);
      if (!known)
        merger_.refuse(place,
                       fmt::format("expected a known format ({}), found '{}'", known_formats(), pattern));
      pattern = *known;
    }
    const RegexOptions options = {.searches = true,
                                  .write = [&](const CharacterSet& set) { return json_.spelled(set); }};
    return json_.quoted(add_regex(builder_, pattern, where_ + ": " + place, options));
  }

  Result visit_number(const std::string& type, const Json& schema, const std::string& pointer) {
    std::optional<int64_t> low, high;          // of integers
    std::optional<DecimalBound> above, below;  // of numbers
    std::optional<double> least, most;
    for (const char* keyword : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
      if (!schema.contains(keyword)) continue;
      const Json& bound = schema[keyword];
      const std::string place = pointer + "/" + keyword;
      if (!bound.is_number())
        merger_.refuse(place, fmt::format("expected a number, found {}", bound.type_name()));
      const double value = bound.get<double>();
      const bool lower = std::string_view(keyword).ends_with("inimum");
      const bool exclusive = std::string_view(keyword).starts_with("ex");
      if (type == "number") {
        const auto decimal = decimal_bound(dump_json(bound), exclusive);
        if (!decimal)
          merger_.refuse(place,
                         fmt::format("expected a bound of at most 15 digits, found {}", dump_json(bound)));
        std::optional<double>& best = lower ? least : most;
        if (best && (lower ? value < *best : value > *best)) continue;
        best = value;
        (lower ? above : below) = decimal;
        continue;
      }
      if (std::abs(value) > 9e18)
        merger_.refuse(place, fmt::format("expected a bound that fits 64 bits, found {}", dump_json(bound)));
      const int64_t whole = bound.is_number_integer()
                                ? bound.get<int64_t>()
                                : static_cast<int64_t>(lower ? std::ceil(value) : std::floor(value));
      const bool excluded = exclusive && is_integral(bound);
      if (lower) {
        low = std::max(low.value_or(whole), whole + (excluded ? 1 : 0));
      } else {
        high = std::min(high.value_or(whole), whole - (excluded ? 1 : 0));
      }
    }
    if (type == "integer")
      return low && high && *low > *high ? Result() : Result(add_json_integer(builder_, low, high));
    if (!above && !below) return add_json_number(builder_);
    const bool empty =
        least && most && (*least > *most || (*least == *most && (above->excluded || below->excluded)));
    return empty ? Result() : Result(add_json_number(builder_, above, below));
  }

  Result visit_array(const Json& schema, const std::string& pointer) {
    const int64_t minimum = count(schema, "minItems", pointer, 0);
    int64_t maximum = count(schema, "maxItems", pointer, Expression::kUnlimited);
    std::vector<Result> first;  // by position
    if (schema.contains("prefixItems")) {
      if (!schema["prefixItems"].is_array())
        merger_.refuse(pointer + "/prefixItems", "expected an array of schemas");
      for (const Json& item : schema["prefixItems"])
        first.push_back(visit(item, pointer + "/prefixItems/" + std::to_string(first.size())));
    }
    Result rest =
        schema.contains("items") ? visit(schema["items"], pointer + "/items") : Result(json_.value());
    if (rest) rest = shared(pointer + "/items", *rest);
    // A position that nothing fits ends the array before it.
    auto positions = static_cast<int64_t>(first.size());
    const auto limit = [&](int64_t length) {
      if (maximum == Expression::kUnlimited || maximum > length) maximum = length;
    };
    if (!rest) limit(positions);
    for (int64_t i = positions; i-- > 0;) {
      if (!first[static_cast<size_t>(i)]) limit(i);
    }
    if (maximum != Expression::kUnlimited && minimum > maximum) return std::nullopt;
    if (maximum == 0) return builder_.sequence({builder_.text("["), json_.space(), builder_.text("]")});
    if (maximum != Expression::kUnlimited) positions = std::min(positions, maximum);
    if (positions == 0) {
      first = {rest};
      positions = 1;
    }
    // From the last element to the first: each is followed by what may follow it.
    ExpressionId tail = builder_.sequence({});
    if (maximum == Expression::kUnlimited || maximum > positions) {
      const int64_t least = std::max<int64_t>(minimum - positions, 0);
      const int64_t most = maximum == Expression::kUnlimited ? maximum : maximum - positions;
      tail = builder_.repeat(builder_.sequence({json_.comma(), *rest}), least, most);
    }
    for (int64_t i = positions; i-- > 1;) {
      tail = builder_.sequence({json_.comma(), *first[static_cast<size_t>(i)], tail});
      if (i >= minimum) tail = builder_.optional(tail);
    }
    return json_.bracketed("[", builder_.sequence({*first[0], tail}), minimum == 0, "]");
  }

  struct Member {
    ExpressionId expression;
    bool required;
  };

  Result visit_object(const Json& schema, const std::string& pointer) {
    Json properties = schema.contains("properties") ? schema["properties"] : Json::object();
    if (!properties.is_object()) merger_.refuse(pointer + "/properties", "expected an object of schemas");
    const bool closed = schema.contains("properties") && !schema.contains("additionalProperties");
    const Json additional =
        schema.contains("additionalProperties") ? schema["additionalProperties"] : Json(!closed);
    std::set<std::string> required;
    if (schema.contains("required")) {
      if (!schema["required"].is_array()) merger_.refuse(pointer + "/required", "expected an array of names");
      for (const Json& name : schema["required"]) {
        if (!name.is_string())
          merger_.refuse(pointer + "/required", fmt::format("expected names, found {}", dump_json(name)));
        required.insert(name.get<std::string>());
        // What is not listed has to be allowed as an additional property.
        if (!properties.contains(name.get<std::string>()))
          properties[name.get<std::string>()] = closed ? Json(true) : additional;
      }
    }
    std::vector<Member> members;
    std::vector<std::string> names;
    for (const auto& [name, property] : properties.items()) {
      names.push_back(name);
      const std::string place = pointer + "/properties/" + pointer_token(name);
      const Result value = visit(property, place);
      const bool needed = required.contains(name);
      if (!value && needed) return std::nullopt;
      if (value) members.push_back({shared(place, json_.member(json_.constant(name), *value)), needed});
    }
    Result others;
    if (additional != Json(false)) {
      const std::string place = pointer + "/additionalProperties";
      if (const Result value = visit(additional, place))
        others = shared(place, json_.member(json_.string_except(names), *value));
    }
    return object_of(members, others);
  }

  // "{" members in their order, the optional ones perhaps absent, then any number of others "}".
  ExpressionId object_of(const std::vector<Member>& members, const Result& others) {
    // following[i]: what may come after a member when members from i on are left, commas included.
    std::vector<ExpressionId> following(members.size() + 1);
    following.back() =
        others ? builder_.repeat(builder_.sequence({json_.comma(), *others}), 0) : builder_.sequence({});
    const size_t first_required = static_cast<size_t>(
        std::find_if(members.begin(), members.end(), [](const Member& member) { return member.required; }) -
        members.begin());
    for (size_t i = members.size(); i-- > 1;) {
      const ExpressionId next = builder_.sequence({json_.comma(), members[i].expression});
      following[i] =
          builder_.sequence({members[i].required ? next : builder_.optional(next), following[i + 1]});
      if (i > first_required + 1) continue;
      // Used twice: after the member before it, and after one that was left out.
      following[i] = shared("members", following[i]);
    }
    // Any member can be the first, up to the first that is required.
    std::vector<ExpressionId> beginnings;
    for (size_t i = 0; i < members.size() && i <= first_required; ++i)
      beginnings.push_back(builder_.sequence({members[i].expression, following[i + 1]}));
    const bool may_be_empty = first_required == members.size();
    if (may_be_empty && others) beginnings.push_back(builder_.sequence({*others, following.back()}));
    if (beginnings.empty()) return builder_.sequence({builder_.text("{"), json_.space(), builder_.text("}")});
    return json_.bracketed("{", builder_.choice(std::move(beginnings)), may_be_empty, "}");
  }

  struct KnownRule {
    RuleId rule;
    bool impossible = false;
  };

  const Json& root_;
  std::string where_;
  SchemaMerger merger_;
  GrammarBuilder builder_;
  JsonExpressions json_;
  std::map<std::string, KnownRule> rules_;  // by content
  int depth_ = 0;
};

}  // namespace

std::shared_ptr<const Grammar> grammar_from_json_schema(const Json& schema, std::string_view where) {
  return SchemaCompiler(schema, where).compile();
}

}  // namespace qkv
