// What the verbs share at the terminal: reading input, writing results, saying what a run took.
#pragma once

#include <string>
#include <string_view>

namespace qkv {

// Writes to standard output at once. Error naming the system's reason if it cannot be written (a full disk).
void print_out(std::string_view text);
// A line on standard error.
void print_note(std::string_view text);

// The whole of a file, or of standard input for "-".
std::string read_input(const std::string& path);
// Error `<where>: expected UTF-8 text, found an invalid byte at offset N` unless it is.
void require_utf8(std::string_view text, std::string_view where);

// "peak memory 1.2 GiB in tensors, 1.9 GiB in the process".
std::string memory_sentence();
// 12.3, 456, 7890: three significant digits for rates.
std::string format_rate(double value);

}  // namespace qkv
