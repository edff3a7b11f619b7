// The global functions of a template: range, dict, namespace, cycler, joiner, and transformers'
// raise_exception and strftime_now.
#include <cstdio>
#include <ctime>

#include "qkv/text/jinja/filters.h"
#include "qkv/text/jinja/interpreter.h"
#include "qkv/text/jinja/operators.h"

namespace qkv::jinja {
namespace {

constexpr int64_t kMaximumRange = 100'000;  // of Jinja's sandbox

class Function final : public Special {
 public:
  using Body = Value (*)(Interpreter&, CallArguments&);
  Function(std::string_view name, Body body) : name_(name), body_(body) {}
  std::string_view type_name() const override { return "function"; }
  std::string representation() const override { return fmt::format("<function {}>", name_); }
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, CallArguments& arguments) override {
    return body_(interpreter, arguments);
  }

 private:
  std::string_view name_;
  Body body_;
};

Value range(Interpreter& interpreter, CallArguments& arguments) {
  const Bound bound("range", arguments, {"", "", ""}, 1);
  const bool only_stop = bound.get(1) == nullptr;
  const int64_t start = only_stop ? 0 : bound.integer(0, 0), stop = bound.integer(only_stop ? 0 : 1, 0);
  const int64_t step = bound.integer(2, 1);
  if (step == 0) value_error("range() arg 3 must not be zero");
  const Value result = interpreter.heap().range(start, stop, step);
  if (result.range().size() > kMaximumRange) {
    fail_as(FailureKind::limit, "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).",
            kMaximumRange);
  }
  return result;
}

// The entries that dict(...) and namespace(...) take: a mapping or pairs, then keywords.
std::shared_ptr<Dict> collect_entries(Interpreter& interpreter, CallArguments& arguments,
                                      std::string_view function) {
  if (arguments.positional.size() > 1)
    type_error("{} expected at most 1 argument, got {}", function, arguments.positional.size());
  Heap& heap = interpreter.heap();
  auto dict = std::make_shared<Dict>();
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is(Kind::dict)) {
      for (const auto& [key, value] : source.dict().entries()) {
        interpreter.budget().step();
        dict->set(key, value);
      }
    } else {
      const auto iterator = iterate(heap, source);
      for (Value pair; iterator->next(pair);) {
        interpreter.budget().step();
        std::vector<Value> both = to_vector(heap, pair);
        if (both.size() != 2) value_error("{}: expected pairs, found {} items", function, both.size());
        dict->set(std::move(both[0]), std::move(both[1]));
      }
    }
  }
  for (auto& [name, value] : arguments.named) dict->set(heap.text(name), std::move(value));
  return dict;
}

Value make_dict(Interpreter& interpreter, CallArguments& arguments) {
  return interpreter.heap().dict(collect_entries(interpreter, arguments, "dict"));
}

Value make_namespace(Interpreter& interpreter, CallArguments& arguments) {
  const auto entries = collect_entries(interpreter, arguments, "namespace");
  interpreter.budget().allocate(sizeof(Namespace) + entries->size() * 2 * sizeof(Value));
  auto name_space = std::make_shared<Namespace>();
  for (const auto& [key, value] : entries->entries()) {
    if (key.is_string()) name_space->attributes.emplace_back(key.text().bytes, value);
  }
  interpreter.pin(name_space);  // it may come to hold itself
  return Value(Kind::name_space, std::move(name_space));
}

// ---- cycler and joiner ----

class Cycler;

class CyclerMethod final : public Special {
 public:
  CyclerMethod(std::shared_ptr<Cycler> cycler, bool advance)
      : cycler_(std::move(cycler)), advance_(advance) {}
  std::string_view type_name() const override { return "method"; }
  bool callable() const override { return true; }
  Value call(Interpreter&, CallArguments& arguments) override;

 private:
  std::shared_ptr<Cycler> cycler_;
  bool advance_;
};

class Cycler final : public Special, public std::enable_shared_from_this<Cycler> {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {}
  std::string_view type_name() const override { return "Cycler"; }
  std::optional<Value> attribute(Interpreter& interpreter, std::string_view name) override {
    if (name == "current") return items_[position_];
    if (name == "pos") return Value(static_cast<int64_t>(position_));
    if (name == "items") return interpreter.heap().tuple(items_);
    if (name != "next" && name != "reset") return std::nullopt;
    interpreter.budget().allocate(sizeof(CyclerMethod));
    auto method = std::make_shared<CyclerMethod>(shared_from_this(), name == "next");
    method->nesting = nesting + 1;
    return Value(Kind::special, std::move(method));
  }
  Value advance() {
    const Value item = items_[position_];
    position_ = (position_ + 1) % items_.size();
    return item;
  }
  void reset() { position_ = 0; }

