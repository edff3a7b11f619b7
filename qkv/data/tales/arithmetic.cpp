// Problems, their keys and their worked steps: the column method for sums and differences, skip counting for
// products.
#include "qkv/data/tales/arithmetic.h"

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/data/tales/questions.h"
#include "qkv/data/tales/words.h"

namespace qkv::tales {
namespace {

struct Operands {
  int a = 0;
  int b = 0;
};

std::string text(int number) {
  return std::to_string(number);
}

std::string pair_key(std::string_view relation, int a, int b) {
  return make_key(relation, text(std::min(a, b)), text(std::max(a, b)));
}

template <typename Make>
Operands draw_sum(Draw& draw, Make&& make) {
  return draw.until_wanted(make, [](Operands o) { return pair_key("sum", o.a, o.b); });
}

Question problem(std::string_view passage, std::string_view asked, std::string steps, std::string answer,
                 int answers) {
  Question question;
  question.prompt = question_prompt(passage, asked);
  question.completion = std::move(steps);
  if (!question.completion.empty()) question.completion += ' ';
  question.completion += "The answer is " + answer + ".";
  question.numeric = answer.find_first_not_of("0123456789") == std::string::npos;
  question.accepted = {answer};
  question.answer = std::move(answer);
  question.chance = 1.0 / answers;
  return question;
}

std::string equation(int a, char sign, int b, int result) {
  return fmt::format("{} {} {} = {}.", a, sign, b, result);
}

// "7 + 8 = 15, write 5 carry 1. 4 + 3 + 1 = 8."
std::string sum_steps(int a, int b) {
  if (a < 10 && b < 10) return equation(a, '+', b, a + b);
  const int ones = a % 10 + b % 10;
  const int tens = a / 10 + b / 10 + ones / 10;
  return ones < 10 ? fmt::format("{} + {} = {}, write {}. {} + {} = {}.", a % 10, b % 10, ones, ones, a / 10,
                                 b / 10, tens)
                   : fmt::format("{} + {} = {}, write {} carry 1. {} + {} + 1 = {}.", a % 10, b % 10, ones,
                                 ones % 10, a / 10, b / 10, tens);
}

// "2 is less than 8, borrow 1. 12 - 8 = 4, write 4. 5 - 3 - 1 = 1."
std::string difference_steps(int a, int b) {
  if (b < 10 && a - b < 10) return equation(a, '-', b, a - b);
  const int over = a % 10, under = b % 10;
  if (over >= under) {
    return fmt::format("{} - {} = {}, write {}. {} - {} = {}.", over, under, over - under, over - under,
                       a / 10, b / 10, a / 10 - b / 10);
  }
  return fmt::format("{} is less than {}, borrow 1. {} - {} = {}, write {}. {} - {} - 1 = {}.", over, under,
                     over + 10, under, over + 10 - under, over + 10 - under, a / 10, b / 10,
                     a / 10 - b / 10 - 1);
}

// "4, 8, 12."
std::string product_steps(int a, int b) {
  std::string steps;
  for (int i = 1; i <= a; ++i) steps += (i > 1 ? ", " : "") + text(i * b);
  return steps + ".";
}

Operands digits(Rng& rng) {
  return {between(rng, 0, 9), between(rng, 0, 9)};
}
// At least one of two digits, sum below 100.
Operands two_digits(Rng& rng) {
  for (;;) {
    Operands o{between(rng, 1, 89), between(rng, 1, 89)};
    if (std::max(o.a, o.b) >= 10 && o.a + o.b < 100) return o;
  }
}
std::string operation(int a, char sign, int b) {
  return fmt::format("What is {} {} {}?", a, sign, b);
}

Question add_one_digit(Draw& draw) {
  const auto [a, b] = draw_sum(draw, [&] { return digits(draw.rng); });
  return problem("", operation(a, '+', b), sum_steps(a, b), text(a + b), 19);
}

Question add_two_digits(Draw& draw) {
  const auto [a, b] = draw_sum(draw, [&] { return two_digits(draw.rng); });
  return problem("", operation(a, '+', b), sum_steps(a, b), text(a + b), 89);
}

Question subtract_one_digit(Draw& draw) {
  const auto [b, rest] = draw_sum(draw, [&] { return digits(draw.rng); });
  return problem("", operation(b + rest, '-', b), difference_steps(b + rest, b), text(rest), 10);
}

Question subtract_two_digits(Draw& draw) {
  const auto [b, rest] = draw_sum(draw, [&] { return two_digits(draw.rng); });
  return problem("", operation(b + rest, '-', b), difference_steps(b + rest, b), text(rest), 89);
}

Question multiply(Draw& draw) {
  const auto [a, b] = draw.until_wanted(
      [&] {
        return Operands{between(draw.rng, 2, 9), between(draw.rng, 2, 9)};
      },
      [](Operands o) { return pair_key("times", o.a, o.b); });
  return problem("", operation(a, 'x', b), product_steps(a, b), text(a * b), 36);
}

Question add_three(Draw& draw) {
  struct Three {
    int n[3];
  };
  const auto [n] = draw.until_wanted(
      [&] {
        return Three{{between(draw.rng, 1, 9), between(draw.rng, 1, 9), between(draw.rng, 1, 9)}};
      },
      [](Three three) {
        std::sort(std::begin(three.n), std::end(three.n));
        return make_key("sum", text(three.n[0]), text(three.n[1]), text(three.n[2]));
      });
  return problem(
      "", fmt::format("What is {} + {} + {}?", n[0], n[1], n[2]),
      equation(n[0], '+', n[1], n[0] + n[1]) + " " + equation(n[0] + n[1], '+', n[2], n[0] + n[1] + n[2]),
      text(n[0] + n[1] + n[2]), 25);
}

Question compare(Draw& draw) {
  const auto [a, b] = draw.until_wanted(
      [&] {
        Operands o{between(draw.rng, 1, 99), between(draw.rng, 1, 99)};
        if (o.a == o.b) o.a = o.b % 99 + 1;
        return o;
      },
      [](Operands o) { return pair_key("compare", o.a, o.b); });
  const bool bigger = chance(draw.rng, 50);
  const int answer = bigger ? std::max(a, b) : std::min(a, b);
  const int other = a + b - answer;
  return problem("", fmt::format("Which is {}, {} or {}?", bigger ? "bigger" : "smaller", a, b),
                 fmt::format("{} is {} than {}.", answer, bigger ? "bigger" : "smaller", other), text(answer),
                 2);
}

Question next_number(Draw& draw) {
  struct Step {
    int number;
    bool after;
  };
  const auto step = draw.until_wanted(
      [&] {
        return Step{between(draw.rng, 1, 98), chance(draw.rng, 50)};
      },
      [](Step s) { return make_key(s.after ? "after" : "before", text(s.number)); });
  return problem("", fmt::format("What number comes {} {}?", step.after ? "after" : "before", step.number),
                 "", text(step.number + (step.after ? 1 : -1)), 99);
}

Question pattern(Draw& draw) {
  const auto [start, step] = draw.until_wanted(
      [&] {
        return Operands{between(draw.rng, 0, 20), between(draw.rng, 1, 5)};
      },
      [](Operands o) { return make_key("pattern", text(o.a), text(o.b)); });
  const int next = start + 3 * step;
  return problem("", fmt::format("What comes next: {}, {}, {}?", start, start + step, start + 2 * step),
                 equation(start + 2 * step, '+', step, next), text(next), 36);
}

Question count_words(Draw& draw) {
  struct Row {
    const Item* item;
    int count;
  };
  const auto row = draw.until_wanted(
      [&] {
        return Row{&(chance(draw.rng, 50) ? pick(foods(), draw.rng) : pick(items(), draw.rng)),
                   between(draw.rng, 1, 9)};
      },
      [](Row r) { return make_key("count", r.item->noun, text(r.count)); });
  std::string listed, steps;
  for (int i = 1; i <= row.count; ++i) {
    listed += " " + row.item->noun;
    steps += (i > 1 ? ", " : "") + text(i);
  }
  return problem("", "Count the " + row.item->plural + ":" + listed, steps + ".", text(row.count), 9);
}

Question parity(Draw& draw) {
  const int number = draw.until_wanted([&] { return between(draw.rng, 10, 99); },
                                       [](int n) { return make_key("parity", text(n)); });
  const std::string answer = number % 2 == 0 ? "even" : "odd";
  return problem("", fmt::format("Is {} even or odd?", number),
                 fmt::format("{} ends in {}, and {} is {}.", number, number % 10, number % 10, answer),
                 answer, 2);
}

// ---- problems in words ----

struct WordScene {
  Bindings names;
  Person hero;
  const Item* item;
};

WordScene word_scene(Draw& draw) {
  const auto who = draw_people(draw.rng, 2);
  WordScene scene{
      {}, who[0], &(chance(draw.rng, 70) ? pick(foods(), draw.rng) : pick(items_with(kSmall), draw.rng))};
  bind_person(scene.names, 0, who[0]);
  bind_person(scene.names, 1, who[1]);
  scene.names.set("items", scene.item->plural);
  return scene;
}

Operands word_operands(Draw& draw, int high) {
  return draw_sum(draw, [&] { return Operands{between(draw.rng, 2, high), between(draw.rng, 2, high)}; });
}

std::string how_many_now(const WordScene& scene) {
  return "How many " + scene.item->plural + " does " + scene.hero.name + " have now?";
}

Question word_add(Draw& draw) {
  WordScene scene = word_scene(draw);
  const auto [a, b] = word_operands(draw, chance(draw.rng, 60) ? 9 : 30);
  scene.names.set("a", text(a)).set("b", text(b));
  const std::string story = render(
      "{H} had {a} {items}. [{F} gave {h.him} {b} more.|{H.he} found {b} more.|{H.he} bought {b} more.]",
      scene.names, draw.rng);
  return problem(story, how_many_now(scene), sum_steps(a, b), text(a + b), 57);
}

Question word_subtract(Draw& draw) {
  WordScene scene = word_scene(draw);
  const auto [b, rest] = word_operands(draw, chance(draw.rng, 60) ? 9 : 30);
  scene.names.set("a", text(b + rest)).set("b", text(b));
  const bool food = (scene.item->tags & kFood) != 0;
  const std::string story = render(
      food ? "{H} had {a} {items}. [{H.he} gave {b} to {f}.|{H.he} ate {b} of them.|{H.he} lost {b} of them.]"
           : "{H} had {a} {items}. [{H.he} gave {b} to {f}.|{H.he} sold {b} of them.|{H.he} lost {b} of "
             "them.]",
      scene.names, draw.rng);
  return problem(story, how_many_now(scene), difference_steps(b + rest, b), text(rest), 29);
}

Question word_times(Draw& draw) {
  WordScene scene = word_scene(draw);
  const auto [a, b] = draw.until_wanted(
      [&] {
        return Operands{between(draw.rng, 2, 9), between(draw.rng, 2, 9)};
      },
      [](Operands o) { return pair_key("times", o.a, o.b); });
  const std::string box = chance(draw.rng, 50) ? "box" : "bag";
  scene.names.set("a", text(a))
      .set("b", text(b))
      .set("box", box)
      .set("boxes", box == "box" ? "boxes" : "bags");
  const std::string story =
      render("{H} has {a} {boxes}. There are {b} {items} in each {box}.", scene.names, draw.rng);
  return problem(story, "How many " + scene.item->plural + " does " + scene.hero.name + " have?",
                 product_steps(a, b), text(a * b), 36);
}

Question word_more(Draw& draw) {
  WordScene scene = word_scene(draw);
  const auto [b, rest] = word_operands(draw, 9);
  scene.names.set("a", text(b + rest)).set("b", text(b));
  const std::string story = render("{H} has {a} {items}. {F} has {b} {items}.", scene.names, draw.rng);
  return problem(story, render("How many more {items} does {h} have than {f}?", scene.names, draw.rng),
                 difference_steps(b + rest, b), text(rest), 8);
}

struct ArithmeticKind {
  QuestionKind kind;
  Question (*make)(Draw&);
  uint32_t weight;
};

const std::vector<ArithmeticKind>& kinds() {
  static const std::vector<ArithmeticKind> all = {
      {{"add_one_digit", "the sum of two digits", 1, true}, add_one_digit, 3},
      {{"add_two_digits", "a sum below 100, worked in columns", 3, true}, add_two_digits, 5},
      {{"subtract_one_digit", "a difference of one digit", 2, true}, subtract_one_digit, 3},
      {{"subtract_two_digits", "a difference below 100, worked in columns", 3, true}, subtract_two_digits, 4},
      {{"multiply", "a product of two digits, by skip counting", 2, true}, multiply, 2},
      {{"add_three", "the sum of three digits", 3, true}, add_three, 2},
      {{"compare", "the bigger or smaller of two numbers below 100", 1, true}, compare, 2},
      {{"next_number", "the number before or after one below 100", 2, true}, next_number, 2},
      {{"pattern", "the next number of three with equal steps", 3, true}, pattern, 2},
      {{"count", "how often a word is repeated, up to nine", 2, true}, count_words, 2},
      {{"parity", "whether a number is even or odd", 1, true}, parity, 1},
      {{"word_add", "a sum told as a story", 3, true}, word_add, 2},
      {{"word_subtract", "a difference told as a story", 3, true}, word_subtract, 2},
      {{"word_times", "a product told as a story", 3, true}, word_times, 1},
      {{"word_more", "how many more one person has", 3, true}, word_more, 1},
  };
  return all;
}

}  // namespace

const std::vector<QuestionKind>& arithmetic_kinds() {
  static const auto all = [] {
    std::vector<QuestionKind> names;
    for (const auto& entry : kinds()) names.push_back(entry.kind);
    return names;
  }();
  return all;
}

Question make_arithmetic(Draw& draw, std::string_view kind) {
  uint32_t total = 0;
  for (const auto& entry : kinds()) total += kind.empty() || entry.kind.name == kind ? entry.weight : 0;
  require(total > 0, "[tales] no arithmetic of kind '{}'", kind);
  uint64_t at = draw.rng.below(total);
  for (const auto& entry : kinds()) {
    if (!kind.empty() && entry.kind.name != kind) continue;
    if (at < entry.weight) {
      Question question = entry.make(draw);
      question.kind = entry.kind.name;
      question.keys = draw.keys;
      return question;
    }
    at -= entry.weight;
  }
  fail("[tales] no arithmetic drawn");
}

}  // namespace qkv::tales
