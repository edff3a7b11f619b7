// Filters that give their items one by one, when asked: map, select, unique, batch, ... As in Jinja, nothing
// is computed (and nothing fails) before the first item is taken.
#include <memory>
#include <optional>
#include <unordered_map>

#include "qkv/text/jinja/attributes.h"
#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

class Generator final : public Iterator {
 public:
  explicit Generator(std::function<bool(Value&)> next) : next_(std::move(next)) {}
  bool next(Value& item) override {
    if (done_) return false;
    if (running_) value_error("generator already executing");
    running_ = true;
    done_ = !next_(item);
    running_ = false;
    return !done_;
  }

 private:
  std::function<bool(Value&)> next_;
  bool done_ = false, running_ = false;
};

// A lazy walk over `value`, which is empty if the value is false.
class Source {
 public:
  Source(Heap& heap, Value value) : heap_(heap), value_(std::move(value)) {}
  bool next(Value& item) {
    heap_.budget().step();
    if (iterator_ == nullptr) {
      if (!truth(value_)) return false;
      iterator_ = iterate(heap_, value_);
    }
    return iterator_->next(item);
  }

 private:
  Heap& heap_;
  Value value_;
  std::shared_ptr<Iterator> iterator_;
};

Value arguments_value(Heap& heap, const CallArguments& arguments) {
  std::vector<Value> all = arguments.positional;
  for (const auto& [name, value] : arguments.named) all.push_back(value);
  return heap.list(std::move(all));
}

CallArguments without_first(const CallArguments& arguments, size_t count) {
  return {{arguments.positional.begin() + static_cast<ptrdiff_t>(count), arguments.positional.end()},
          arguments.named};
}

// ---- map ----

std::function<Value(const Value&)> mapper(Interpreter& interpreter, const CallArguments& arguments) {
  const auto named = [&](std::string_view name) -> const Value* {
    for (const auto& [key, value] : arguments.named) {
      if (key == name) return &value;
    }
    return nullptr;
  };
  if (arguments.positional.empty() && named("attribute") != nullptr) {
    const Value* fallback = named("default");
    for (const auto& [key, value] : arguments.named) {
      if (key != "attribute" && key != "default") type_error("Unexpected keyword argument {}", quoted(key));
    }
    if (fallback != nullptr && fallback->is(Kind::none)) fallback = nullptr;
    const AttributePath path(interpreter.heap(), *named("attribute"), fallback);
    return [&interpreter, path](const Value& item) { return path.find(interpreter, item); };
  }
  if (arguments.positional.empty()) type_error("map requires a filter argument");
  const std::string filter = expect_text(arguments.positional[0], "map").bytes;
  return [&interpreter, filter, rest = without_first(arguments, 1)](const Value& item) {
    CallArguments copy = rest;
    return apply_filter(interpreter, filter, item, copy);
  };
}

Value map(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  Heap& heap = interpreter.heap();
  struct State {
    Source source;
    std::function<Value(const Value&)> apply;
  };
  auto state = std::make_shared<State>(State{Source(heap, value), nullptr});
  return make_generator(heap, {value, arguments_value(heap, arguments)},
                        [&interpreter, state, arguments](Value& item) {
                          Value next;
                          if (!state->source.next(next)) return false;
                          if (!state->apply) state->apply = mapper(interpreter, arguments);
                          item = state->apply(next);
                          return true;
                        });
}

// ---- select, reject, selectattr, rejectattr ----

std::function<bool(const Value&)> condition(Interpreter& interpreter, const CallArguments& arguments,
                                            bool of_attribute) {
  AttributePath path;
  if (of_attribute) {
    if (arguments.positional.empty()) type_error("Missing parameter for attribute name");
    path = AttributePath(interpreter.heap(), arguments.positional[0]);
  }
  const size_t skip = of_attribute ? 1 : 0;
  if (arguments.positional.size() == skip) {
    return [&interpreter, path](const Value& item) { return truth(path.find(interpreter, item)); };
  }
  const std::string test = expect_text(arguments.positional[skip], "the name of a test").bytes;
  return [&interpreter, path, test, rest = without_first(arguments, skip + 1)](const Value& item) {
    CallArguments copy = rest;
    return apply_test(interpreter, test, path.find(interpreter, item), copy);
  };
}

Value select_items(Interpreter& interpreter, const Value& value, const CallArguments& arguments, bool wanted,
                   bool of_attribute) {
  Heap& heap = interpreter.heap();
  struct State {
    Source source;
    std::function<bool(const Value&)> holds;
  };
  auto state = std::make_shared<State>(State{Source(heap, value), nullptr});
  return make_generator(heap, {value, arguments_value(heap, arguments)},
                        [&interpreter, state, arguments, wanted, of_attribute](Value& item) {
                          while (state->source.next(item)) {
                            if (!state->holds) state->holds = condition(interpreter, arguments, of_attribute);
                            if (state->holds(item) == wanted) return true;
                          }
                          return false;
                        });
}

Value select(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  return select_items(interpreter, value, arguments, true, false);
}
Value reject(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  return select_items(interpreter, value, arguments, false, false);
}
Value selectattr(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  return select_items(interpreter, value, arguments, true, true);
}
Value rejectattr(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  return select_items(interpreter, value, arguments, false, true);
}

