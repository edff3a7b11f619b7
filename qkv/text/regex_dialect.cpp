// A single pass; brackets are read by recursive descent.
#include "qkv/text/regex_dialect.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "qkv/text/unicode_scripts.h"

namespace qkv {
namespace {

constexpr int kMaximumDepth = 32;

// Members of a bracket expression. PCRE2 10.42 counts U+180E as white space; Oniguruma does not.
constexpr std::string_view kSpaceMembers =
    R"(\x09-\x0D\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
// PCRE2's \w is letters, numbers and the underscore; Oniguruma's has marks, connectors and letters in circles
// and squares, and of the other numbers only those of Latin-1.
constexpr std::string_view kWordMembers =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";
constexpr std::string_view kHexMembers = "0-9A-Fa-f";

// General categories by the long names that PCRE2 does not know.
constexpr std::array<std::pair<std::string_view, std::string_view>, 37> kCategories = {{
    {"letter", "L"},
    {"casedletter", "L&"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"otherpunctuation", "Po"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"privateuse", "Co"},
    {"unassigned", "Cn"},
}};

std::string folded(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c == '_' || c == '-' || c == ' ') continue;
    out += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  }
  return out;
}

// The name inside \p{...}: categories by their short names, scripts by the Script property alone (PCRE2 means
// Script_Extensions).
std::string property_name(std::string_view name) {
  std::string prefix;
  if (name.starts_with('^')) {
    prefix = "^";
    name.remove_prefix(1);
  }
  const std::string wanted = folded(name);
  for (const auto& [known, short_name] : kCategories) {
    if (known == wanted) return prefix + std::string(short_name);
  }
  const auto& scripts = unicode_script_names();
  const bool script = std::any_of(scripts.begin(), scripts.end(),
                                  [&](std::string_view known) { return folded(known) == wanted; });
  return prefix + (script ? "sc:" : "") + std::string(name);
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    std::string out;
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\') {
        out += escape();
      } else if (pattern_[at_] == '[') {
        out += bracket(0);
      } else {
        out += pattern_[at_++];
      }
    }
    return out;
  }

 private:
  // What `\x` stands for in a bracket expression: members, or nothing if PCRE2 reads it alike.
  static std::string_view members_of(char letter) {
    switch (letter) {
      case 's':
      case 'S':
        return kSpaceMembers;
      case 'w':
      case 'W':
        return kWordMembers;
      case 'h':
      case 'H':
        return kHexMembers;
      default:
        return {};
    }
  }

  // \p{...} or \P{...} at `at_`, copied with its name rewritten.
  std::string property() {
    const size_t close = pattern_.find('}', at_);
    std::string out(pattern_.substr(at_, 3));
    out += property_name(pattern_.substr(at_ + 3, close - at_ - 3));
    out += '}';
    at_ = close + 1;
    return out;
  }

  bool at_property() const {
    return pattern_.size() - at_ > 3 && (pattern_[at_ + 1] == 'p' || pattern_[at_ + 1] == 'P') &&
           pattern_[at_ + 2] == '{' && pattern_.find('}', at_) != std::string_view::npos;
  }

  // An escape outside of brackets.
  std::string escape() {
    if (at_ + 1 == pattern_.size()) return std::string(1, pattern_[at_++]);
    if (at_property()) return property();
    const char letter = pattern_[at_ + 1];
    at_ += 2;
    const std::string word = "[" + std::string(kWordMembers) + "]";
    if (letter == 'b') return "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))";
    if (letter == 'B') return "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))";
    const std::string_view members = members_of(letter);
    if (members.empty()) return {'\\', letter};
    const bool negated = letter == 'S' || letter == 'W' || letter == 'H';
    return (negated ? "[^" : "[") + std::string(members) + "]";
  }

  // One operand of an intersection.
  struct Operand {
    std::string members;              // as PCRE2 wants them between brackets
    std::vector<std::string> nested;  // bracket expressions united with them
    std::string text() const {
      if (nested.empty()) return "[" + members + "]";
      std::string out = "(?:";
      if (!members.empty()) out += "[" + members + "]|";
      for (size_t i = 0; i < nested.size(); ++i) out += (i > 0 ? "|" : "") + nested[i];
      return out + ")";
    }
  };

  // The bracket expression at `at_`.
  std::string bracket(int depth) {
    const size_t begin = at_++;
    const bool negated = at_ < pattern_.size() && pattern_[at_] == '^';
    if (negated) ++at_;
    std::vector<Operand> operands(1);
    bool first = true;
    for (;; first = false) {
      if (at_ >= pattern_.size() || depth > kMaximumDepth) {
        // Never closed: as it was, for PCRE2 to complain about.
        at_ = pattern_.size();
        return std::string(pattern_.substr(begin));
      }
      const char c = pattern_[at_];
      Operand& operand = operands.back();
      if (c == ']' && !first) {
        ++at_;
        break;
      }
      if (c == '\\' && at_ + 1 < pattern_.size()) {
        if (at_property()) {
          operand.members += property();
          continue;
        }
        const char letter = pattern_[at_ + 1];
        at_ += 2;
        const std::string_view members = members_of(letter);
        if (members.empty()) {
          operand.members += {'\\', letter};
        } else if (letter == 'S' || letter == 'W' || letter == 'H') {
          operand.nested.push_back("[^" + std::string(members) + "]");
        } else {
          operand.members += members;
        }
      } else if (c == '[' && at_ + 1 < pattern_.size() && pattern_[at_ + 1] == ':' &&
                 pattern_.find(":]", at_ + 2) != std::string_view::npos) {
        const size_t close = pattern_.find(":]", at_ + 2) + 2;
        operand.members += pattern_.substr(at_, close - at_);
        at_ = close;
      } else if (c == '[') {
        operand.nested.push_back(bracket(depth + 1));
      } else if (c == '&' && at_ + 1 < pattern_.size() && pattern_[at_ + 1] == '&') {
        at_ += 2;
        operands.emplace_back();
      } else {
        operand.members += c;
        ++at_;
      }
    }
    if (operands.size() == 1 && operands[0].nested.empty()) {
      return (negated ? "[^" : "[") + operands[0].members + "]";
    }
    std::string all;
    for (size_t i = 0; i + 1 < operands.size(); ++i) all += "(?=" + operands[i].text() + ")";
    all += operands.back().text();
    return negated ? "(?:(?!" + all + ")(?s:.))" : "(?:" + all + ")";
  }

  std::string_view pattern_;
  size_t at_ = 0;
};

}  // namespace

std::string pcre2_pattern(std::string_view oniguruma) {
  return Translator(oniguruma).run();
}

}  // namespace qkv
