// The kinds of instructions.
#include "qkv/data/tales/instructions.h"

#include <algorithm>
#include <iterator>

#include "qkv/core/error.h"
#include "qkv/data/tales/arithmetic.h"
#include "qkv/data/tales/stories.h"
#include "qkv/data/tales/words.h"

namespace qkv::tales {
namespace {

Instruction tell_story(Draw& draw) {
  Story story = make_story(draw);
  Instruction result;
  Bindings b;
  b.set("subject", story.subject);
  result.prompt = render("[Tell|Write] a short story about {subject}.", b, draw.rng);
  result.completion = std::move(story.text);
  result.required = std::move(story.required);
  return result;
}

Instruction sentence_with_words(Draw& draw) {
  struct Words {
    Person who;
    const Item* item;
    const Place* place;
  };
  Rng& rng = draw.rng;
  const auto words = draw.until_wanted(
      [&] {
        return Words{pick(people(), rng), &pick(items(), rng), &pick(places(), rng)};
      },
      [](const Words& w) { return make_key("sentence", w.who.name, w.item->noun, w.place->noun); });
  Bindings b;
  bind_person(b, 0, words.who);
  b.set("noun", words.item->noun).set("place", words.place->noun).set("in", words.place->in);
  const std::string& colour = pick(colours(), rng);
  b.set("col", colour).set("thing", colour + " " + words.item->noun);
  Instruction result;
  const int form = between(rng, 0, 2);
  static constexpr const char* kPrompts[] = {"{h}, {noun} and {place}", "{col}, {noun} and {place}",
                                             "{h}, {col} and {noun}"};
  static constexpr const char* kSentences[] = {
      "[{H} took the {noun} to the {place}.|{H} found {a noun} {in}.|{H} lost {h.his} {noun} {in}.]",
      "[The {thing} was {in}.|{H} saw {a thing} {in}.|There is {a thing} {in}.]",
      "[{H} has {a thing}.|{H} likes the {thing}.|{H} gave me {a thing}.]"};
  result.prompt =
      render(std::string("Write [one|a] sentence with the words ") + kPrompts[form] + ".", b, rng);
  result.completion = render(kSentences[form], b, rng);
  if (form != 1) result.required.push_back(words.who.name);
  if (form != 0) result.required.push_back(colour);
  result.required.push_back(words.item->noun);
  if (form != 2) result.required.push_back(words.place->noun);
  return result;
}

struct Category {
  const char* what;  // "animals that can fly"
  const char* members;
};
constexpr Category kCategories[] = {
    {"animals that can fly", "owl bat bee crow eagle butterfly"},
    {"animals that live in water", "fish whale frog duck otter crab"},
    {"animals that live on a farm", "cow pig hen sheep goat horse"},
    {"animals that live in the forest", "fox bear deer wolf owl squirrel"},
    {"big animals", "elephant whale bear lion horse cow"},
    {"small animals", "mouse bee ant frog hamster spider"},
    {"animals with four legs", "dog cat horse cow fox lion"},
    {"fruits", "apple pear plum peach lemon banana cherry melon"},
    {"vegetables", "carrot potato onion bean pea cabbage"},
    {"colours", "red blue green yellow white black brown pink"},
    {"days of the week", "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"},
    {"months", "January March April June July August October December"},
    {"things you can wear", "hat coat scarf cap shirt belt"},
    {"things in a kitchen", "plate cup bowl spoon stove table"},
    {"things you can read", "book letter map card sign newspaper"},
    {"things that make music", "drum flute bell piano guitar whistle"},
    {"things that are round", "ball ring coin wheel plate button"},
    {"things that are cold", "ice snow rain winter frost"},
    {"things you can drink", "water milk tea juice lemonade"},
    {"jobs", "baker farmer teacher doctor pilot cook nurse sailor"},
    {"toys", "ball kite doll puzzle train robot"},
    {"parts of the body", "hand foot nose ear arm leg"},
    {"things in the sky", "sun moon star cloud rainbow bird"},
    {"things you can ride", "horse bike train bus scooter pony"},
};
constexpr const char* kNumberWords[] = {"zero", "one", "two", "three", "four"};

Instruction list(Draw& draw) {
  struct Wanted {
    const Category* category;
    int count;
  };
  const auto wanted = draw.until_wanted(
      [&] {
        return Wanted{&kCategories[draw.rng.below(std::size(kCategories))], between(draw.rng, 2, 4)};
      },
      [](Wanted w) { return make_key("list", w.category->what, std::to_string(w.count)); });
  Instruction result;
  Bindings b;
  b.set("n", kNumberWords[wanted.count]).set("what", wanted.category->what);
  result.prompt = render("[List|Name] {n} {what}.", b, draw.rng);
  result.list_members = split_words(wanted.category->members);
  result.list_count = wanted.count;
  auto shuffled = result.list_members;
  shuffle(shuffled, draw.rng);
  shuffled.resize(wanted.count);
  result.completion = capitalized(enumerated(shuffled)) + ".";
  return result;
}

constexpr const char* kOpposites[][2] = {
    {"hot", "cold"},   {"big", "small"},   {"fast", "slow"},   {"happy", "sad"},   {"old", "new"},
    {"light", "dark"}, {"full", "empty"},  {"wet", "dry"},     {"high", "low"},    {"hard", "soft"},
    {"early", "late"}, {"open", "closed"}, {"clean", "dirty"}, {"strong", "weak"}, {"loud", "quiet"},
    {"long", "short"}, {"rich", "poor"},   {"thick", "thin"},  {"near", "far"},    {"up", "down"},
    {"left", "right"}, {"day", "night"},   {"good", "bad"},    {"first", "last"},  {"win", "lose"},
    {"push", "pull"},  {"begin", "end"},   {"laugh", "cry"},   {"above", "below"}, {"inside", "outside"},
};

Instruction opposite(Draw& draw) {
  struct Pair {
    std::string word, answer;
  };
  const auto pair = draw.until_wanted(
      [&] {
        const auto& words = kOpposites[draw.rng.below(std::size(kOpposites))];
        const int from = between(draw.rng, 0, 1);
        return Pair{words[from], words[1 - from]};
      },
      [](const Pair& p) { return make_key("opposite", p.word); });
  Instruction result;
  Bindings b;
  b.set("word", pair.word);
  result.prompt =
      render("[What is the opposite of|Name the opposite of|Give the opposite of] {word}", b, draw.rng);
  result.prompt += result.prompt.starts_with("What") ? "?" : ".";
  result.completion = "The opposite of " + pair.word + " is " + pair.answer + ".";
  result.accepted = {result.completion, pair.answer};
  return result;
}

Instruction plural(Draw& draw) {
  struct Word {
    std::string one, many;
  };
  const auto word = draw.until_wanted(
      [&] {
        switch (draw.rng.below(3)) {
          case 0: {
            const Animal& animal = pick(characters(), draw.rng);
            return Word{animal.noun, animal.plural};
          }
          case 1: {
            const Item& item = pick(items(), draw.rng);
            return Word{item.noun, item.plural};
          }
          default: {
            const Item& food = pick(foods(), draw.rng);
            return Word{food.noun, food.plural};
          }
        }
      },
      [](const Word& w) { return make_key("plural", w.one); });
  Instruction result;
  Bindings b;
  b.set("one", word.one);
  result.prompt =
      render("[What is the plural of {one}?|Write the plural of {one}.|One {one}, two ...]", b, draw.rng);
  result.completion = word.many;
  result.accepted = {word.many, "two " + word.many, "the plural of " + word.one + " is " + word.many};
  return result;
}

// Verbs with what may follow: {place}, {thing}, {food}.
struct Verb {
  const char* present;
  const char* past;
  const char* rest;
};
constexpr Verb kVerbs[] = {
    {"walks", "walked", "to the {place}"},
    {"runs", "ran", "to the {place}"},
    {"goes", "went", "to the {place}"},
    {"finds", "found", "{a thing}"},
    {"loses", "lost", "the {thing}"},
    {"buys", "bought", "{a thing}"},
    {"sees", "saw", "{a thing}"},
    {"takes", "took", "the {thing}"},
    {"makes", "made", "{a thing}"},
    {"has", "had", "{a thing}"},
    {"likes", "liked", "the {thing}"},
    {"holds", "held", "the {thing}"},
    {"eats", "ate", "{a food}"},
    {"cooks", "cooked", "the {foods}"},
    {"sells", "sold", "{foods}"},
    {"brings", "brought", "{a food}"},
    {"cuts", "cut", "the {food}"},
    {"washes", "washed", "the {foods}"},
    {"sings", "sang", "{in}"},
    {"sleeps", "slept", "{in}"},
    {"plays", "played", "{in}"},
    {"waits", "waited", "{in}"},
    {"sits", "sat", "{in}"},
    {"works", "worked", "{in}"},
    {"looks", "looked", "at the {thing}"},
    {"thinks", "thought", "of the {place}"},
    {"writes", "wrote", "about the {place}"},
};

struct Simple {
  std::string name, present, past, rest;
};

Simple simple_sentence(Draw& draw, std::string_view relation) {
  return draw.until_wanted(
      [&] {
        const auto& verb = kVerbs[draw.rng.below(std::size(kVerbs))];
        Bindings b;
        const Place& place = pick(places(), draw.rng);
        const Item& food = pick(foods(), draw.rng);
        b.set("place", place.noun).set("in", place.in).set("food", food.noun).set("foods", food.plural);
        const std::string& colour = pick(colours(), draw.rng);
        b.set("thing", colour + " " + pick(items(), draw.rng).noun);
        return Simple{pick(people(), draw.rng).name, verb.present, verb.past, render(verb.rest, b, draw.rng)};
      },
      [&](const Simple& s) { return make_key(relation, s.name, s.past, s.rest); });
}

Instruction past_tense(Draw& draw) {
  const Simple s = simple_sentence(draw, "past");
  Instruction result;
  Bindings b;
  b.set("sentence", s.name + " " + s.present + " " + s.rest + ".");
  result.prompt = render("[Rewrite in the past tense|Say this in the past tense]: {sentence}", b, draw.rng);
  result.completion = s.name + " " + s.past + " " + s.rest + ".";
  result.accepted = {result.completion};
  return result;
}

Instruction word_order(Draw& draw) {
  const Simple s = simple_sentence(draw, "order");
  const std::string sentence = s.name + " " + s.past + " " + s.rest;
  const auto words = split_words(sentence);
  auto mixed = words;
  while (mixed == words) shuffle(mixed, draw.rng);
  Instruction result;
  result.prompt = "Put these words in order:";
  for (const auto& word : mixed) result.prompt += " " + word;
  result.completion = sentence + ".";
  result.accepted = {result.completion};
  return result;
}

Instruction count_sentence_words(Draw& draw) {
  const Simple s = simple_sentence(draw, "words");
  const std::string sentence = s.name + " " + s.past + " " + s.rest;
  Instruction result;
  result.prompt = "How many words are in this sentence? " + sentence + ".";
  const std::string count = std::to_string(split_words(sentence).size());
  result.completion = "There are " + count + " words.";
  result.accepted = {count};
  result.short_answer = result.numeric = true;
  return result;
}

Instruction change_colour(Draw& draw) {
  struct Change {
    std::string name, noun, from, to;
  };
  const auto change = draw.until_wanted(
      [&] {
        Change c{pick(people(), draw.rng).name, pick(items(), draw.rng).noun, pick(colours(), draw.rng),
                 pick(colours(), draw.rng)};
        while (c.to == c.from) c.to = pick(colours(), draw.rng);
        return c;
      },
      [](const Change& c) { return make_key("recolour", c.name, c.from + " " + c.noun, c.to); });
  Instruction result;
  const char* verb = chance(draw.rng, 50) ? " has " : " found ";
  result.prompt = "Change the colour to " + change.to + ": " + change.name + verb +
                  with_article(change.from + " " + change.noun) + ".";
  result.completion = change.name + verb + with_article(change.to + " " + change.noun) + ".";
  result.accepted = {result.completion};
  return result;
}

Instruction finish_sentence(Draw& draw) {
  struct Start {
    Person who;
    std::string feeling;
  };
  const auto start = draw.until_wanted(
      [&] {
        return Start{pick(people(), draw.rng), pick(reasons(), draw.rng).feeling};
      },
      [](const Start& s) { return make_key("finish", s.who.name, s.feeling); });
  Bindings b;
  b.set("he", start.who.he()).set("his", start.who.his());
  Instruction result;
  const std::string opening = start.who.name + " was " + start.feeling + " because";
  result.prompt = "Finish the sentence: " + opening;
  std::vector<std::string> endings;
  for (const auto& reason : reasons()) {
    if (reason.feeling == start.feeling) endings.push_back(render(reason.clause, b, draw.rng) + ".");
  }
  result.completion = pick(endings, draw.rng);
  for (const auto& ending : endings) {
    result.accepted.push_back(ending);
    result.accepted.push_back(opening + " " + ending);
  }
  return result;
}

Instruction repeat_word(Draw& draw) {
  struct Echo {
    std::string word;
    int times;
  };
  const auto echo = draw.until_wanted(
      [&] {
        return Echo{pick(items(), draw.rng).noun, between(draw.rng, 2, 4)};
      },
      [](const Echo& e) { return make_key("repeat", e.word, std::to_string(e.times)); });
  Instruction result;
  Bindings b;
  b.set("word", echo.word).set("n", kNumberWords[echo.times]);
  result.prompt = render("[Say|Write] the word {word} {n} times.", b, draw.rng);
  for (int i = 0; i < echo.times; ++i) result.completion += (i > 0 ? " " : "") + echo.word;
  result.accepted = {result.completion};
  return result;
}

Instruction greeting(Draw& draw) {
  const Person who = draw.until_wanted([&] { return pick(people(), draw.rng); },
                                       [](const Person& p) { return make_key("greet", p.name); });
  Instruction result;
  Bindings b;
  bind_person(b, 0, who);
  result.prompt = render("[Hello! My name is {h}.|Hi, I am {h}.|Good morning! I am {h}.]", b, draw.rng);
  result.completion =
      render("[Hello, {h}! It is nice to meet you.|Hi, {h}! How can I help you?|Nice to meet you, {h}!]", b,
             draw.rng);
  result.required = {who.name};
  return result;
}

Instruction sort_numbers(Draw& draw) {
  const auto numbers = draw.until_wanted(
      [&] {
        std::vector<int> drawn;
        while (drawn.size() < 3) {
          const int number = between(draw.rng, 1, 30);
          if (std::find(drawn.begin(), drawn.end(), number) == drawn.end()) drawn.push_back(number);
        }
        return drawn;
      },
      [](std::vector<int> n) {
        std::sort(n.begin(), n.end());
        return make_key("sort", std::to_string(n[0]), std::to_string(n[1]), std::to_string(n[2]));
      });
  const auto listed = [](const std::vector<int>& n) { return fmt::format("{}, {}, {}", n[0], n[1], n[2]); };
  auto sorted = numbers;
  std::sort(sorted.begin(), sorted.end());
  const bool up = chance(draw.rng, 50);
  if (!up) std::reverse(sorted.begin(), sorted.end());
  Instruction result;
  result.prompt =
      std::string("Sort from ") + (up ? "smallest to biggest: " : "biggest to smallest: ") + listed(numbers);
  result.completion = listed(sorted);
  result.accepted = {result.completion};
  return result;
}

Instruction odd_one_out(Draw& draw) {
  // Categories whose members are never in the other.
  static constexpr const char* kGroups[] = {
      "owl fox bear frog duck cat dog goat pig wolf", "apple pear plum peach lemon banana cherry melon",
      "red blue green yellow white black brown pink", "hat coat scarf cap shirt belt",
      "drum flute guitar piano trumpet violin",       "Monday Tuesday Wednesday Thursday Friday Saturday",
      "baker farmer teacher doctor pilot nurse",      "chair table bed shelf desk bench"};
  struct Row {
    std::vector<std::string> words;
    std::string odd;
  };
  const auto row = draw.until_wanted(
      [&] {
        const uint64_t same = draw.rng.below(std::size(kGroups));
        const uint64_t other = (same + 1 + draw.rng.below(std::size(kGroups) - 1)) % std::size(kGroups);
        auto words = split_words(kGroups[same]);
        shuffle(words, draw.rng);
        words.resize(3);
        const std::string odd = pick(split_words(kGroups[other]), draw.rng);
        words.insert(words.begin() + static_cast<long>(draw.rng.below(4)), odd);
        return Row{words, odd};
      },
      [](const Row& r) {
        std::vector<std::string> sorted = r.words;
        std::sort(sorted.begin(), sorted.end());
        return make_key("odd", sorted[0], sorted[1], sorted[2], sorted[3]);
      });
  Instruction result;
  result.prompt = "Which word does not belong? " + row.words[0] + ", " + row.words[1] + ", " + row.words[2] +
                  ", " + row.words[3];
  result.completion = row.odd;
  result.accepted = {row.odd};
  result.short_answer = true;
  return result;
}

Instruction answer_question(Draw& draw) {
  const Passage passage = make_passage(draw);
  return as_instruction(ask(passage, pick(passage.questions, draw.rng)));
}

Instruction answer_arithmetic(Draw& draw) {
  return as_instruction(make_arithmetic(draw));
}

struct Entry {
  const char* kind;
  Instruction (*make)(Draw&);
  uint32_t weight;
};
constexpr Entry kEntries[] = {
    {"tell_story", tell_story, 5},
    {"sentence_with_words", sentence_with_words, 4},
    {"list", list, 3},
    {"opposite", opposite, 2},
    {"plural", plural, 2},
    {"past_tense", past_tense, 4},
    {"word_order", word_order, 4},
    {"count_words", count_sentence_words, 2},
    {"change_colour", change_colour, 4},
    {"finish_sentence", finish_sentence, 3},
    {"repeat_word", repeat_word, 2},
    {"greeting", greeting, 2},
    {"sort_numbers", sort_numbers, 2},
    {"odd_one_out", odd_one_out, 3},
    {"answer_question", answer_question, 8},
    {"answer_arithmetic", answer_arithmetic, 4},
};

}  // namespace

std::string as_sentence(std::string_view answer) {
  std::string out = capitalized(answer);
  if (out.empty() || std::string_view(".!?").find(out.back()) == std::string_view::npos) out += '.';
  return out;
}

Instruction as_instruction(const Question& question) {
  // "<passage>\nQuestion: <q>\nAnswer:" without the labels.
  Instruction result;
  constexpr std::string_view kLabel = "Question: ", kEnd = "\nAnswer:";
  std::string text = question.prompt.substr(0, question.prompt.size() - kEnd.size());
  text.erase(text.rfind(kLabel), kLabel.size());
  result.prompt = std::move(text);
  result.completion = as_sentence(question.completion);
  result.accepted = question.accepted;
  result.short_answer = true;
  result.numeric = question.numeric;
  return result;
}

const std::vector<std::string>& instruction_kinds() {
  static const auto all = [] {
    std::vector<std::string> names;
    for (const auto& entry : kEntries) names.emplace_back(entry.kind);
    return names;
  }();
  return all;
}

Instruction make_instruction(Draw& draw, std::string_view kind) {
  uint32_t total = 0;
  for (const auto& entry : kEntries) total += kind.empty() || kind == entry.kind ? entry.weight : 0;
  require(total > 0, "[tales] no instruction of kind '{}'", kind);
  uint64_t at = draw.rng.below(total);
  for (const auto& entry : kEntries) {
    if (!kind.empty() && kind != entry.kind) continue;
    if (at < entry.weight) {
      Instruction result = entry.make(draw);
      result.kind = entry.kind;
      result.keys = draw.keys;
      return result;
    }
    at -= entry.weight;
  }
  fail("[tales] no instruction drawn");
}

}  // namespace qkv::tales
