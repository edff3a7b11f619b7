#include "qkv/formats/typed_values.h"

#include <algorithm>
#include <type_traits>

#include "qkv/core/error.h"
#include "qkv/formats/content.h"

namespace qkv {
namespace {

// Type ids of the GGUF specification.
template <typename T>
constexpr uint32_t kTypeId = 0;
template <>
constexpr uint32_t kTypeId<int8_t> = 1;
template <>
constexpr uint32_t kTypeId<uint16_t> = 2;
template <>
constexpr uint32_t kTypeId<int16_t> = 3;
template <>
constexpr uint32_t kTypeId<uint32_t> = 4;
template <>
constexpr uint32_t kTypeId<int32_t> = 5;
template <>
constexpr uint32_t kTypeId<float> = 6;
template <>
constexpr uint32_t kTypeId<bool> = 7;
template <>
constexpr uint32_t kTypeId<std::string> = 8;
template <>
constexpr uint32_t kTypeId<uint64_t> = 10;
template <>
constexpr uint32_t kTypeId<int64_t> = 11;
template <>
constexpr uint32_t kTypeId<double> = 12;
static_assert(kTypeId<uint8_t> == 0);
constexpr uint32_t kListId = 9;

// Calls body with a null pointer of the type that the id names; false for an id that names none.
template <typename Body>
bool with_type(uint32_t id, Body&& body) {
  const auto call_if = [&]<typename T>(const T* type) {
    if (id != kTypeId<T>) return false;
    body(type);
    return true;
  };
  const auto any_of = [&]<typename... Types>(const Types*... types) { return (call_if(types) || ...); };
  return any_of(
      static_cast<uint8_t*>(nullptr), static_cast<int8_t*>(nullptr), static_cast<uint16_t*>(nullptr),
      static_cast<int16_t*>(nullptr), static_cast<uint32_t*>(nullptr), static_cast<int32_t*>(nullptr),
      static_cast<uint64_t*>(nullptr), static_cast<int64_t*>(nullptr), static_cast<float*>(nullptr),
      static_cast<double*>(nullptr), static_cast<bool*>(nullptr), static_cast<std::string*>(nullptr));
}

class ValueReader {
 public:
  ValueReader(ByteReader& reader, std::string_view key) : reader_(reader), key_(key) {}

  MetadataValue read() {
    const auto id = reader_.number<uint32_t>("value type");
    if (id == kListId) return read_list();
    MetadataValue value;
    const bool known = with_type(id, [&]<typename T>(const T*) { value = read_one<T>(); });
    if (!known) fail_type("value type", "a type id from 0 to 12", id);
    return value;
  }

 private:
  template <typename T>
  T read_one() {
    if constexpr (std::is_same_v<T, std::string>) {
      return std::string(reader_.sized_text("string"));
    } else if constexpr (std::is_same_v<T, bool>) {
      const auto byte = reader_.number<uint8_t>("boolean");
      if (byte > 1)
        fail("{}: key '{}': expected a boolean of 0 or 1, found {}", reader_.where(), shown(key_), byte);
      return byte == 1;
    } else {
      return reader_.number<T>("value");
    }
  }

  MetadataValue read_list() {
    const auto id = reader_.number<uint32_t>("element type");
    if (id == kListId) {
      fail("{}: key '{}': expected a list of plain values, found a list of lists", reader_.where(),
           shown(key_));
    }
    MetadataValue value;
    const bool known = with_type(id, [&]<typename T>(const T*) {
      std::vector<T> list;
      if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, bool>) {
        // The count is checked against the bytes that follow, so it may size the list.
        const uint64_t count =
            reader_.count(std::is_same_v<T, bool> ? 1 : sizeof(uint64_t), "number of elements");
        list.reserve(count);
        for (uint64_t i = 0; i < count; ++i) list.push_back(read_one<T>());
      } else {
        const uint64_t count = reader_.count(sizeof(T), "number of elements");
        const auto bytes = reader_.take(count * sizeof(T), "elements");
        list.resize(count);
        if (count > 0) std::memcpy(list.data(), bytes.data(), bytes.size());
      }
      value = std::move(list);
    });
    if (!known) fail_type("element type", "a type id from 0 to 12", id);
    return value;
  }

  [[noreturn]] void fail_type(std::string_view what, std::string_view expected, uint32_t found) const {
    fail("{}: key '{}': {}: expected {}, found {}", reader_.where(), shown(key_), what, expected, found);
  }

  ByteReader& reader_;
  std::string_view key_;
};

template <typename T>
void append_value(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    append_sized_text(out, value);
  } else if constexpr (std::is_same_v<T, bool>) {
    out += static_cast<char>(value ? 1 : 0);
  } else {
    append_number(out, value);
  }
}

struct ValueAppender {
  std::string& out;

  template <typename T>
  void operator()(const T& value) const {
    append_number(out, kTypeId<T>);
    append_value(out, value);
  }
  template <typename T>
  void operator()(const std::vector<T>& list) const {
    append_number(out, kListId);
    append_number(out, kTypeId<T>);
    append_number<uint64_t>(out, list.size());
    for (const auto& value : list) append_value<T>(out, value);
  }
};

}  // namespace

void read_key_values(ByteReader& reader, uint64_t count, Metadata& metadata) {
  for (uint64_t i = 0; i < count; ++i) {
    reader.set_subject("metadata");
    const std::string_view key = reader.sized_text("key");
    if (key.empty()) fail("{}: metadata: key {}: expected a name, found an empty one", reader.where(), i);
    if (metadata.has(key)) fail("{}: key '{}': expected once, found twice", reader.where(), shown(key));
    const std::string subject = fmt::format("key '{}'", shown(key));
    reader.set_subject(subject);
    metadata.set(std::string(key), ValueReader(reader, key).read());
    reader.set_subject("");
  }
}

void append_key_values(std::string& out, const Metadata& metadata, std::string_view where) {
  for (const auto& [key, value] : metadata.values()) {
    require(!key.empty(), "{}: metadata: expected a key with a name, found an empty one", where);
    append_sized_text(out, key);
    std::visit(ValueAppender{out}, value);
  }
}

}  // namespace qkv
