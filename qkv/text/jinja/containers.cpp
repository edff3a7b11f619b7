// len(), iter(), reversed(), slices and subscripts.
#include <algorithm>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

size_t code_point_end(std::string_view bytes, size_t position) {
  ++position;
  while (position < bytes.size() && (static_cast<uint8_t>(bytes[position]) & 0xC0) == 0x80) ++position;
  return position;
}

Value item_of_view(Heap& heap, const View& view, size_t index) {
  const auto& [key, value] = view.dict->entries()[index];
  switch (view.part) {
    case View::Part::keys:
      return key;
    case View::Part::values:
      return value;
    case View::Part::items:
      return heap.tuple({key, value});
  }
  return {};
}

// Walks anything that has a length and an i-th item, either way.
class IndexIterator final : public Iterator {
 public:
  IndexIterator(Heap& heap, Value source, bool backwards)
      : heap_(heap), source_(std::move(source)), backwards_(backwards) {
    size_ = length(source_);
  }
  bool next(Value& item) override {
    if (done_ == size_) return false;
    const auto index = backwards_ ? size_ - 1 - done_ : done_;
    ++done_;
    switch (source_.kind()) {
      case Kind::list:
      case Kind::tuple:
        item = source_.items()[static_cast<size_t>(index)];
        break;
      case Kind::dict:
        item = source_.dict().entries()[static_cast<size_t>(index)].first;
        break;
      case Kind::view:
        item = item_of_view(heap_, source_.view(), static_cast<size_t>(index));
        break;
      case Kind::range:
        item = source_.range().at(index);
        break;
      default:
        return false;
    }
    return true;
  }
  std::string_view type_name() const override { return backwards_ ? "reversed" : "iterator"; }

 private:
  Heap& heap_;
  Value source_;
  bool backwards_;
  int64_t size_ = 0, done_ = 0;
};

class CharacterIterator final : public Iterator {
 public:
  CharacterIterator(Heap& heap, Value source) : heap_(heap), source_(std::move(source)) {}
  bool next(Value& item) override {
    const Text& text = source_.text();
    if (position_ == text.bytes.size()) return false;
    const size_t end = code_point_end(text.bytes, position_);
    TextBuilder out(heap_.budget());
    out.append(text, position_, end);
    item = out.finish();
    position_ = end;
    return true;
  }

 private:
  Heap& heap_;
  Value source_;
  size_t position_ = 0;
};

class VectorIterator final : public Iterator {
 public:
  explicit VectorIterator(std::vector<Value> items) : items_(std::move(items)) {}
  bool next(Value& item) override {
    if (done_ == items_.size()) return false;
    item = std::move(items_[done_++]);
    return true;
  }

 private:
  std::vector<Value> items_;
  size_t done_ = 0;
};

// Python's slice.indices(): where the walk begins, how many steps it has, and how long they are.
struct Walk {
  int64_t start = 0, count = 0, step = 1;
};

Walk resolve_slice(int64_t size, const Value& start, const Value& stop, const Value& step) {
  const auto index = [](const Value& value, std::string_view what) -> std::optional<int64_t> {
    if (value.is(Kind::missing) || value.is(Kind::none)) return std::nullopt;
    if (!value.is_integral()) {
      if (value.is(Kind::undefined))
        type_error("slice {} is undefined; slice indices must be integers or none", what);
      type_error("slice indices must be integers or none, not {}", type_name(value));
    }
    return value.integer();
  };
  Walk walk;
  walk.step = index(step, "step").value_or(1);
  if (walk.step == 0) value_error("slice step cannot be zero");
  if (walk.step == INT64_MIN) walk.step = -INT64_MAX;
  const int64_t lowest = walk.step > 0 ? 0 : -1, highest = walk.step > 0 ? size : size - 1;
  const auto clamp = [&](std::optional<int64_t> at, int64_t fallback) {
    if (!at) return fallback;
    if (*at < 0) return std::max(*at + size, lowest);
    return std::min(*at, highest);
  };
  walk.start = clamp(index(start, "start"), walk.step > 0 ? lowest : highest);
  const int64_t end = clamp(index(stop, "stop"), walk.step > 0 ? highest : lowest);
  Range range;
  range.start = walk.start;
  range.stop = end;
  range.step = walk.step;
  walk.count = range.size();
  return walk;
}

// The start of every code point, and the end.
std::vector<size_t> code_point_offsets(Heap& heap, const Text& text) {
  heap.budget().allocate(static_cast<uint64_t>(text.size()) * sizeof(size_t));
  std::vector<size_t> offsets;
  offsets.reserve(static_cast<size_t>(text.size()) + 1);
  for (size_t i = 0; i < text.bytes.size(); i = code_point_end(text.bytes, i)) offsets.push_back(i);
  offsets.push_back(text.bytes.size());
  return offsets;
}

Value slice_string(Heap& heap, const Text& text, const Walk& walk) {
  TextBuilder out(heap.budget());
  if (walk.count == 0) return out.finish(text.markup);
  if (walk.step == 1) {
    const size_t begin = text.offset(walk.start);
    const size_t end =
        walk.start + walk.count == text.size() ? text.bytes.size() : text.offset(walk.start + walk.count);
    out.append(text, begin, end);
    return out.finish(text.markup);
  }
  const std::vector<size_t> offsets = code_point_offsets(heap, text);
  for (int64_t i = 0; i < walk.count; ++i) {
    const auto index = static_cast<size_t>(walk.start + i * walk.step);
    out.append(text, offsets[index], offsets[index + 1]);
  }
  return out.finish(text.markup);
}

std::optional<int64_t> position_of(const Value& key, int64_t size) {
  if (!key.is_integral()) return std::nullopt;
  const int64_t index = key.integer() < 0 ? key.integer() + size : key.integer();
  if (index < 0 || index >= size) return std::nullopt;
  return index;
}

}  // namespace

