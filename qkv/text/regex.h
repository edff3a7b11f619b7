// Regular expressions over UTF-8, by PCRE2 with its just-in-time compiler. The dialect is what tokenizer.json
// files hold, Oniguruma's: properties as there, ^ and $ at every line.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "qkv/text/text_range.h"

namespace qkv {

class Regex {
 public:
  // Throws Error `<where>: ...` naming the pattern, the offset and PCRE2's reason.
  Regex(std::string pattern, std::string_view where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // What a thread needs to match; usable with every Regex.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Regex;
    struct State;
    std::unique_ptr<State> state_;
  };

  // The first match at or after `start`. `text` must be valid UTF-8. Throws Error if the pattern needs more
  // backtracking than is allowed.
  std::optional<TextRange> find(std::string_view text, size_t start, Scratch& scratch) const;
  const std::string& pattern() const { return pattern_; }

 private:
  struct Code;
  std::string pattern_;
  std::unique_ptr<Code> code_;
};

}  // namespace qkv
