#include "qkv/core/json.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr int kMaximumDepth = 512;

// nlohmann's parser is iterative but its destructor and most consumers recurse, so depth is refused here.
void require_shallow(std::string_view text, std::string_view where) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      require(++depth <= kMaximumDepth, "{}: JSON nested deeper than {} levels", where, kMaximumDepth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
}

Json yaml_scalar(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return text;  // quoted
  if (text == "null" || text == "~" || text.empty()) return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
  const char* end = text.data() + text.size();
  int64_t integer = 0;
  if (auto [stop, code] = std::from_chars(begin, end, integer); code == std::errc() && stop == end) return integer;
  double number = 0;
  if (auto [stop, code] = std::from_chars(begin, end, number); code == std::errc() && stop == end && std::isfinite(number)) {
    return number;
  }
  return text;
}

Json yaml_to_json(const YAML::Node& node, const std::string& path, int depth) {
  require(depth <= kMaximumDepth, "{}: YAML nested deeper than {} levels", path, kMaximumDepth);
  switch (node.Type()) {
    case YAML::NodeType::Scalar: return yaml_scalar(node);
    case YAML::NodeType::Sequence: {
      Json list = Json::array();
      for (const auto& item : node) list.push_back(yaml_to_json(item, path, depth + 1));
      return list;
    }
    case YAML::NodeType::Map: {
      Json object = Json::object();
      for (const auto& item : node) {
        const std::string key = item.first.Scalar();
        require(!object.contains(key), "{}: line {}: key '{}' appears twice", path, item.first.Mark().line + 1, key);
        object[key] = yaml_to_json(item.second, path, depth + 1);
      }
      return object;
    }
    default: return nullptr;
  }
}

void emit_yaml(YAML::Emitter& out, const Json& json) {
  if (json.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [key, value] : json.items()) {
      out << YAML::Key << key << YAML::Value;
      emit_yaml(out, value);
    }
    out << YAML::EndMap;
  } else if (json.is_array()) {
    out << YAML::Flow << YAML::BeginSeq;
    for (const auto& value : json) emit_yaml(out, value);
    out << YAML::EndSeq;
  } else if (json.is_string()) {
    out << YAML::DoubleQuoted << json.get<std::string>();
  } else if (json.is_null()) {
    out << YAML::Null;
  } else {
    out << json.dump();
  }
}

}  // namespace

Json parse_json(std::string_view text, std::string_view where) {
  require_shallow(text, where);
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..." -> from "parse error" on.
    const std::string_view what = error.what();
    const size_t begin = what.find("] ");
    fail("{}: not valid JSON: {}", where, begin == std::string_view::npos ? what : what.substr(begin + 2));
  }
}

Json load_json(const std::string& path) { return parse_json(read_file(path), path); }

std::string dump_json(const Json& json, int indent) {
  return json.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

void save_json(const std::string& path, const Json& json) { write_file(path, dump_json(json, 2) + "\n"); }

Json load_yaml(const std::string& path) {
  try {
    const YAML::Node root = YAML::Load(read_file(path));
    return root.IsNull() ? Json::object() : yaml_to_json(root, path, 0);
  } catch (const YAML::Exception& error) {
    fail("{}: line {}: not valid YAML: {}", path, error.mark.line + 1, error.msg);
  }
}

void save_yaml(const std::string& path, const Json& json) {
  YAML::Emitter out;
  emit_yaml(out, json);
  write_file(path, std::string(out.c_str()) + "\n");
}

JsonView::JsonView(const Json& object, std::string where, std::string prefix)
    : object_(&object), where_(std::move(where)), prefix_(std::move(prefix)) {
  require(object.is_object(), "{}: {}: expected an object, found {}", where_, prefix_.empty() ? "top level" : prefix_,
          object.type_name());
}

bool JsonView::has(std::string_view key) const { return find(key) != nullptr; }

const Json* JsonView::find(std::string_view key) const {
  const auto it = object_->find(std::string(key));
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

void JsonView::wrong(std::string_view key, std::string_view expected) const {
  const Json* value = find(key);
  fail("{}: key '{}{}': expected {}, found {}", where_, prefix_, key, expected,
       value == nullptr ? "nothing" : dump_json(*value).substr(0, 80));
}

const Json& JsonView::at(std::string_view key, std::string_view expected) const {
  const Json* value = find(key);
  if (value == nullptr) wrong(key, expected);
  return *value;
}

JsonView JsonView::object(std::string_view key) const {
  const Json& value = at(key, "an object");
  if (!value.is_object()) wrong(key, "an object");
  return JsonView(value, where_, fmt::format("{}{}.", prefix_, key));
}

std::string JsonView::string(std::string_view key) const {
  const Json& value = at(key, "a string");
  if (!value.is_string()) wrong(key, "a string");
  return value.get<std::string>();
}

std::string JsonView::string_or(std::string_view key, std::string fallback) const {
  return has(key) ? string(key) : std::move(fallback);
}

int64_t JsonView::integer(std::string_view key) const {
  const Json& value = at(key, "an integer");
  if (value.is_number_integer()) {
    if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) wrong(key, "an integer below 2^63");
    return value.get<int64_t>();
  }
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (number == std::floor(number) && std::abs(number) < 9e15) return static_cast<int64_t>(number);
  }
  wrong(key, "an integer");
}

int64_t JsonView::integer_or(std::string_view key, int64_t fallback) const { return has(key) ? integer(key) : fallback; }

double JsonView::number(std::string_view key) const {
  const Json& value = at(key, "a number");
  if (!value.is_number()) wrong(key, "a number");
  return value.get<double>();
}

double JsonView::number_or(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }

bool JsonView::boolean_or(std::string_view key, bool fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) wrong(key, "true or false");
  return value->get<bool>();
}

std::vector<std::string> JsonView::strings_or_empty(std::string_view key) const {
  std::vector<std::string> result;
  const Json* value = find(key);
  if (value == nullptr) return result;
  if (!value->is_array()) wrong(key, "a list of strings");
  for (const auto& item : *value) {
    if (!item.is_string()) wrong(key, "a list of strings");
    result.push_back(item.get<std::string>());
  }
  return result;
}

void JsonView::refuse_unknown(const std::vector<std::string>& known) const {
  for (const auto& [key, value] : object_->items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      fail("{}: unknown key '{}{}'{}", where_, prefix_, key, suggestion(key, known));
    }
  }
}

std::optional<std::string> nearest_word(std::string_view word, const std::vector<std::string>& candidates) {
  std::optional<std::string> best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    std::vector<size_t> row(candidate.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 0; i < word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i + 1;
      for (size_t j = 0; j < candidate.size(); ++j) {
        const size_t substituted = diagonal + (word[i] == candidate[j] ? 0 : 1);
        diagonal = row[j + 1];
        row[j + 1] = std::min({row[j + 1] + 1, row[j] + 1, substituted});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  const auto nearest = nearest_word(word, candidates);
  return nearest ? fmt::format("; did you mean '{}'?", *nearest) : "";
}

}  // namespace qkv
