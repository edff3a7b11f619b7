#include "qkv/engine/grammar/json_numbers.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <utility>
#include <vector>

namespace qkv {
namespace {

constexpr int64_t kOpenDigits = 16;
constexpr int64_t kOpenLimit = 9'999'999'999'999'999;
constexpr size_t kDoubleDigits = 15;

ExpressionId digit(GrammarBuilder& builder, char from, char to) {
  return builder.characters(CharacterSet({{static_cast<char32_t>(from), static_cast<char32_t>(to)}}));
}

ExpressionId digits(GrammarBuilder& builder, int64_t minimum, int64_t maximum) {
  return builder.repeat(digit(builder, '0', '9'), minimum, maximum);
}

// Numbers of as many digits as both bounds have.
ExpressionId same_length(GrammarBuilder& builder, std::string_view low, std::string_view high) {
  const auto count = static_cast<int64_t>(low.size());
  if (low.find_first_not_of('0') == std::string_view::npos &&
      high.find_first_not_of('9') == std::string_view::npos)
    return digits(builder, count, count);
  const char first = low[0], last = high[0];
  if (first == last)
    return builder.sequence(
        {digit(builder, first, first), same_length(builder, low.substr(1), high.substr(1))});
  const std::string zeros(low.size() - 1, '0'), nines(low.size() - 1, '9');
  std::vector<ExpressionId> ways = {
      builder.sequence({digit(builder, first, first), same_length(builder, low.substr(1), nines)})};
  if (last - first > 1)
    ways.push_back(
        builder.sequence({digit(builder, static_cast<char>(first + 1), static_cast<char>(last - 1)),
                          digits(builder, count - 1, count - 1)}));
  ways.push_back(builder.sequence({digit(builder, last, last), same_length(builder, zeros, high.substr(1))}));
  return builder.choice(std::move(ways));
}

// Nothing if low > high.
ExpressionId between(GrammarBuilder& builder, uint64_t low, uint64_t high) {
  std::vector<ExpressionId> ways;
  for (uint64_t begin = 0, end = 9; low <= high;
       begin = end + 1, end = end * 10 + 9) {  // 0-9, 10-99, 100-999, ...
    const uint64_t from = std::max(low, begin), to = std::min(high, end);
    if (from <= to) ways.push_back(same_length(builder, std::to_string(from), std::to_string(to)));
    if (high <= end) break;
  }
  return builder.choice(std::move(ways));
}

uint64_t magnitude(int64_t value) {
  return value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
}

// The digits behind the point of numbers whose digits before it are those of the bounds that are given.
class Fraction {
 public:
  Fraction(GrammarBuilder& builder, size_t length) : builder_(builder), length_(length) {}

  // With the point, or nothing at all where that is within the bounds.
  ExpressionId within(const DecimalBound* low, const DecimalBound* high) {
    std::vector<ExpressionId> ways = {
        builder_.sequence({builder_.text("."), further({low, 0}, {high, 0}, length_)})};
    if (may_stop({low, 0}, {high, 0})) ways.push_back(builder_.sequence({}));
    return builder_.choice(std::move(ways));
  }

 private:
  // A bound whose digits up to a position are those of the number.
  struct Edge {
    const DecimalBound* bound;  // null: the number is away from it
    size_t position;
    bool over() const { return position >= bound->fraction.size(); }
    char next() const { return over() ? '0' : bound->fraction[position]; }
  };

  static bool may_stop(Edge low, Edge high) {
    const bool above = low.bound == nullptr || (low.over() && !low.bound->excluded);
    const bool below = high.bound == nullptr || !high.over() || !high.bound->excluded;
    return above && below;
  }

  // At least one digit.
  ExpressionId further(Edge low, Edge high, size_t left) {
    if (left == 0) return builder_.choice({});
    if (low.bound == nullptr && high.bound == nullptr) return digits(builder_, 1, static_cast<int64_t>(left));
    const char first = low.bound != nullptr ? low.next() : '0',
               last = high.bound != nullptr ? high.next() : '9';
    std::vector<ExpressionId> ways;
    const auto add = [&](char from, char to, Edge low_after, Edge high_after) {
      std::vector<ExpressionId> rest = {further(low_after, high_after, left - 1)};
      if (may_stop(low_after, high_after)) rest.push_back(builder_.sequence({}));
      ways.push_back(builder_.sequence({digit(builder_, from, to), builder_.choice(std::move(rest))}));
    };
    const Edge free = {nullptr, 0}, low_next = {low.bound, low.position + 1},
               high_next = {high.bound, high.position + 1};
    if (first == last) {
      add(first, last, low_next, high_next);
    } else if (first < last) {
      const char inner_first = low.bound != nullptr ? static_cast<char>(first + 1) : first;
      const char inner_last = high.bound != nullptr ? static_cast<char>(last - 1) : last;
      if (low.bound != nullptr) add(first, first, low_next, free);
      if (inner_first <= inner_last) add(inner_first, inner_last, free, free);
      if (high.bound != nullptr) add(last, last, free, high_next);
    }
    return builder_.choice(std::move(ways));
  }