// ---- the others ----

Value unique(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  Heap& heap = interpreter.heap();
  struct State {
    std::shared_ptr<Iterator> source;
    std::unordered_multimap<uint64_t, Value> seen;
  };
  auto state = std::make_shared<State>();
  const bool case_sensitive = bound.flag(0, false);
  const AttributePath path = bound.some(1) != nullptr ? AttributePath(heap, bound[1]) : AttributePath();
  return make_generator(heap, {value}, [&interpreter, state, value, case_sensitive, path](Value& item) {
    if (state->source == nullptr) state->source = iterate(interpreter.heap(), value);
    while (state->source->next(item)) {
      interpreter.budget().step();
      interpreter.budget().allocate(2 * sizeof(Value));
      Value key = path.find(interpreter, item);
      if (!case_sensitive) key = ignore_case(interpreter.heap(), key);
      const uint64_t hash = hash_value(key);
      const auto [begin, end] = state->seen.equal_range(hash);
      bool known = false;
      for (auto it = begin; it != end && !known; ++it) known = equal(it->second, key);
      if (known) continue;
      state->seen.emplace(hash, std::move(key));
      return true;
    }
    return false;
  });
}

Value batch(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("batch", arguments, {"linecount", "fill_with"}, 1);
  Heap& heap = interpreter.heap();
  const int64_t size = bound.integer(0, 0);
  const Value fill = bound.some(1) != nullptr ? bound[1] : Value();
  auto source = std::make_shared<std::shared_ptr<Iterator>>();
  auto held = std::make_shared<std::optional<Value>>();
  return make_generator(heap, {value, fill}, [&heap, value, source, held, size, fill](Value& item) {
    if (*source == nullptr) *source = iterate(heap, value);
    std::vector<Value> line;
    if (*held) line.push_back(*std::exchange(*held, std::nullopt));
    for (Value next; (*source)->next(next);) {
      heap.budget().step();
      heap.budget().allocate(sizeof(Value));
      if (static_cast<int64_t>(line.size()) == size) {
        *held = std::move(next);
        item = heap.list(std::move(line));
        return true;
      }
      line.push_back(std::move(next));
    }
    if (line.empty()) return false;
    while (!fill.is(Kind::missing) && static_cast<int64_t>(line.size()) < size) {
      heap.budget().step();
      heap.budget().allocate(sizeof(Value));
      line.push_back(fill);
    }
    item = heap.list(std::move(line));
    return true;
  });
}

Value slice_items(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("slice", arguments, {"slices", "fill_with"}, 1);
  Heap& heap = interpreter.heap();
  const int64_t count = bound.integer(0, 0);
  const Value fill = bound.some(1) != nullptr ? bound[1] : Value();
  struct State {
    bool begun = false;
    std::vector<Value> items;
    int64_t number = 0;
    size_t done = 0;
  };
  auto state = std::make_shared<State>();
  return make_generator(heap, {value, fill}, [&heap, value, state, count, fill](Value& item) {
    if (!state->begun) state->items = to_vector(heap, value);
    state->begun = true;
    if (count == 0) value_error("integer division or modulo by zero");
    if (state->number >= count) return false;
    heap.budget().step();
    const auto size = static_cast<int64_t>(state->items.size());
    const bool longer = state->number < size % count;
    const auto end = state->done + static_cast<size_t>(size / count + (longer ? 1 : 0));
    std::vector<Value> part(state->items.begin() + static_cast<ptrdiff_t>(state->done),
                            state->items.begin() + static_cast<ptrdiff_t>(end));
    if (!fill.is(Kind::missing) && !longer) part.push_back(fill);
    state->done = end;
    ++state->number;
    item = heap.list(std::move(part));
    return true;
  });
}

Value items(Interpreter& interpreter, const Value& value, CallArguments& arguments) {
  const Bound bound("items", arguments, {});
  Heap& heap = interpreter.heap();
  auto index = std::make_shared<size_t>(0);
  return make_generator(heap, {value}, [&heap, value, index](Value& item) {
    if (value.is(Kind::undefined)) return false;
    if (!value.is(Kind::dict)) type_error("Can only get item pairs from a mapping.");
    if (*index == value.dict().size()) return false;
    const auto& [key, entry] = value.dict().entries()[(*index)++];
    item = heap.tuple({key, entry});
    return true;
  });
}

constexpr Named<Filter> kFilters[] = {{"map", map},
                                      {"select", select},
                                      {"reject", reject},
                                      {"selectattr", selectattr},
                                      {"rejectattr", rejectattr},
                                      {"unique", unique},
                                      {"batch", batch},
                                      {"slice", slice_items},
                                      {"items", items}};

}  // namespace

Value make_generator(Heap& heap, std::initializer_list<Value> parts, std::function<bool(Value&)> next) {
  heap.budget().allocate(sizeof(Generator) + 256);
  auto generator = std::make_shared<Generator>(std::move(next));
  for (const Value& part : parts) heap.nest(*generator, part);
  return iterator_value(heap, std::move(generator));
}

std::span<const Named<Filter>> lazy_filters() {
  return kFilters;
}

}  // namespace qkv::jinja
