// Making values, dictionaries, and values from JSON.
#include "qkv/text/jinja/value.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

constexpr uint32_t kMaximumNesting = 600;  // JSON input may use 512
constexpr size_t kIndexFrom = 12;          // smaller dictionaries are searched one by one

}  // namespace

Value Value::none() {
  Value value;
  value.kind_ = Kind::none;
  return value;
}

Value Value::undefined(std::string message, FailureKind kind) {
  auto object = std::make_shared<Undefined>();
  object->message = std::move(message);
  object->kind = kind;
  return Value(Kind::undefined, std::move(object));
}

const Sequence& Value::sequence() const {
  return static_cast<const Sequence&>(*object_);
}
const std::vector<Value>& Value::items() const {
  return sequence().items;
}
const Dict& Value::dict() const {
  return static_cast<const Dict&>(*object_);
}
const View& Value::view() const {
  return static_cast<const View&>(*object_);
}
const Range& Value::range() const {
  return static_cast<const Range&>(*object_);
}
Iterator& Value::iterator() const {
  return static_cast<Iterator&>(*object_);
}
Namespace& Value::name_space() const {
  return static_cast<Namespace&>(*object_);
}
Special& Value::special() const {
  return static_cast<Special&>(*object_);
}

void Value::fail_undefined() const {
  const auto& undefined = static_cast<const Undefined&>(*object_);
  throw Failure(undefined.kind, undefined.message);
}

const Value* Dict::find_hashed(uint64_t hash, const Value& key) const {
  const auto [begin, end] = index_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (equal(entries_[it->second].first, key)) return &entries_[it->second].second;
  }
  return nullptr;
}

