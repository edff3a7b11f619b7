#include "qkv/formats/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <unordered_set>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/core/utf8.h"
#include "qkv/formats/content.h"
#include "qkv/formats/json_events.h"

namespace qkv {
namespace {

// Element types of the format that have no DType here.
constexpr std::array<std::string_view, 7> kUnsupportedTypes = {
    "C64", "F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"};

std::string supported_types() {
  std::string list;
  for (int i = 0; i < kDTypeCount; ++i) {
    const std::string_view type = traits(static_cast<DType>(i)).safetensors;
    if (!type.empty()) list += (list.empty() ? "" : ", ") + std::string(type);
  }
  return list;
}

// One tensor of the header; offsets from the end of the header.
struct Item {
  TensorEntry entry;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Collects the tensors; checks everything that concerns one tensor alone.
class HeaderEvents final : public JsonEvents {
 public:
  explicit HeaderEvents(std::string_view where)
      : where_(where), metadata_(fmt::format("[safetensors] {}: {}", where, kSafetensorsMetadataKey)) {}

  void open(const JsonPath& path, bool is_list) override {
    const std::string_view found = is_list ? "a list" : "an object";
    if (path.empty()) {
      require(!is_list, "[safetensors] {}: header: expected an object, found a list", where_);
    } else if (path.size() == 1) {
      if (!names_.insert(path[0]).second)
        fail("[safetensors] {}: tensor '{}': expected once in the header, found twice", where_,
             shown(path[0]));
      if (is_list) wrong(path, "an object", found);
      draft_ = {};
    } else if (is_metadata(path)) {
      wrong(path, "a string", found);
    } else if (path.size() == 2) {
      if (path[1] == "dtype") wrong(path, "a string", found);
      if (numbers(path) != nullptr) {
        if (!is_list) wrong(path, "a list of integers", found);
        require_first(path, numbers(path)->has_value());
        numbers(path)->emplace();
      }
    } else if (path.size() == 3 && numbers(path) != nullptr) {
      wrong(path, "a list of integers", fmt::format("{} in it", found));
    }
  }

  void close(const JsonPath& path, bool) override {
    if (path.size() == 1 && path[0] != kSafetensorsMetadataKey) finish_tensor(path[0]);
  }

  void scalar(const JsonPath& path, JsonScalar value) override {
    if (path.empty()) fail("[safetensors] {}: header: expected an object, found {}", where_, describe(value));
    if (path.size() == 1) {
      if (is_metadata(path) && std::holds_alternative<std::monostate>(value)) return;
      wrong(path, "an object", describe(value));
    }
    if (is_metadata(path)) {
      const std::string* text = std::get_if<std::string>(&value);
      if (text == nullptr) wrong(path, "a string", describe(value));
      require_first(path, metadata_.has(path[1]));
      metadata_.set(path[1], *text);
    } else if (path.size() == 2 && path[1] == "dtype") {
      const std::string* text = std::get_if<std::string>(&value);
      if (text == nullptr) wrong(path, "a string", describe(value));
      require_first(path, draft_.type.has_value());
      draft_.type = *text;
    } else if (path.size() == 2 && numbers(path) != nullptr) {
      wrong(path, "a list of integers", describe(value));
    } else if (path.size() == 3 && numbers(path) != nullptr) {
      const uint64_t* number = std::get_if<uint64_t>(&value);
      if (number == nullptr) wrong(path, "integers from 0 up", describe(value));
      (*numbers(path))->push_back(*number);
    }
  }

  std::vector<Item> take_items() { return std::move(items_); }
  Metadata take_metadata() { return std::move(metadata_); }

 private:
  using Numbers = std::optional<std::vector<uint64_t>>;
  struct Draft {
    std::optional<std::string> type;
    Numbers shape;
    Numbers offsets;
  };

  static bool is_metadata(const JsonPath& path) { return path[0] == kSafetensorsMetadataKey; }

  // Where the list that the path is or lies in goes; null if it is none of ours.
  Numbers* numbers(const JsonPath& path) {
    if (path[1] == "shape") return &draft_.shape;
    if (path[1] == "data_offsets") return &draft_.offsets;
    return nullptr;
  }

