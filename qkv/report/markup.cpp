#include "qkv/report/markup.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "qkv/core/json.h"
#include "qkv/core/utf8.h"

namespace qkv {
namespace {

// A typographic minus, so that signs align with tabular figures.
std::string with_minus(std::string text) {
  return text.starts_with('-') ? "\u2212" + text.substr(1) : text;
}

std::string grouped(const std::string& digits) {
  const size_t sign = digits.starts_with('-') ? 1 : 0;
  std::string out = digits.substr(0, sign);
  for (size_t i = sign; i < digits.size(); ++i) {
    if (i > sign && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

std::string without_trailing_zeros(std::string text) {
  if (text.find('.') == std::string::npos) return text;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text;
}

}  // namespace

std::string escape_html(std::string_view text) {
  const std::string valid = first_invalid_utf8(text) ? replace_invalid_utf8(text) : std::string(text);
  std::string out;
  out.reserve(valid.size() + valid.size() / 8);
  for (const char c : valid) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '\r':
        break;
      default:
        if ((static_cast<unsigned char>(c) < 0x20 && c != '\t' && c != '\n') || c == 0x7f) {
          out += "\uFFFD";
        } else {
          out += c;
        }
    }
  }
  return out;
}

std::string json_string(std::string_view text) {
  return dump_json(Json(std::string(text)));
}

std::string format_scientific(double value, int decimals) {
  std::string text = fmt::format("{:.{}e}", value, decimals);
  const size_t e = text.find('e');
  return with_minus(fmt::format("{}e{}", text.substr(0, e), std::stoi(text.substr(e + 1))));
}

std::string format_number(double value, int significant) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "∞" : "\u2212∞";
  if (value == 0) return "0";
  const double magnitude = std::abs(value);
  if (magnitude < 1e15 && value == std::floor(value))
    return with_minus(grouped(fmt::format("{:.0f}", value)));
  if (magnitude >= 1e7 || magnitude < 1e-3) {
    std::string text = fmt::format("{:.{}e}", value, significant - 1);
    const size_t e = text.find('e');
    return with_minus(
        fmt::format("{}e{}", without_trailing_zeros(text.substr(0, e)), std::stoi(text.substr(e + 1))));
  }
  const int decimals = significant - 1 - static_cast<int>(std::floor(std::log10(magnitude)));
  if (decimals <= 0) return with_minus(grouped(fmt::format("{:.0f}", value)));
  return with_minus(without_trailing_zeros(fmt::format("{:.{}f}", value, decimals)));
}

std::string format_count(double value) {
  if (!std::isfinite(value) || std::abs(value) < 1e4) return format_number(value);
  constexpr const char* suffixes[] = {"k", "M", "B", "T"};
  double scaled = value / 1e3;
  int suffix = 0;
  while (std::abs(scaled) >= 999.95 && suffix < 3) {
    scaled /= 1e3;
    ++suffix;
  }
  const int decimals = std::abs(scaled) < 100 ? 1 : 0;
  return with_minus(without_trailing_zeros(fmt::format("{:.{}f}", scaled, decimals))) + suffixes[suffix];
}

}  // namespace qkv
