// One pass over the source: outside of tags everything is text, inside tokens are separated by white space.
#include "qkv/text/jinja/lexer.h"

#include <algorithm>
#include <optional>

#include "qkv/core/utf8.h"
#include "qkv/text/jinja/characters.h"
#include "qkv/text/jinja/failure.h"

namespace qkv::jinja {
namespace {

[[noreturn]] void syntax_error(int line, const std::string& what) {
  Failure failure(FailureKind::syntax, what);
  failure.line = line;
  throw failure;
}

std::string normalize_newlines(std::string_view source) {
  std::string result;
  result.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      result += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      result += source[i];
    }
  }
  if (result.ends_with('\n')) result.pop_back();
  return result;
}

bool is_ascii_digit(char c) {
  return c >= '0' && c <= '9';
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) read_root();
    push(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(position_); }
  bool at(std::string_view what) const { return rest().starts_with(what); }

  void push(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  // Moves on, counting lines.
  void advance_to(size_t position) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(position_),
                                         source_.begin() + static_cast<ptrdiff_t>(position), '\n'));
    position_ = position;
  }

  size_t end_of_space(size_t position) const {
    while (position < source_.size()) {
      size_t next = position;
      const auto c = next_code_point(source_, next);
      if (!c || !is_space(*c)) break;
      position = next;
    }
    return position;
  }

  // Whether the piece before `position_` ended a line: indentation there belongs to a tag that follows.
  bool at_line_start() const { return position_ == 0 || ended_with_newline_; }

  void read_root() {
    size_t tag = position_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos) break;
      const char next = tag + 1 < source_.size() ? source_[tag + 1] : ' ';
      if (next == '{' || next == '%' || next == '#') break;
      ++tag;
    }
    if (tag == std::string::npos) {
      push(TokenKind::data, std::string(rest()));
      advance_to(source_.size());
      return;
    }
    const char type = source_[tag + 1];
    const char sign = tag + 2 < source_.size() && (source_[tag + 2] == '-' || source_[tag + 2] == '+')
                          ? source_[tag + 2]
                          : ' ';
    push_data(tag, sign, type == '{');
    advance_to(tag);
    const size_t inside = tag + 2 + (sign == ' ' ? 0 : 1);
    if (type == '#') return skip_comment(inside);
    if (type == '%') {
      if (const auto end = end_of_raw_begin(inside)) return read_raw(*end);
    }
    push(type == '{' ? TokenKind::variable_begin : TokenKind::block_begin, "");
    advance_to(inside);
    read_tag(type == '{');
  }

  // The text before a tag at `end`, less the white space that the tag takes.
  void push_data(size_t end, char sign, bool variable) {
    std::string_view text = std::string_view(source_).substr(position_, end - position_);
    if (sign == '-') {
      text = text.substr(0, stripped_range(text, nullptr, false, true).second);
    } else if (sign != '+' && !variable) {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line > 0 || at_line_start()) &&
          stripped_range(text.substr(line), nullptr, true, false).first == text.size() - line)
        text = text.substr(0, line);
    }
    if (!text.empty()) push(TokenKind::data, std::string(text));
  }

  // After the end of a tag: its own newline goes with trim_blocks, all white space with "-".
  void close_tag(size_t begin, size_t end) {
    ended_with_newline_ = end > begin && source_[end - 1] == '\n';
    advance_to(end);
  }

  void skip_comment(size_t inside) {
    const size_t found = source_.find("#}", inside);
    if (inside == source_.size()) return advance_to(inside);  // nothing follows: Jinja lets it pass
    if (found == std::string::npos) syntax_error(line_, "a comment {# has no end #}");
    const char sign = found > inside ? source_[found - 1] : ' ';
    close_tag(found, end_of_block(found + 2, sign));
  }

  // Where text goes on after "%}" or "#}" that ends at `end`.
  size_t end_of_block(size_t end, char sign) const {
    if (sign == '-') return end_of_space(end);
    if (sign != '+' && end < source_.size() && source_[end] == '\n') return end + 1;
    return end;
  }

  std::optional<size_t> end_of_word(size_t position, std::string_view word) const {
    position = end_of_space(position);
    if (!std::string_view(source_).substr(position).starts_with(word)) return std::nullopt;
    return end_of_space(position + word.size());
  }

  // If a block tag is {% raw %}: where its text begins.
  std::optional<size_t> end_of_raw_begin(size_t inside) const {
    const auto end = end_of_word(inside, "raw");
    if (!end) return std::nullopt;
    const std::string_view text = std::string_view(source_).substr(*end);
    if (text.starts_with("-%}")) return end_of_space(*end + 3);
    if (text.starts_with("%}")) return *end + 2;
    return std::nullopt;
  }

  void read_raw(size_t begin) {
    const int line = line_;
    close_tag(position_, begin);
    if (begin == source_.size()) return;  // nothing follows: Jinja lets it pass
    for (size_t tag = begin; (tag = source_.find("{%", tag)) != std::string::npos; ++tag) {
      const size_t after = tag + 2;
      const char sign =
          after < source_.size() && (source_[after] == '-' || source_[after] == '+') ? source_[after] : ' ';
      const auto end = end_of_word(sign == ' ' ? after : after + 1, "endraw");
      if (!end) continue;
      const std::string_view text = std::string_view(source_).substr(*end);
      const bool signed_end = text.starts_with("-%}") || text.starts_with("+%}");
      if (!signed_end && !text.starts_with("%}")) continue;
      push_data(tag, sign, false);
      const size_t close = *end + (signed_end ? 3 : 2);
      return close_tag(tag, end_of_block(close, signed_end ? text[0] : ' '));
    }
    syntax_error(line, "{% raw %} has no {% endraw %}");
  }

  // The tokens of a tag, up to its end. Inside of brackets what looks like the end of the tag is none.
  void read_tag(bool variable) {
    std::string brackets;
    const int line = line_;
    while (position_ < source_.size()) {
      const size_t begin = position_;
      if (brackets.empty() && read_end(variable)) return;
      if (const size_t end = end_of_space(position_); end > position_) {
        advance_to(end);
        continue;
      }
      if (read_number() || read_name() || read_string()) continue;
      read_operator(brackets);
      if (position_ == begin) syntax_error(line_, "an internal error of the lexer");
    }
    syntax_error(line, variable ? "a print tag {{ has no end }}" : "a block tag {% has no end %}");
  }

  bool read_end(bool variable) {
    const std::string_view close = variable ? "}}" : "%}";
    const char sign = at("-") || (!variable && at("+")) ? source_[position_] : ' ';
    if (!rest().substr(sign == ' ' ? 0 : 1).starts_with(close)) return false;
    push(variable ? TokenKind::variable_end : TokenKind::block_end, "");
    const size_t end = position_ + (sign == ' ' ? 2 : 3);
    const size_t next = variable ? (sign == '-' ? end_of_space(end) : end) : end_of_block(end, sign);
    close_tag(position_, next);
    return true;
  }

  // Digits with single underscores between them.
  size_t end_of_digits(size_t position) const {
    const auto digit = [&](size_t i) { return i < source_.size() && is_ascii_digit(source_[i]); };
    if (!digit(position)) return position;
    while (digit(position) || (position < source_.size() && source_[position] == '_' && digit(position + 1)))
      ++position;
    return position;
  }

  bool push_number(TokenKind kind, size_t end) {
    std::string text(rest().substr(0, end - position_));
    std::erase(text, '_');
    push(kind, std::move(text));
    advance_to(end);
    return true;
  }

  bool read_number() {
    const size_t whole = end_of_digits(position_);
    if (whole == position_) return false;
    if (const size_t end = end_of_real(whole);
        end > whole && !(position_ > 0 && source_[position_ - 1] == '.'))
      return push_number(TokenKind::real, end);
    if (source_[position_] == '0' && position_ + 2 < source_.size()) {
      const char letter = static_cast<char>(source_[position_ + 1] | 0x20);
      const std::string_view digits = letter == 'x'   ? "0123456789abcdefABCDEF"
                                      : letter == 'o' ? "01234567"
                                      : letter == 'b' ? "01"
                                                      : "";
      size_t end = position_ + 2;
      const auto digit = [&](size_t i) {
        return i < source_.size() && digits.find(source_[i]) != std::string_view::npos;
      };
      while (digit(end) || (end < source_.size() && source_[end] == '_' && digit(end + 1))) ++end;
      if (end > position_ + 2) return push_number(TokenKind::integer, end);
    }
    if (source_[position_] != '0') return push_number(TokenKind::integer, whole);
    size_t zeros = position_;  // no leading zeros: "012" is 0 and 12
    while (zeros < whole && (source_[zeros] == '0' || (source_[zeros] == '_' && source_[zeros + 1] == '0')))
      ++zeros;
    return push_number(TokenKind::integer, zeros);
  }

  // The end of a float whose digits before the point end at `whole`; `whole` if it is none.
  size_t end_of_real(size_t whole) const {
    size_t end = whole;
    if (end < source_.size() && source_[end] == '.') {
      const size_t fraction = end_of_digits(end + 1);
      if (fraction > end + 1) end = fraction;
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t digits = end + 1;
      if (digits < source_.size() && (source_[digits] == '+' || source_[digits] == '-')) ++digits;
      const size_t exponent = end_of_digits(digits);
      if (exponent > digits) end = exponent;
    }
    return end;
  }

  bool read_name() {
    size_t end = position_;
    bool first = true, valid = true;
    while (end < source_.size()) {
      size_t next = end;
      const char32_t c = next_code_point(source_, next).value_or(0xFFFD);
      if (!is_word(c) && !(c >= 0x80 && is_identifier_part(c))) break;
      valid = valid && (first ? is_identifier_start(c) : is_identifier_part(c));
      first = false;
      end = next;
    }
    if (end == position_) return false;
    if (!valid) syntax_error(line_, "'" + std::string(rest().substr(0, end - position_)) + "' is no name");
    push(TokenKind::name, std::string(rest().substr(0, end - position_)));
    advance_to(end);
    return true;
  }

  bool read_string() {
    const char quote = source_[position_];
    if (quote != '"' && quote != '\'') return false;
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) syntax_error(line_, "a string has no end");
    push(TokenKind::string, unescape(rest().substr(1, end - position_ - 1)));
    advance_to(end + 1);
    return true;
  }

  std::string unescape(std::string_view text) const {
    std::string result;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 == text.size()) {
        result += text[i];
        continue;
      }
      const char c = text[++i];
      constexpr std::string_view kNames = "abfnrtv\\'\"", kBytes = "\a\b\f\n\r\t\v\\'\"";
      if (const size_t named = kNames.find(c); named != std::string_view::npos) {
        result += kBytes[named];
      } else if (c >= '0' && c <= '7') {
        char32_t value = 0;
        size_t digits = 0;
        for (; digits < 3 && i + digits < text.size() && text[i + digits] >= '0' && text[i + digits] <= '7';
             ++digits)
          value = value * 8 + static_cast<char32_t>(text[i + digits] - '0');
        append_utf8(result, value);
        i += digits - 1;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        append_utf8(result, hexadecimal(text.substr(std::min(i + 1, text.size())), digits));
        i += digits;
      } else if (c == 'N') {
        syntax_error(line_, "characters by name (\\N{...}) are not supported");
      } else if (c != '\n') {  // an escaped newline is none; other escapes mean themselves
        result += '\\';
        result += c;
      }
    }
    return result;
  }

  char32_t hexadecimal(std::string_view text, size_t digits) const {
    uint64_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char c = i < text.size() ? static_cast<char>(text[i] | (text[i] >= 'A' ? 0x20 : 0)) : '?';
      const bool letter = c >= 'a' && c <= 'f';
      if (!letter && !is_ascii_digit(c)) syntax_error(line_, "a string has a cut off \\x, \\u or \\U escape");
      value = value * 16 + static_cast<uint64_t>(letter ? c - 'a' + 10 : c - '0');
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
      syntax_error(line_, "a string escape names no Unicode character");
    return static_cast<char32_t>(value);
  }

  void read_operator(std::string& brackets) {
    constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                               "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                               ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!at(op)) continue;
      if (op == "(") brackets += ')';
      if (op == "[") brackets += ']';
      if (op == "{") brackets += '}';
      if (op == ")" || op == "]" || op == "}") {
        if (brackets.empty() || brackets.back() != op[0]) {
          syntax_error(line_, brackets.empty() ? "unexpected '" + std::string(op) + "'"
                                               : "unexpected '" + std::string(op) + "', expected '" +
                                                     brackets.back() + "'");
        }
        brackets.pop_back();
      }
      push(TokenKind::op, std::string(op));
      advance_to(position_ + op.size());
      return;
    }
    size_t next = position_;
    next_code_point(source_, next);
    syntax_error(line_, "unexpected character '" + source_.substr(position_, next - position_) + "'");
  }

  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool ended_with_newline_ = false;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace qkv::jinja