  std::string subject(const JsonPath& path) const {
    std::string text =
        is_metadata(path) ? std::string(kSafetensorsMetadataKey) : fmt::format("tensor '{}'", shown(path[0]));
    if (path.size() > 1) text += fmt::format(": {}", shown(path[1]));
    return text;
  }
  [[noreturn]] void wrong(const JsonPath& path, std::string_view expected, std::string_view found) const {
    fail("[safetensors] {}: {}: expected {}, found {}", where_, subject(path), expected, found);
  }
  void require_first(const JsonPath& path, bool seen) const {
    if (seen) fail("[safetensors] {}: {}: expected once, found twice", where_, subject(path));
  }

  void finish_tensor(const std::string& name) {
    const auto here = [&] { return fmt::format("[safetensors] {}: tensor '{}'", where_, shown(name)); };
    if (!draft_.type) fail("{}: expected the keys dtype, shape and data_offsets, found no dtype", here());
    if (!draft_.shape) fail("{}: expected the keys dtype, shape and data_offsets, found no shape", here());
    if (!draft_.offsets)
      fail("{}: expected the keys dtype, shape and data_offsets, found no data_offsets", here());
    Item item;
    item.entry.name = name;
    item.entry.type = known_type(here, *draft_.type);
    item.entry.shape = known_shape(here, *draft_.shape);
    const auto& offsets = *draft_.offsets;
    if (offsets.size() != 2) fail("{}: data_offsets: expected 2 integers, found {}", here(), offsets.size());
    item.begin = offsets[0];
    item.end = offsets[1];
    if (item.begin > item.end)
      fail("{}: data_offsets: expected begin <= end, found [{}, {}]", here(), item.begin, item.end);
    try {
      item.entry.bytes = tensor_bytes(item.entry.type, item.entry.shape);
    } catch (const Error& error) {
      fail("{}: {}", here(), error.what());
    }
    if (item.end - item.begin != item.entry.bytes)
      fail("{}: data_offsets: expected {} bytes for {} {}, found [{}, {}] ({} bytes)", here(),
           item.entry.bytes, *draft_.type, item.entry.shape.str(), item.begin, item.end,
           item.end - item.begin);
    items_.push_back(std::move(item));
  }

  // `here` makes the opening of an error sentence; making it for every tensor would cost more than reading
  // the header.
  using Opening = FunctionRef<std::string()>;

  static DType known_type(Opening here, const std::string& type) {
    if (const auto known = dtype_from_safetensors(type)) return *known;
    const bool in_format =
        std::find(kUnsupportedTypes.begin(), kUnsupportedTypes.end(), type) != kUnsupportedTypes.end();
    fail("{}: dtype: expected one of {}, found {}'{}'", here(), supported_types(),
         in_format ? "the unsupported type " : "", shown(type));
  }

  static Shape known_shape(Opening here, const std::vector<uint64_t>& dims) {
    if (dims.size() > Shape::kMaximumRank) {
      fail("{}: shape: expected at most {} dimensions, found {}", here(), int{Shape::kMaximumRank},
           dims.size());
    }
    std::vector<int64_t> values;
    for (const uint64_t dim : dims) {
      if (dim >= uint64_t{1} << 62) fail("{}: shape: expected dimensions below 2^62, found {}", here(), dim);
      values.push_back(static_cast<int64_t>(dim));
    }
    try {
      return Shape(values);
    } catch (const Error& error) {
      fail("{}: {}", here(), error.what());
    }
  }

