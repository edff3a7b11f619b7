// The values of JSON Schema's "format", as regular expressions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qkv {

// For date, time, date-time, duration (RFC 3339), uuid (RFC 4122), ipv4, hostname and email in their common
// forms. nullopt for others.
std::optional<std::string> format_pattern(std::string_view format);
// "date, time, ...", for error sentences.
std::string known_formats();

}  // namespace qkv
