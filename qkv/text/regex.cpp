// PCRE2 behind Regex.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "qkv/text/regex.h"

#include <pcre2.h>

#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackLimit = 8 * 1024 * 1024;
constexpr uint32_t kMatchLimit = 50'000'000;

// Members of a bracket expression. PCRE2 10.42 counts U+180E as white space; Oniguruma does not.
constexpr std::string_view kSpaceMembers =
    R"(\x09-\x0D\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
// PCRE2's \w is letters, numbers and the underscore; Oniguruma's has marks, connectors and letters in circles
// and squares, and of the other numbers only those of Latin-1.
constexpr std::string_view kWordMembers =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";

std::string translate(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      const std::string_view members = next == 's' || next == 'S'   ? kSpaceMembers
                                       : next == 'w' || next == 'W' ? kWordMembers
                                                                    : std::string_view();
      const bool negated = next == 'S' || next == 'W';
      if (members.empty() || (in_class && negated)) {
        out += c;
        out += next;
      } else if (in_class) {
        out += members;
      } else {
        out += negated ? "[^" : "[";
        out += members;
        out += ']';
      }
      continue;
    }
    out += c;
    if (!in_class && c == '[') {
      in_class = true;
      // A bracket right after the opening (or after its ^) is a member.
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];
    } else if (in_class && c == '[' && i + 1 < pattern.size() && pattern[i + 1] == ':') {
      const size_t close = pattern.find(":]", i + 2);
      if (close != std::string_view::npos) {
        out += pattern.substr(i + 1, close + 1 - i);
        i = close + 1;
      }
    } else if (in_class && c == ']') {
      in_class = false;
    }
  }
  return out;
}

std::string reason(int code) {
  unsigned char buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Code {
  explicit Code(pcre2_code* compiled) : code(compiled) {}
  ~Code() { pcre2_code_free(code); }
  pcre2_code* code;
};

struct Regex::Scratch::State {
  State()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kJitStackStart, kJitStackLimit, nullptr)) {
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
    pcre2_set_match_limit(context, kMatchLimit);
  }
  ~State() {
    if (stack) pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

Regex::Scratch::Scratch() : state_(std::make_unique<State>()) {}
Regex::Scratch::~Scratch() = default;

Regex::Regex(std::string pattern, std::string_view where) : pattern_(std::move(pattern)) {
  const std::string translated = translate(pattern_);
  int code = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* compiled =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset, nullptr);
  require(compiled != nullptr, "{}: regular expression '{}' does not compile: {}", where, pattern_,
          reason(code));
  code_ = std::make_unique<Code>(compiled);
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // without it pcre2_match interprets: slower, same matches
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

std::optional<TextRange> Regex::find(std::string_view text, size_t start, Scratch& scratch) const {
  const auto& state = *scratch.state_;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data() ? text.data() : "");
  const int code =
      pcre2_match(code_->code, subject, text.size(), start, PCRE2_NO_UTF_CHECK, state.data, state.context);
  if (code == PCRE2_ERROR_NOMATCH) return std::nullopt;
  require(code >= 0, "regular expression '{}' gave up at byte {} of a text: {}", pattern_, start,
          reason(code));
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(state.data);
  return TextRange{bounds[0], bounds[1]};
}

}  // namespace qkv