std::optional<int64_t> try_length(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
      return 0;
    case Kind::string:
      return value.text().size();
    case Kind::list:
    case Kind::tuple:
      return static_cast<int64_t>(value.items().size());
    case Kind::dict:
      return static_cast<int64_t>(value.dict().size());
    case Kind::view:
      return static_cast<int64_t>(value.view().dict->size());
    case Kind::range:
      return value.range().size();
    default:
      return std::nullopt;
  }
}

int64_t length(const Value& value) {
  const auto size = try_length(value);
  if (!size) type_error("object of type '{}' has no len()", type_name(value));
  return *size;
}

bool is_iterable(const Value& value) {
  return try_length(value).has_value() || value.is(Kind::iterator);
}

std::shared_ptr<Iterator> iterate_vector(Heap& heap, std::vector<Value> items) {
  heap.budget().allocate(sizeof(VectorIterator));
  auto iterator = std::make_shared<VectorIterator>(std::move(items));
  return iterator;
}

std::shared_ptr<Iterator> iterate(Heap& heap, const Value& value) {
  if (value.is(Kind::iterator)) return std::static_pointer_cast<Iterator>(value.shared());
  heap.budget().allocate(sizeof(IndexIterator));
  std::shared_ptr<Iterator> iterator;
  if (value.is_string()) {
    iterator = std::make_shared<CharacterIterator>(heap, value);
  } else if (try_length(value)) {
    iterator = std::make_shared<IndexIterator>(heap, value, false);
  } else {
    type_error("'{}' object is not iterable", type_name(value));
  }
  heap.nest(*iterator, value);
  return iterator;
}

std::vector<Value> to_vector(Heap& heap, const Value& value) {
  if (value.is_sequence()) {
    heap.budget().allocate(value.items().size() * sizeof(Value));
    return value.items();
  }
  std::vector<Value> items;
  const auto iterator = iterate(heap, value);
  for (Value item; iterator->next(item);) {
    heap.budget().step();
    heap.budget().allocate(sizeof(Value));
    items.push_back(std::move(item));
  }
  return items;
}

std::shared_ptr<Iterator> iterate_backwards(Heap& heap, const Value& value) {
  switch (value.kind()) {
    case Kind::string: {
      std::vector<Value> items = to_vector(heap, value);
      std::reverse(items.begin(), items.end());
      return iterate_vector(heap, std::move(items));
    }
    case Kind::undefined:
    case Kind::list:
    case Kind::tuple:
    case Kind::dict:
    case Kind::view:
    case Kind::range: {
      auto iterator = std::make_shared<IndexIterator>(heap, value, true);
      heap.budget().allocate(sizeof(IndexIterator));
      heap.nest(*iterator, value);
      return iterator;
    }
    default:
      return nullptr;
  }
}

Value iterator_value(Heap&, std::shared_ptr<Iterator> iterator) {
  return Value(Kind::iterator, std::move(iterator));
}

Value slice_text(Heap& heap, const Text& text, int64_t begin, int64_t end) {
  const int64_t size = text.size();
  begin = std::clamp<int64_t>(begin, 0, size);
  end = std::clamp<int64_t>(end, begin, size);
  return slice_string(heap, text, {begin, end - begin, 1});
}

Value slice(Heap& heap, const Value& value, const Value& start, const Value& stop, const Value& step) {
  switch (value.kind()) {
    case Kind::string:
      return slice_string(heap, value.text(), resolve_slice(value.text().size(), start, stop, step));
    case Kind::list:
    case Kind::tuple: {
      const auto& source = value.items();
      const Walk walk = resolve_slice(static_cast<int64_t>(source.size()), start, stop, step);
      std::vector<Value> items;
      heap.budget().allocate(static_cast<uint64_t>(walk.count) * sizeof(Value));
      items.reserve(static_cast<size_t>(walk.count));
      for (int64_t i = 0; i < walk.count; ++i)
        items.push_back(source[static_cast<size_t>(walk.start + i * walk.step)]);
      return value.is(Kind::list) ? heap.list(std::move(items)).with_tag(value.tag())
                                  : heap.tuple(std::move(items));
    }
    case Kind::range: {
      const Range& range = value.range();
      const Walk walk = resolve_slice(range.size(), start, stop, step);
      if (walk.count == 0) return heap.range(0, 0, 1);
      const int64_t stride = walk.count == 1 ? 1 : walk.step * range.step;
      const int64_t first = range.at(walk.start);
      return heap.range(first, first + stride * walk.count, stride);
    }
    case Kind::undefined:
      value.fail_undefined();
    default:
      type_error("'{}' object is not subscriptable", type_name(value));
  }
}

std::optional<Value> find_item(Heap& heap, const Value& value, const Value& key) {
  switch (value.kind()) {
    case Kind::string: {
      const auto index = position_of(key, value.text().size());
      if (!index) return std::nullopt;
      return slice_text(heap, value.text(), *index, *index + 1);
    }
    case Kind::list:
    case Kind::tuple: {
      const auto index = position_of(key, static_cast<int64_t>(value.items().size()));
      if (!index) return std::nullopt;
      return value.items()[static_cast<size_t>(*index)];
    }
    case Kind::range: {
      const auto index = position_of(key, value.range().size());
      if (!index) return std::nullopt;
      return Value(value.range().at(*index));
    }
    case Kind::dict: {
      if (key.is(Kind::list) || key.is(Kind::dict)) return std::nullopt;
      const Value* found = value.dict().find(key);
      if (found == nullptr) return std::nullopt;
      return *found;
    }
    case Kind::undefined:
      value.fail_undefined();
    default:
      return std::nullopt;
  }
}

}  // namespace qkv::jinja
