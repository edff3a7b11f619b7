#include "console.h"

#include <cerrno>
#include <cstdio>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "qkv/core/utf8.h"
#include "qkv/tensor/allocator.h"

namespace qkv {

void print_out(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  require(written && std::fflush(stdout) == 0, "standard output: cannot be written: {}",
          system_error_text(errno));
}

void print_note(std::string_view text) {
  fmt::print(stderr, "{}\n", text);
}

std::string read_input(const std::string& path) {
  if (path != "-") return read_file(path);
  std::string text;
  char buffer[1 << 16];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0;) text.append(buffer, n);
  require(std::ferror(stdin) == 0, "standard input: cannot be read: {}", system_error_text(errno));
  return text;
}

void require_utf8(std::string_view text, std::string_view where) {
  const auto invalid = first_invalid_utf8(text);
  require(!invalid, "{}: expected UTF-8 text, found an invalid byte at offset {}", where,
          invalid.value_or(0));
}

std::string memory_sentence() {
  return fmt::format("peak memory {} in tensors, {} in the process", format_bytes(memory_use().peak),
                     format_bytes(peak_resident_bytes()));
}

std::string format_rate(double value) {
  return value >= 100 ? fmt::format("{:.0f}", value) : fmt::format("{:.3g}", value);
}

}  // namespace qkv