 private:
  std::vector<Value> items_;
  size_t position_ = 0;
};

Value CyclerMethod::call(Interpreter&, CallArguments& arguments) {
  const Bound bound("cycler", arguments, {});
  if (advance_) return cycler_->advance();
  cycler_->reset();
  return Value::none();
}

Value make_cycler(Interpreter& interpreter, CallArguments& arguments) {
  if (!arguments.named.empty()) type_error("cycler() takes no keyword arguments");
  if (arguments.positional.empty()) type_error("at least one item has to be provided");
  interpreter.budget().allocate(sizeof(Cycler) + arguments.positional.size() * sizeof(Value));
  auto cycler = std::make_shared<Cycler>(arguments.positional);
  for (const Value& item : arguments.positional) interpreter.heap().nest(*cycler, item);
  return Value(Kind::special, std::move(cycler));
}

// Nothing the first time, its separator from then on.
class Joiner final : public Special {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string_view type_name() const override { return "Joiner"; }
  std::optional<Value> attribute(Interpreter&, std::string_view name) override {
    if (name == "sep") return separator_;
    if (name == "used") return Value(used_);
    return std::nullopt;
  }
  bool callable() const override { return true; }
  Value call(Interpreter& interpreter, CallArguments& arguments) override {
    const Bound bound("joiner", arguments, {});
    if (used_) return separator_;
    used_ = true;
    return interpreter.heap().text("");
  }

 private:
  Value separator_;
  bool used_ = false;
};

Value make_joiner(Interpreter& interpreter, CallArguments& arguments) {
  const Bound bound("joiner", arguments, {"sep"});
  interpreter.budget().allocate(sizeof(Joiner));
  auto joiner = std::make_shared<Joiner>(bound.get(0) != nullptr ? bound[0] : interpreter.heap().text(", "));
  if (bound.get(0) != nullptr) interpreter.heap().nest(*joiner, bound[0]);
  return Value(Kind::special, std::move(joiner));
}

// ---- transformers' functions ----

Value raise_exception(Interpreter& interpreter, CallArguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"}, 1);
  throw Failure(FailureKind::refused, to_text(interpreter.heap(), bound[0])->bytes);
}

// datetime.now().strftime(format): %f are microseconds, %z and %Z are empty, the rest is the C library's.
Value strftime_now(Interpreter& interpreter, CallArguments& arguments) {
  const Bound bound("strftime_now", arguments, {"format"}, 1);
  const std::string& format = expect_text(bound[0], "strftime_now").bytes;
  const auto microseconds =
      std::chrono::duration_cast<std::chrono::microseconds>(interpreter.now().time_since_epoch()).count();
  int64_t fraction = microseconds % 1'000'000;
  if (fraction < 0) fraction += 1'000'000;
  const auto seconds = static_cast<std::time_t>((microseconds - fraction) / 1'000'000);
  std::tm local{};
  localtime_r(&seconds, &local);
  TextBuilder out(interpreter.budget());
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out.append(format[i]);
      continue;
    }
    const char directive = format[++i];
    if (directive == 'f') {
      out.append(fmt::format("{:06}", fraction));
    } else if (directive != 'z' && directive != 'Z') {
      std::string pattern = {'%', directive};
      if ((directive == '-' || directive == '_' || directive == '0' || directive == '^') &&
          i + 1 < format.size())
        pattern += format[++i];
      char buffer[256];
      out.append(std::string_view(buffer, std::strftime(buffer, sizeof(buffer), pattern.c_str(), &local)));
    }
  }
  return out.finish();
}

Value lipsum(Interpreter&, CallArguments&) {
  fail_as(FailureKind::unsupported, "lipsum() is refused: a template must give the same text every time");
}

constexpr Named<Function::Body> kFunctions[] = {{"range", range},
                                                {"dict", make_dict},
                                                {"namespace", make_namespace},
                                                {"cycler", make_cycler},
                                                {"joiner", make_joiner},
                                                {"lipsum", lipsum},
                                                {"raise_exception", raise_exception},
                                                {"strftime_now", strftime_now}};

}  // namespace

std::optional<Value> find_global(Heap& heap, std::string_view name) {
  for (const auto& entry : kFunctions) {
    if (entry.name != name) continue;
    heap.budget().allocate(sizeof(Function));
    return Value(Kind::special, std::make_shared<Function>(entry.name, entry.function));
  }
  return std::nullopt;
}

}  // namespace qkv::jinja