  std::string where_;
  std::unordered_set<std::string> names_;
  Draft draft_;
  std::vector<Item> items_;
  Metadata metadata_;
};

// The data must be covered exactly once: sorted by offset, each tensor begins where the one before it ends.
void require_exact_cover(const std::vector<Item>& items, uint64_t data_bytes, std::string_view where) {
  uint64_t position = 0;
  const Item* before = nullptr;
  for (const Item& item : items) {
    const auto here = [&] {
      return fmt::format("[safetensors] {}: tensor '{}'", where, shown(item.entry.name));
    };
    if (item.end > data_bytes)
      fail("{}: data_offsets: expected an end within the file's {} bytes of data, found [{}, {}]", here(),
           data_bytes, item.begin, item.end);
    if (item.begin < position) {
      fail("{}: data_offsets: expected a begin of {} or more, found {}, which overlaps tensor '{}'", here(),
           position, item.begin, shown(before->entry.name));
    }
    if (item.begin != position)
      fail("{}: data_offsets: expected a begin of {}, found {}, which leaves a hole of {} bytes", here(),
           position, item.begin, item.begin - position);
    position = item.end;
    before = &item;
  }
  require(position == data_bytes, "[safetensors] {}: expected {} bytes of data by the header, found {}",
          where, position, data_bytes);
}

}  // namespace

uint64_t safetensors_header_length(std::span<const std::byte> file) {
  uint64_t length = 0;
  for (size_t i = 0; i < kSafetensorsLengthBytes; ++i) length |= static_cast<uint64_t>(file[i]) << (8 * i);
  return length;
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view where) {
  if (!looks_like_safetensors(file)) {
    const std::string_view kind = content_by_signature(file);
    require(kind.empty(), "[safetensors] {}: expected a safetensors file, found {}", where, kind);
  }
  require(file.size() >= kSafetensorsLengthBytes, "[safetensors] {}: expected at least {} bytes, found {}",
          where, kSafetensorsLengthBytes, file.size());
  const uint64_t length = safetensors_header_length(file);
  const uint64_t after_length = file.size() - kSafetensorsLengthBytes;
  require(length <= kSafetensorsHeaderLimit,
          "[safetensors] {}: header length: expected at most {} bytes, found {}", where,
          kSafetensorsHeaderLimit, length);
  require(length <= after_length,
          "[safetensors] {}: header length: expected at most the {} bytes that follow, found {}", where,
          after_length, length);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kSafetensorsLengthBytes, length);
  if (text.empty() || text[0] != '{')
    fail("[safetensors] {}: header: expected a JSON object that begins with '{{', found {}", where,
         text.empty() ? "nothing" : fmt::format("'{}'", shown(text.substr(0, 8))));

  HeaderEvents events(where);
  scan_json(text, fmt::format("[safetensors] {}: header", where), events);
  std::vector<Item> items = events.take_items();
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  require_exact_cover(items, after_length - length, where);

  SafetensorsHeader header;
  header.metadata = events.take_metadata();
  for (Item& item : items) {
    header.offsets.push_back(kSafetensorsLengthBytes + length + item.begin);
    header.entries.push_back(std::move(item.entry));
  }
  return header;
}

std::string make_safetensors_header(const std::vector<TensorEntry>& entries,
                                    const std::map<std::string, std::string>& metadata,
                                    std::string_view where) {
  const auto quoted = [&](const std::string& text) {
    if (first_invalid_utf8(text)) fail("[safetensors] {}: '{}': expected valid UTF-8", where, shown(text));
    return dump_json(Json(text));
  };
  // Built as text: a document tree of many thousand keys costs more than the whole rest.
  std::string json = "{";
  if (!metadata.empty()) {
    json += fmt::format("\"{}\":{{", kSafetensorsMetadataKey);
    for (const auto& [key, value] : metadata) {
      json += fmt::format("{}{}:{}", json.back() == '{' ? "" : ",", quoted(key), quoted(value));
    }
    json += "}";
  }
  std::unordered_set<std::string_view> names;
  uint64_t position = 0;
  for (const auto& entry : entries) {
    const auto here = [&] { return fmt::format("[safetensors] {}: tensor '{}'", where, shown(entry.name)); };
    if (entry.name == kSafetensorsMetadataKey) fail("{}: the name is reserved by the format", here());
    if (!names.insert(entry.name).second) fail("{}: expected once, found twice", here());
    if (traits(entry.type).safetensors.empty())
      fail("{}: expected one of the format's types, {}; found {}", here(), supported_types(),
           name(entry.type));
    uint64_t end = 0;
    if (__builtin_add_overflow(position, entry.bytes, &end))
      fail("{}: the file would pass 2^64 bytes", here());
    json += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        json == "{" ? "" : ",", quoted(entry.name), traits(entry.type).safetensors,
                        fmt::join(entry.shape.dims(), ","), position, end);
    position = end;
  }
  json += "}";
  json.append((8 - json.size() % 8) % 8, ' ');
  require(json.size() <= kSafetensorsHeaderLimit,
          "[safetensors] {}: header: expected at most {} bytes, found {}", where, kSafetensorsHeaderLimit,
          json.size());
  std::string result;
  for (size_t i = 0; i < kSafetensorsLengthBytes; ++i)
    result += static_cast<char>(json.size() >> (8 * i) & 0xff);
  return result + json;
}

}  // namespace qkv
