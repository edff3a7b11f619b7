#include "qkv/core/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"

namespace qkv {
namespace {

template <typename... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <typename... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

std::string limits(const ConfigTable::Entry& entry) {
  if (std::isfinite(entry.low) && entry.high < 9e15) return fmt::format(" from {} to {}", entry.low, entry.high);
  return std::isfinite(entry.low) ? fmt::format(" of {} or more", entry.low) : "";
}

std::string expectation(const ConfigTable::Entry& entry) {
  return std::visit(Overloaded{[](bool*) -> std::string { return "true or false"; },
                               [&](int64_t*) { return "an integer" + limits(entry); },
                               [&](double*) { return "a number" + limits(entry); },
                               [&](std::string*) -> std::string {
                                 return entry.choices.empty() ? "a string" : fmt::format("one of {}", fmt::join(entry.choices, ", "));
                               },
                               [](std::vector<std::string>*) -> std::string { return "a list of strings"; }},
                    entry.target);
}

bool within(const ConfigTable::Entry& entry, double value) { return entry.low <= value && value <= entry.high; }

// True if `value` has the entry's type and limits; then it is stored.
bool store(const ConfigTable::Entry& entry, const Json& value) {
  return std::visit(
      Overloaded{[&](bool* target) {
                   if (!value.is_boolean()) return false;
                   *target = value.get<bool>();
                   return true;
                 },
                 [&](int64_t* target) {
                   const bool whole = value.is_number_integer() || (value.is_number_float() && value.get<double>() == std::floor(value.get<double>()));
                   if (!whole || !within(entry, value.get<double>())) return false;
                   *target = value.get<int64_t>();
                   return true;
                 },
                 [&](double* target) {
                   if (!value.is_number() || !within(entry, value.get<double>())) return false;
                   *target = value.get<double>();
                   return true;
                 },
                 [&](std::string* target) {
                   if (!value.is_string()) return false;
                   const std::string text = value.get<std::string>();
                   if (!entry.choices.empty() && std::find(entry.choices.begin(), entry.choices.end(), text) == entry.choices.end()) return false;
                   *target = text;
                   return true;
                 },
                 [&](std::vector<std::string>* target) {
                   if (value.is_string()) {
                     *target = {value.get<std::string>()};
                     return true;
                   }
                   if (!value.is_array()) return false;
                   std::vector<std::string> list;
                   for (const auto& item : value) {
                     if (!item.is_string()) return false;
                     list.push_back(item.get<std::string>());
                   }
                   *target = std::move(list);
                   return true;
                 }},
      entry.target);
}

// The text of a flag as the JSON value its key expects; null if it is not one.
Json parse_text(const ConfigTable::Entry& entry, const std::string& text) {
  return std::visit(Overloaded{[&](bool*) -> Json {
                                 if (text == "true" || text == "1" || text == "yes" || text == "on") return true;
                                 if (text == "false" || text == "0" || text == "no" || text == "off") return false;
                                 return nullptr;
                               },
                               [&](std::string*) -> Json { return text; },
                               [&](std::vector<std::string>*) -> Json {
                                 Json list = Json::array();
                                 for (size_t begin = 0; begin <= text.size();) {
                                   const size_t end = std::min(text.find(',', begin), text.size());
                                   if (end > begin) list.push_back(text.substr(begin, end - begin));
                                   begin = end + 1;
                                 }
                                 return list;
                               },
                               [&](auto*) -> Json {
                                 double number = 0;
                                 const auto [stop, code] = std::from_chars(text.data(), text.data() + text.size(), number);
                                 if (code != std::errc() || stop != text.data() + text.size() || !std::isfinite(number)) return nullptr;
                                 return number;
                               }},
                    entry.target);
}

}  // namespace

void ConfigTable::bind(std::string key, bool* target, std::string help) { entries_.push_back({std::move(key), std::move(help), target}); }
void ConfigTable::bind(std::string key, int64_t* target, std::string help, double low, double high) {
  entries_.push_back({std::move(key), std::move(help), target, low, high});
}
void ConfigTable::bind(std::string key, double* target, std::string help, double low, double high) {
  entries_.push_back({std::move(key), std::move(help), target, low, high});
}
void ConfigTable::bind(std::string key, std::string* target, std::string help, std::vector<std::string> choices) {
  Entry entry{std::move(key), std::move(help), target};
  entry.choices = std::move(choices);
  entries_.push_back(std::move(entry));
}
void ConfigTable::bind(std::string key, std::vector<std::string>* target, std::string help) {
  entries_.push_back({std::move(key), std::move(help), target});
}

ConfigTable::Entry& ConfigTable::find(const std::string& key, const std::string& where) {
  std::vector<std::string> keys;
  for (auto& entry : entries_) {
    if (entry.key == key) return entry;
    keys.push_back(entry.key);
  }
  fail("{}: unknown key '{}'{}", where, key, suggestion(key, keys));
}

void ConfigTable::set(const std::string& key, const Json& value, const std::string& where) {
  const Entry& entry = find(key, where);
  if (!store(entry, value)) fail("{}: key '{}': expected {}, found {}", where, key, expectation(entry), dump_json(value));
}

void ConfigTable::set_text(const std::string& key, const std::string& text, const std::string& where) {
  const Entry& entry = find(key, where);
  const Json value = parse_text(entry, text);
  if (value.is_null() || !store(entry, value)) fail("{}: key '{}': expected {}, found '{}'", where, key, expectation(entry), text);
}

void ConfigTable::read(const Json& object, const std::string& where) {
  require(object.is_object(), "{}: expected keys and values, found {}", where, object.type_name());
  read_nested(object, "", where);
}

void ConfigTable::read_nested(const Json& object, const std::string& prefix, const std::string& where) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_object()) {
      read_nested(value, prefix + key + ".", where);
    } else if (!value.is_null()) {
      set(prefix + key, value, where);
    } else {
      find(prefix + key, where);
    }
  }
}

void ConfigTable::read_yaml(const std::string& path) { read(load_yaml(path), path); }

Json ConfigTable::value(const Entry& entry) const {
  return std::visit([](auto* target) { return Json(*target); }, entry.target);
}

Json ConfigTable::resolved() const {
  Json root = Json::object();
  for (const auto& entry : entries_) {
    Json* node = &root;
    size_t begin = 0;
    for (size_t dot = entry.key.find('.'); dot != std::string::npos; dot = entry.key.find('.', begin)) {
      node = &(*node)[entry.key.substr(begin, dot - begin)];
      begin = dot + 1;
    }
    (*node)[entry.key.substr(begin)] = value(entry);
  }
  return root;
}

std::string ConfigTable::first_difference(const Json& before, const Json& now, const std::vector<std::string>& except) {
  const std::function<std::string(const Json&, const Json&, const std::string&)> compare =
      [&](const Json& a, const Json& b, const std::string& prefix) -> std::string {
    for (const auto& [name, value] : b.items()) {
      const std::string key = prefix + name;
      if (std::find(except.begin(), except.end(), key) != except.end() || std::find(except.begin(), except.end(), key + ".") != except.end()) continue;
      const auto old = a.find(name);
      if (value.is_object()) {
        if (std::string found = compare(old == a.end() || !old->is_object() ? Json::object() : *old, value, key + "."); !found.empty()) return found;
      } else if (old == a.end() || *old != value) {
        return fmt::format("key '{}': expected {}, found {}", key, old == a.end() ? "nothing" : dump_json(*old), dump_json(value));
      }
    }
    return "";
  };
  return compare(before, now, "");
}

}  // namespace qkv
