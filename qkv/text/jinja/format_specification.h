// Python's format specifications, and how numbers look in them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qkv::jinja {

// [[fill]align][sign][#][0][width][grouping][.precision][type]
struct FormatSpecification {
  std::string fill = " ";
  char align = 0;  // < > = ^, 0: the type's own
  char sign = '-';
  bool alternate = false;
  int64_t width = 0;
  char grouping = 0;  // , or _
  int64_t precision = -1;
  char type = 0;
};

// Throws Failure for what is no specification.
FormatSpecification parse_format_specification(std::string_view text);

// `digits` with `separator` between groups from the right.
std::string group_digits(std::string_view digits, char separator, size_t group);
// The magnitude of an integer in base 2, 8, 10 or 16.
std::string magnitude(int64_t value, int base, bool upper);
// A finite or infinite magnitude as e, E, f, F, g, G or % ("%" multiplies by 100). Precision below 0: the
// type's default.
std::string format_magnitude(double value, char type, int64_t precision, bool alternate);

}  // namespace qkv::jinja
