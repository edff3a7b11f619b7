#include "qkv/engine/grammar/string_formats.h"

#include <iterator>
#include <utility>

namespace qkv {
namespace {

// Days that exist: of long and short months, of February, and its last in leap years.
const std::string kDate =
    R"((\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8])))"
    R"(|(\d\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29))";
const std::string kTime = R"(([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d))";
const std::string kDays = R"((\d{1,9}D|\d{1,9}M(\d{1,9}D)?|\d{1,9}Y(\d{1,9}M(\d{1,9}D)?)?))";
const std::string kHours = R"(T(\d{1,9}H(\d{1,9}M(\d{1,9}S)?)?|\d{1,9}M(\d{1,9}S)?|\d{1,9}S))";
const std::string kByte = R"((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))";
const std::string kLabel = R"([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)";

const std::pair<const char*, std::string> kFormats[] = {
    {"date", kDate},
    {"time", kTime},
    {"date-time", kDate + "T" + kTime},
    {"duration", "P(" + kDays + "(" + kHours + ")?|" + kHours + R"(|\d{1,9}W))"},
    {"uuid", R"([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})"},
    {"ipv4", kByte + R"((\.)" + kByte + "){3}"},
    {"hostname", kLabel + R"((\.)" + kLabel + "){0,3}"},
    {"email",
     R"([a-zA-Z0-9_+-]{1,32}(\.[a-zA-Z0-9_+-]{1,32}){0,3}@)" + kLabel + R"((\.)" + kLabel + "){1,3}"},
};

}  // namespace

std::optional<std::string> format_pattern(std::string_view format) {
  for (const auto& [name, pattern] : kFormats) {
    if (name == format) return "^(" + pattern + ")$";
  }
  return std::nullopt;
}

std::string known_formats() {
  std::string names;
  for (const auto& entry : kFormats) names += (names.empty() ? "" : ", ") + std::string(entry.first);
  return names;
}

}  // namespace qkv
