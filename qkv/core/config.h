// Configuration from one table: each key is bound once to a variable with its help and its limits, and the table then reads
// YAML files, names the command-line flags, checks values, suggests the nearest key for a misspelt one and writes the
// resolved configuration beside a result.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "qkv/core/json.h"

namespace qkv {

class ConfigTable {
 public:
  struct Entry {
    std::string key;  // dotted: "optimizer.lr"
    std::string help;
    std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*> target;
    double low = -std::numeric_limits<double>::infinity();
    double high = std::numeric_limits<double>::infinity();
    std::vector<std::string> choices{};  // for strings; empty: any
  };

  void bind(std::string key, bool* target, std::string help);
  void bind(std::string key, int64_t* target, std::string help, double low, double high = 9e15);
  void bind(std::string key, double* target, std::string help, double low, double high);
  void bind(std::string key, std::string* target, std::string help, std::vector<std::string> choices = {});
  void bind(std::string key, std::vector<std::string>* target, std::string help);

  const std::vector<Entry>& entries() const { return entries_; }
  // Sets one key from its value. Error `<where>: key 'optimizer.lr': expected a number from 0 to 1, found -3`.
  void set(const std::string& key, const Json& value, const std::string& where);
  // The same from text, as a command line gives it (lists: comma-separated).
  void set_text(const std::string& key, const std::string& text, const std::string& where);
  // Sets every key of a nested object.
  void read(const Json& object, const std::string& where);
  void read_yaml(const std::string& path);
  // All keys with their values, nested.
  Json resolved() const;
  Json value(const Entry& entry) const;
  // The first key whose value differs between two resolved configurations, with both; "" if none. Keys in `except` and
  // those that start with one that ends in a dot are passed over.
  static std::string first_difference(const Json& before, const Json& now, const std::vector<std::string>& except);

 private:
  Entry& find(const std::string& key, const std::string& where);
  void read_nested(const Json& object, const std::string& prefix, const std::string& where);
  std::vector<Entry> entries_;
};

}  // namespace qkv