const Value* Dict::find(const Value& key) const {
  if (key.is_string()) return find(std::string_view(key.text().bytes));
  const uint64_t hash = hash_value(key);
  if (!index_.empty()) return find_hashed(hash, key);
  for (const auto& [name, value] : entries_) {
    if (equal(name, key)) return &value;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  const auto matches = [&](const Value& name) { return name.is_string() && name.text().bytes == key; };
  if (!index_.empty()) {
    const auto [begin, end] = index_.equal_range(hash_bytes(key));
    for (auto it = begin; it != end; ++it) {
      if (matches(entries_[it->second].first)) return &entries_[it->second].second;
    }
    return nullptr;
  }
  for (const auto& [name, value] : entries_) {
    if (matches(name)) return &value;
  }
  return nullptr;
}

void Dict::set(Value key, Value value) {
  if (const Value* found = find(key)) {
    *const_cast<Value*>(found) = std::move(value);
    return;
  }
  entries_.emplace_back(std::move(key), std::move(value));
  if (entries_.size() <= kIndexFrom) return;
  const size_t first = index_.empty() ? 0 : entries_.size() - 1;
  for (size_t i = first; i < entries_.size(); ++i)
    index_.emplace(hash_value(entries_[i].first), static_cast<uint32_t>(i));
}

int64_t Range::size() const {
  // Unsigned, because the distance may not fit an int64.
  const bool up = step > 0;
  if (up ? start >= stop : start <= stop) return 0;
  const uint64_t distance = up ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                               : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t stride = up ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
  return static_cast<int64_t>(std::min<uint64_t>((distance - 1) / stride + 1, INT64_MAX));
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::set(std::string_view name, Value value) {
  if (const Value* found = find(name)) {
    *const_cast<Value*>(found) = std::move(value);
  } else {
    attributes.emplace_back(name, std::move(value));
  }
}

std::string Special::representation() const {
  return fmt::format("<{}>", type_name());
}

Value Special::call(Interpreter&, CallArguments&) {
  type_error("'{}' object is not callable", type_name());
}

Value Heap::text(std::string_view text) {
  budget_.allocate(sizeof(Text) + text.size());
  return Value(std::make_shared<Text>(std::string(text)));
}

void Heap::nest(Object& object, const Value& part) {
  object.nesting = std::max(object.nesting, part.nesting() + 1);
  if (object.nesting > kMaximumNesting)
    fail_as(FailureKind::limit, "values nest deeper than {} levels", kMaximumNesting);
}

Value Heap::sequence(Kind kind, std::vector<Value> items) {
  budget_.allocate(sizeof(Sequence) + items.size() * sizeof(Value));
  budget_.step(items.size());
  auto sequence = std::make_shared<Sequence>();
  for (const Value& item : items) nest(*sequence, item);
  sequence->items = std::move(items);
  return Value(kind, std::move(sequence));
}

Value Heap::group(Value grouper, Value list) {
  Value pair = tuple({std::move(grouper), std::move(list)});
  std::static_pointer_cast<Sequence>(pair.shared())->group = true;
  return pair;
}

Value Heap::dict(std::shared_ptr<Dict> dict) {
  budget_.allocate(sizeof(Dict) + dict->size() * 2 * sizeof(Value));
  budget_.step(dict->size());
  for (const auto& [key, value] : dict->entries()) {
    nest(*dict, key);
    nest(*dict, value);
  }
  return Value(Kind::dict, std::move(dict));
}

Value Heap::view(std::shared_ptr<const Dict> dict, View::Part part) {
  budget_.allocate(sizeof(View));
  auto view = std::make_shared<View>();
  view->nesting = dict->nesting;
  view->dict = std::move(dict);
  view->part = part;
  return Value(Kind::view, std::move(view));
}

Value Heap::range(int64_t start, int64_t stop, int64_t step) {
  budget_.allocate(sizeof(Range));
  auto range = std::make_shared<Range>();
  range->start = start;
  range->stop = stop;
  range->step = step;
  return Value(Kind::range, std::move(range));
}

Value from_json(Heap& heap, const Json& json, uint32_t tag, std::string_view where) {
  const auto string = [&](const std::string& bytes) {
    TextBuilder out(heap.budget());
    out.append_tagged(first_invalid_utf8(bytes) ? replace_invalid_utf8(bytes) : bytes, tag);
    return Value(out.finish());
  };
  switch (json.type()) {
    case Json::value_t::null:
    case Json::value_t::discarded:
      return Value::none().with_tag(tag);
    case Json::value_t::boolean:
      return Value(json.get<bool>()).with_tag(tag);
    case Json::value_t::number_integer:
      return Value(json.get<int64_t>()).with_tag(tag);
    case Json::value_t::number_unsigned:
      require(json.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX),
              "{}: expected integers below 2^63, found {}", where, json.get<uint64_t>());
      return Value(json.get<int64_t>()).with_tag(tag);
    case Json::value_t::number_float:
      return Value(json.get<double>()).with_tag(tag);
    case Json::value_t::string:
      return string(json.get_ref<const std::string&>());
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(heap, item, tag, where));
      return heap.list(std::move(items)).with_tag(tag);
    }
    case Json::value_t::object: {
      auto dict = std::make_shared<Dict>();
      for (const auto& [key, value] : json.items())
        dict->set(string(key), from_json(heap, value, tag, where));
      return heap.dict(std::move(dict)).with_tag(tag);
    }
    case Json::value_t::binary:
      break;
  }
  fail("{}: expected JSON, found binary data", where);
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::missing:
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "NoneType";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::real:
      return "float";
    case Kind::string:
      return value.text().markup ? "Markup" : "str";
    case Kind::list:
      return "list";
    case Kind::tuple:
      return "tuple";
    case Kind::dict:
      return "dict";
    case Kind::view:
      return value.view().part == View::Part::keys     ? "dict_keys"
             : value.view().part == View::Part::values ? "dict_values"
                                                       : "dict_items";
    case Kind::range:
      return "range";
    case Kind::iterator:
      return value.iterator().type_name();
    case Kind::name_space:
      return "Namespace";
    case Kind::special:
      return value.special().type_name();
  }
  return "";
}

}  // namespace qkv::jinja
