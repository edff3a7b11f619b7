// Errors are one sentence: what, where, what was expected, what was found. They reach the user verbatim, so write
// them for a person: `[safetensors] tensor 'a.weight': offset 912 + 64 bytes runs past the end (900 bytes)`.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace qkv {

// Bad input, bad configuration or a failed system call; the CLI prints what() and exits with code 2.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws Error with the formatted sentence.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// Throws Error with the formatted sentence unless `condition` holds.
template <typename... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// The text of errno value `code`, for example "No space left on device".
std::string system_error_text(int code);

}  // namespace qkv
