// PCRE2 behind Regex.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "qkv/text/regex.h"

#include <pcre2.h>

#include "qkv/core/error.h"
#include "qkv/text/regex_dialect.h"

namespace qkv {
namespace {

constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackLimit = 8 * 1024 * 1024;
constexpr uint32_t kMatchLimit = 50'000'000;

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
  const std::string translated = pcre2_pattern(pattern_);
  int code = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                       &code, &offset, nullptr);
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
