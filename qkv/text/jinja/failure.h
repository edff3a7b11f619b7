// What goes wrong inside a template, before it has a place: the interpreter adds the template's name and
// line.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace qkv::jinja {

// Filters such as `int` recover from some failures, as Python's `except (TypeError, ValueError)` does.
enum class FailureKind {
  syntax,       // the source is not a template
  undefined,    // an operation on an undefined value
  type,         // an operation that the types of its operands do not have
  value,        // an operand out of its domain
  attribute,    // an access that the sandbox refuses
  refused,      // raise_exception()
  limit,        // too many steps, too much memory, too deep
  unsupported,  // Python or Jinja would do it, this engine does not
};

class Failure : public std::runtime_error {
 public:
  Failure(FailureKind kind, const std::string& what) : std::runtime_error(what), kind(kind) {}
  FailureKind kind;
  int line = 0;  // 0: not known yet
};

template <typename... Args>
[[noreturn]] void fail_as(FailureKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Failure(kind, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
[[noreturn]] void type_error(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure(FailureKind::type, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
[[noreturn]] void value_error(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure(FailureKind::value, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace qkv::jinja
