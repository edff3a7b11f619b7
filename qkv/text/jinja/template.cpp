// Parsing and rendering with errors that name the template and the line.
#include "qkv/text/jinja/template.h"

#include <algorithm>
#include <tuple>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/parser.h"

namespace qkv::jinja {
namespace {

[[noreturn]] void rethrow(const Failure& failure, const std::string& name) {
  const std::string what = fmt::format("[template] {}, line {}: {}", name, failure.line, failure.what());
  if (failure.kind == FailureKind::refused) throw TemplateRefusal(what, failure.what());
  throw Error(what);
}

// Marks of one tag that touch or overlap become one.
std::vector<Mark> merged(std::vector<Mark> marks) {
  std::sort(marks.begin(), marks.end(), [](const Mark& a, const Mark& b) {
    return std::tie(a.tag, a.begin, a.end) < std::tie(b.tag, b.begin, b.end);
  });
  std::vector<Mark> result;
  for (const Mark& mark : marks) {
    if (!result.empty() && result.back().tag == mark.tag && mark.begin <= result.back().end) {
      result.back().end = std::max(result.back().end, mark.end);
    } else {
      result.push_back(mark);
    }
  }
  return result;
}

}  // namespace

Template::Template(std::string_view source, std::string name) : name_(std::move(name)) {
  const auto invalid = first_invalid_utf8(source);
  require(!invalid, "[template] {}: expected UTF-8, found an invalid byte at offset {}", name_,
          invalid.value_or(0));
  try {
    syntax_ = std::make_unique<const Syntax>(parse_template(source));
  } catch (const Failure& failure) {
    rethrow(failure, name_);
  }
}

Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

Rendering Template::render(const Fill& fill, std::chrono::system_clock::time_point now,
                           const Limits& limits) const {
  try {
    Heap heap(Budget(limits.max_steps, limits.max_bytes));
    Interpreter::Variables variables;
    fill(heap, variables);
    Interpreter interpreter(heap, limits, std::move(variables), now);
    const auto text = interpreter.run(*syntax_);
    return {std::move(text->bytes), merged(std::move(text->marks))};
  } catch (const Failure& failure) {
    rethrow(failure, name_);
  }
}

}  // namespace qkv::jinja