  GrammarBuilder& builder_;
  size_t length_;
};

// Numbers without a sign.
ExpressionId magnitudes(GrammarBuilder& builder, const DecimalBound& low,
                        const std::optional<DecimalBound>& high) {
  const size_t before = std::max(low.whole.size(), high ? high->whole.size() : 0);
  Fraction fraction(builder, kDoubleDigits - std::min(before, kDoubleDigits));
  const auto from = static_cast<uint64_t>(std::stoull(low.whole));
  const uint64_t to = high ? std::stoull(high->whole) : kOpenLimit + uint64_t{1};
  if (from > to) return builder.choice({});
  if (from == to) return builder.sequence({builder.text(low.whole), fraction.within(&low, &*high)});
  std::vector<ExpressionId> ways = {
      builder.sequence({builder.text(low.whole), fraction.within(&low, nullptr)}),
      builder.sequence({between(builder, from + 1, to - 1), fraction.within(nullptr, nullptr)})};
  if (high) ways.push_back(builder.sequence({builder.text(high->whole), fraction.within(nullptr, &*high)}));
  return builder.choice(std::move(ways));
}

}  // namespace

std::optional<DecimalBound> decimal_bound(std::string_view spelling, bool excluded) {
  DecimalBound bound;
  bound.excluded = excluded;
  bound.negative = spelling.starts_with('-');
  if (bound.negative) spelling.remove_prefix(1);
  int exponent = 0;
  if (const size_t place = spelling.find_first_of("eE"); place != std::string_view::npos) {
    std::string_view digits = spelling.substr(place + 1);
    if (digits.starts_with('+')) digits.remove_prefix(1);
    const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), exponent);
    if (code != std::errc() || std::abs(exponent) > 30) return std::nullopt;
    spelling = spelling.substr(0, place);
  }
  const size_t point = std::min(spelling.find('.'), spelling.size());
  std::string all(spelling.substr(0, point));
  if (point < spelling.size()) all += spelling.substr(point + 1);
  auto places = static_cast<int>(point) + exponent;  // digits before the point
  for (; places < 1; ++places) all.insert(all.begin(), '0');
  while (static_cast<int>(all.size()) < places) all += '0';
  bound.whole = all.substr(0, static_cast<size_t>(places));
  bound.fraction = all.substr(static_cast<size_t>(places));
  bound.whole.erase(0, std::min(bound.whole.find_first_not_of('0'), bound.whole.size() - 1));
  while (bound.fraction.ends_with('0')) bound.fraction.pop_back();
  if (bound.whole.size() + bound.fraction.size() > kDoubleDigits) return std::nullopt;
  return bound;
}

ExpressionId add_json_number(GrammarBuilder& builder) {
  const ExpressionId whole = builder.choice(
      {builder.text("0"), builder.sequence({digit(builder, '1', '9'), digits(builder, 0, kOpenDigits - 1)})});
  const ExpressionId fraction = builder.sequence({builder.text("."), digits(builder, 1, kOpenDigits)});
  const ExpressionId exponent =
      builder.sequence({builder.characters(CharacterSet::of("eE")),
                        builder.optional(builder.characters(CharacterSet::of("+-"))), digits(builder, 1, 2)});
  return builder.sequence(
      {builder.optional(builder.text("-")), whole, builder.optional(fraction), builder.optional(exponent)});
}

ExpressionId add_json_number(GrammarBuilder& builder, const std::optional<DecimalBound>& minimum,
                             const std::optional<DecimalBound>& maximum) {
  const DecimalBound zero = {.negative = false, .whole = "0", .fraction = "", .excluded = false};
  std::vector<ExpressionId> ways;
  if (!maximum || !maximum->negative)
    ways.push_back(magnitudes(builder, minimum && !minimum->negative ? *minimum : zero, maximum));
  if (!minimum || minimum->negative) {
    // Zero has no sign.
    DecimalBound nearest = maximum && maximum->negative ? *maximum : zero;
    if (!maximum || !maximum->negative) nearest.excluded = true;
    ways.push_back(builder.sequence({builder.text("-"), magnitudes(builder, nearest, minimum)}));
  }
  return builder.choice(std::move(ways));
}

ExpressionId add_json_integer(GrammarBuilder& builder, std::optional<int64_t> minimum,
                              std::optional<int64_t> maximum) {
  constexpr int64_t kLow = std::numeric_limits<int64_t>::min(), kHigh = std::numeric_limits<int64_t>::max();
  // An open side ends at 16 digits, or beyond where the bound of the other side is longer.
  const int64_t low = minimum.value_or(maximum && *maximum < -kOpenLimit ? kLow : -kOpenLimit);
  const int64_t high = maximum.value_or(minimum && *minimum > kOpenLimit ? kHigh : kOpenLimit);
  std::vector<ExpressionId> ways;
  if (low <= high && high >= 0)
    ways.push_back(between(builder, magnitude(std::max<int64_t>(low, 0)), magnitude(high)));
  if (low <= high && low < 0)
    ways.push_back(builder.sequence(
        {builder.text("-"), between(builder, magnitude(std::min<int64_t>(high, -1)), magnitude(low))}));
  return builder.choice(std::move(ways));
}

}  // namespace qkv
