#include "qkv/formats/json_events.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr size_t kMaximumDepth = 512;

// nlohmann's event interface, told apart from ours by keeping the path.
class Adapter final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Adapter(std::string_view where, JsonEvents& events) : where_(where), events_(&events) {}

  bool null() override { return value(std::monostate{}); }
  bool boolean(bool flag) override { return value(flag); }
  bool number_integer(number_integer_t number) override { return value(int64_t{number}); }
  bool number_unsigned(number_unsigned_t number) override { return value(uint64_t{number}); }
  bool number_float(number_float_t number, const string_t&) override { return value(double{number}); }
  bool string(string_t& text) override { return value(std::move(text)); }
  bool binary(binary_t&) override { return false; }  // never in text
  bool start_object(size_t) override { return open(false); }
  bool key(string_t& text) override {
    path_.back() = std::move(text);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(true); }
  bool end_array() override { return close(); }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..." -> from "parse error" on.
    const std::string_view what = error.what();
    const size_t begin = what.find("] ");
    fail("{}: not valid JSON: {}", where_, begin == std::string_view::npos ? what : what.substr(begin + 2));
  }

 private:
  bool value(JsonScalar scalar) {
    events_->scalar(path_, std::move(scalar));
    return true;
  }
  bool open(bool is_list) {
    require(lists_.size() < kMaximumDepth, "{}: JSON nested deeper than {} levels", where_, kMaximumDepth);
    events_->open(path_, is_list);
    lists_.push_back(is_list);
    path_.emplace_back();
    return true;
  }
  bool close() {
    const bool is_list = lists_.back();
    lists_.pop_back();
    path_.pop_back();
    events_->close(path_, is_list);
    return true;
  }

  std::string where_;
  JsonEvents* events_;
  JsonPath path_;
  std::vector<bool> lists_;  // the kinds of the open containers
};

}  // namespace

std::string describe(const JsonScalar& value) {
  switch (value.index()) {
    case 0:
      return "null";
    case 1:
      return std::get<bool>(value) ? "true" : "false";
    case 2:
      return fmt::format("the number {}", std::get<int64_t>(value));
    case 3:
      return fmt::format("the number {}", std::get<uint64_t>(value));
    case 4:
      return fmt::format("the number {}", std::get<double>(value));
    default:
      return "a string";
  }
}

void scan_json(std::string_view text, std::string_view where, JsonEvents& events) {
  Adapter adapter(where, events);
  nlohmann::json::sax_parse(text.begin(), text.end(), &adapter);
}

}  // namespace qkv
