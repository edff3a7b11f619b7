// The scenes of question passages, in the manner of the bAbI tasks, with regular sentences so that small
// models can learn to look answers up.
#include "qkv/data/tales/questions.h"

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/data/tales/stories.h"
#include "qkv/data/tales/words.h"

namespace qkv::tales {
namespace {

// A passage in the making.
class Scene {
 public:
  explicit Scene(Draw& draw) : draw(draw), rng(draw.rng) {}

  void say(std::string_view text, const Bindings& bindings) {
    sentences.push_back(render(text, bindings, rng));
  }
  void ask(std::string_view kind, std::string_view question, std::vector<std::string> accepted,
           size_t candidates) {
    Asked asked{std::string(kind), std::string(question), std::move(accepted),
                1.0 / static_cast<double>(candidates)};
    asked.copied = kind != "yes_no";
    asked.numeric = kind == "how_many";
    questions.push_back(std::move(asked));
  }
  // How many people, things or places a scene has.
  int size() { return chance(rng, 40) ? 2 : 3; }

  Draw& draw;
  Rng& rng;
  std::vector<std::string> sentences;
  std::vector<Asked> questions;
};

// `count` draws that differ in `name_of`.
template <typename Make, typename NameOf>
auto distinct(int count, Make&& make, NameOf&& name_of) {
  std::vector<std::decay_t<decltype(make(0))>> drawn;
  while (static_cast<int>(drawn.size()) < count) {
    auto one = make(static_cast<int>(drawn.size()));
    const bool known = std::any_of(drawn.begin(), drawn.end(),
                                   [&](const auto& other) { return name_of(other) == name_of(one); });
    if (!known) drawn.push_back(std::move(one));
  }
  return drawn;
}

template <typename Value>
struct Fact {
  Person who;
  Value value;
};

// `count` facts about different people with different values. Person and value are drawn together until the
// fact belongs to the split, since a person may have no value there.
template <typename Make, typename KeyOf, typename Same>
auto draw_facts(Scene& scene, int count, Make&& make, KeyOf&& key_of, Same&& same) {
  std::vector<Fact<std::decay_t<decltype(make())>>> facts;
  while (static_cast<int>(facts.size()) < count) {
    const Person& who = pick(people(), scene.rng);
    auto value = make();
    std::string key = key_of(who, value);
    const bool clash = std::any_of(facts.begin(), facts.end(), [&](const auto& other) {
      return other.who.name == who.name || same(other.value, value);
    });
    if (clash || !scene.draw.wanted(key)) continue;
    scene.draw.keys.push_back(std::move(key));
    facts.push_back({who, std::move(value)});
  }
  return facts;
}

const auto kItself = [](const auto& value) -> const auto& {
  return value;
};

struct Thing {
  const Item* item;
  std::string colour;
  std::string full() const { return colour + " " + item->noun; }
};

// Things for people, one each, no noun or colour twice.
std::vector<Thing> draw_things(Scene& scene, const std::vector<Person>& owners, std::string_view relation) {
  std::vector<Thing> things;
  for (const auto& owner : owners) {
    for (;;) {
      Thing thing{&pick(items(), scene.rng), pick(colours(), scene.rng)};
      std::string key = make_key(relation, owner.name, thing.full());
      const bool clash = std::any_of(things.begin(), things.end(), [&](const Thing& other) {
        return other.item == thing.item || other.colour == thing.colour;
      });
      if (clash || !scene.draw.wanted(key)) continue;
      scene.draw.keys.push_back(std::move(key));
      things.push_back(std::move(thing));
      break;
    }
  }
  return things;
}

std::vector<std::string> thing_answers(const Thing& thing) {
  return {with_article(thing.full()), thing.full(), "the " + thing.full(), thing.item->noun};
}

void scene_has(Scene& s) {
  const auto who = draw_people(s.rng, s.size());
  const auto things = draw_things(s, who, "has");
  const size_t n = who.size();
  for (size_t i = 0; i < n; ++i) {
    Bindings b;
    bind_person(b, 0, who[i]);
    b.set("thing", things[i].full());
    s.say("{H} has {a thing}.", b);
  }
  for (size_t i = 0; i < n; ++i) {
    const auto& noun = things[i].item->noun;
    const auto answers = thing_answers(things[i]);
    s.ask("what", "What does " + who[i].name + " have?", answers, n);
    s.ask("who", "Who has the " + noun + "?", {who[i].name}, n);
    s.ask("colour", "What colour is the " + noun + "?", {things[i].colour}, n);
  }
  const auto& asked = things[s.rng.below(n)];
  const bool yes = chance(s.rng, 50);
  const Thing& other =
      *std::find_if(things.begin(), things.end(), [&](const Thing& t) { return t.item != asked.item; });
  s.ask("yes_no", "Is the " + asked.item->noun + " " + (yes ? asked.colour : other.colour) + "?",
        {yes ? "yes" : "no"}, 2);
}

std::vector<std::string> place_answers(const Place& place) {
  return {"the " + place.noun,   place.noun, place.in, "to the " + place.noun, "at the " + place.noun,
          "in the " + place.noun};
}
const Place* draw_place(Scene& s) {
  return &pick(places(), s.rng);
}
const auto kSame = [](const auto& a, const auto& b) { return a == b; };

void scene_went(Scene& s) {
  const int n = s.size();
  for (const auto& [who, place] : draw_facts(
           s, n, [&] { return draw_place(s); },
           [](const Person&who, const Place*place) { return make_key("went", who.name, place->noun); },
           kSame)) {
    Bindings b;
    bind_person(b, 0, who);
    b.set("place", place->noun);
    s.say("{H} [went|walked|ran] to the {place}.", b);
    s.ask("where", "Where did " + who.name + " go?", place_answers(*place), n);
    s.ask("who", "Who went to the " + place->noun + "?", {who.name}, n);
  }
}

void scene_put(Scene& s) {
  const auto who = draw_people(s.rng, s.size());
  const size_t n = who.size();
  const auto things = draw_things(s, who, "put");
  const auto& choice = chance(s.rng, 50) ? indoor_spots() : outdoor_spots();
  const auto where = distinct(
      static_cast<int>(n), [&](int) { return pick(choice, s.rng); }, kItself);
  for (size_t i = 0; i < n; ++i) {
    Bindings b;
    bind_person(b, 0, who[i]);
    b.set("thing", things[i].full()).set("spot", where[i]);
    s.say("{H} [put|left] the {thing} {spot}.", b);
    const auto& noun = things[i].item->noun;
    s.ask("where", "Where is the " + noun + "?", {where[i]}, n);
    s.ask("what", "What is " + where[i] + "?",
          {"the " + things[i].full(), things[i].full(), with_article(things[i].full()), noun}, n);
    s.ask("colour", "What colour is the " + noun + "?", {things[i].colour}, n);
    s.ask("who", "Who had the " + noun + "?", {who[i].name}, n);
  }
}

struct Pile {
  const Item* item;
  int count;
};

void scene_counts(Scene& s) {
  const int n = s.size();
  for (const auto& [who, pile] : draw_facts(
           s, n,
           [&] {
             return Pile{&(chance(s.rng, 70) ? pick(foods(), s.rng) : pick(items(), s.rng)),
                         between(s.rng, 2, 20)};
           },
           [](const Person&who, const Pile&pile) {
             return make_key("counts", who.name, counted(pile.count, *pile.item));
           },
           [](const Pile&a, const Pile&b) { return a.item == b.item || a.count == b.count; })) {
    const std::string number = std::to_string(pile.count);
    const std::string& things = pile.item->plural;
    s.sentences.push_back(who.name + " has " + number + " " + things + ".");
    s.ask("how_many", "How many " + things + " does " + who.name + " have?", {number}, n);
    s.ask("what", "What does " + who.name + " have?", {number + " " + things, things}, n);
    s.ask("who", "Who has " + number + " " + things + "?", {who.name}, n);
  }
}

void scene_why(Scene& s) {
  const int n = s.size();
  for (const auto& [who, reason] : draw_facts(
           s, n, [&] { return &pick(reasons(), s.rng); },
           [](const Person&who, const Reason*reason) { return make_key("felt", who.name, reason->clause); },
           [](const Reason*a, const Reason*b) { return a->feeling == b->feeling; })) {
    Bindings b;
    b.set("he", who.he()).set("his", who.his());
    const std::string clause = render(reason->clause, b, s.rng);
    const std::string& feeling = reason->feeling;
    s.sentences.push_back(who.name + " was " + feeling + " because " + clause + ".");
    s.ask("why", "Why was " + who.name + " " + feeling + "?", {"because " + clause, clause}, n);
    s.ask("feeling", "How was " + who.name + "?", {feeling, who.name + " was " + feeling}, n);
    s.ask("who", "Who was " + feeling + "?", {who.name}, n);
  }
}

void scene_job(Scene& s) {
  const int n = s.size();
  for (const auto& [who, job] : draw_facts(
           s, n, [&] { return pick(jobs(), s.rng); },
           [](const Person&who, const std::string&job) { return make_key("job", who.name, job); }, kSame)) {
    s.sentences.push_back(who.name + " is " + with_article(job) + ".");
    s.ask("job", "What is the job of " + who.name + "?", {with_article(job), job, "the " + job}, n);
    s.ask("who", "Who is the " + job + "?", {who.name}, n);
  }
}

void scene_likes(Scene& s) {
  const int n = s.size();
  for (const auto& [who, food] : draw_facts(
           s, n, [&] { return &pick(foods(), s.rng); },
           [](const Person&who, const Item*food) { return make_key("likes", who.name, food->noun); },
           kSame)) {
    s.sentences.push_back(who.name + " likes " + food->plural + ".");
    s.ask("what", "What does " + who.name + " like?", {food->plural, food->noun}, n);
    s.ask("who", "Who likes " + food->plural + "?", {who.name}, n);
  }
}

struct Visit {
  const std::string* day;
  const Place* place;
};

void scene_when(Scene& s) {
  const int n = s.size();
  for (const auto& [who, visit] : draw_facts(
           s, n,
           [&] {
             return Visit{&pick(days(), s.rng), draw_place(s)};
           },
           [](const Person&who, const Visit&visit) {
             return make_key("when", who.name, *visit.day, visit.place->noun);
           },
           [](const Visit&a, const Visit&b) { return a.day == b.day || a.place == b.place; })) {
    const std::string& place = visit.place->noun;
    s.sentences.push_back("On " + *visit.day + ", " + who.name + " went to the " + place + ".");
    s.ask("when", "When did " + who.name + " go to the " + place + "?", {"on " + *visit.day, *visit.day}, n);
    s.ask("where", "Where did " + who.name + " go?", place_answers(*visit.place), n);
    s.ask("who", "Who went to the " + place + "?", {who.name}, n);
  }
}

// The thing changes hands once or twice; it may come back to its first owner.
void scene_gave(Scene& s) {
  const auto who = draw_people(s.rng, 3);
  const int gifts = between(s.rng, 1, 2);
  const Thing thing = draw_things(s, {who[0]}, "had")[0];
  const auto& noun = thing.item->noun;
  Bindings b;
  bind_person(b, 0, who[0]);
  bind_person(b, 1, who[1]);
  b.set("thing", thing.full()).set("noun", noun);
  s.say("{H} had {a thing}.", b);
  s.say("{H} gave the {noun} to {f}.", b);
  const Person* holder = &who[1];
  if (gifts == 2) {
    holder = chance(s.rng, 25) ? &who[0] : &who[2];
    bind_person(b, 2, *holder);
    s.say("Then {f} gave the {noun} to {g}.", b);
  }
  const size_t n = holder == &who[2] ? 3 : 2;
  s.ask("who_now", "Who has the " + noun + " now?", {holder->name}, n);
  s.ask("who", "Who had the " + noun + " first?", {who[0].name}, n);
  s.ask("colour", "What colour is the " + noun + "?", {thing.colour}, colours().size());
}

// Two people move; one of them moves twice.
void scene_moved(Scene& s) {
  const auto went = [](const Person& who, const Place* place) {
    return make_key("went", who.name, place->noun);
  };
  const auto facts = draw_facts(
      s, 2, [&] { return draw_place(s); }, went, kSame);
  const int mover = between(s.rng, 0, 1);
  const Place* then = nullptr;
  for (int tries = 0; tries < 1000; ++tries) {
    const Place* place = draw_place(s);
    if (place == facts[0].value || place == facts[1].value || !s.draw.wanted(went(facts[mover].who, place)))
      continue;
    then = place;
    break;
  }
  if (then == nullptr)
    return;  // this person goes nowhere else in this split; without questions the scene is drawn anew
  s.draw.keys.push_back(went(facts[mover].who, then));
  for (const auto& [who, place] : facts)
    s.sentences.push_back(who.name + " went to the " + place->noun + ".");
  const std::string& name = facts[mover].who.name;
  s.sentences.push_back("Then " + name + " went to the " + then->noun + ".");
  for (int i = 0; i < 2; ++i) {
    auto answers = place_answers(i == mover ? *then : *facts[i].value);
    std::swap(answers[0], answers[2]);
    s.ask("where_now", "Where is " + facts[i].who.name + " now?", answers, 3);
  }
  s.ask("where", "Where did " + name + " go first?", place_answers(*facts[mover].value), 3);
}

// The thing is with a person, the person at a place.
void scene_two_hops(Scene& s) {
  const auto facts = draw_facts(
      s, 2, [&] { return draw_place(s); },
      [](const Person& who, const Place* place) { return make_key("is", who.name, place->noun); }, kSame);
  const auto things = draw_things(s, {facts[0].who, facts[1].who}, "with");
  for (const auto& [who, place] : facts) s.sentences.push_back(who.name + " is " + place->in + ".");
  const int first = between(s.rng, 0, 1);
  for (const int i : {first, 1 - first}) {
    s.sentences.push_back("The " + things[i].full() + " is with " + facts[i].who.name + ".");
  }
  for (int i = 0; i < 2; ++i) {
    auto answers = place_answers(*facts[i].value);
    std::swap(answers[0], answers[2]);
    s.ask("two_hop", "Where is the " + things[i].item->noun + "?", answers, 2);
    s.ask("where", "Where is " + facts[i].who.name + "?", answers, 2);
    s.ask("colour", "What colour is the " + things[i].item->noun + "?", {things[i].colour}, 2);
  }
}

void scene_ranked(Scene& s) {
  static constexpr const char* kWords[][3] = {{"taller", "tallest", "shortest"},
                                              {"older", "oldest", "youngest"},
                                              {"faster", "fastest", "slowest"},
                                              {"stronger", "strongest", "weakest"}};
  const auto& word = kWords[s.rng.below(std::size(kWords))];
  // Two steps of a chain: the people are drawn until both pairs belong to the split.
  std::vector<Person> who;
  std::string upper, lower;
  do {
    who = draw_people(s.rng, 3);
    upper = make_key(word[0], who[0].name, who[1].name);
    lower = make_key(word[0], who[1].name, who[2].name);
  } while (!s.draw.wanted(upper) || !s.draw.wanted(lower));
  s.draw.keys.push_back(upper);
  s.draw.keys.push_back(lower);
  std::vector<std::string> facts = {who[0].name + " is " + word[0] + " than " + who[1].name + ".",
                                    who[1].name + " is " + word[0] + " than " + who[2].name + "."};
  if (chance(s.rng, 50)) std::swap(facts[0], facts[1]);
  s.sentences = facts;
  s.ask("comparison", std::string("Who is the ") + word[1] + "?", {who[0].name}, 3);
  s.ask("comparison", std::string("Who is the ") + word[2] + "?", {who[2].name}, 3);
}

void scene_story(Scene& s) {
  Story story = make_story(s.draw);
  s.sentences.push_back(std::move(story.text));
  for (auto& asked : story.questions) {
    // A guess among the two characters, or among the handful of things, places and colours a story names.
    const size_t candidates = asked.kind == "story_who" ? 2 : 4;
    s.ask(asked.kind, asked.question, std::move(asked.accepted), candidates);
  }
}

struct SceneKind {
  void (*make)(Scene&);
  uint32_t weight;
  std::vector<std::string_view> kinds;  // that it always yields
};

const std::vector<SceneKind>& scenes() {
  static const std::vector<SceneKind> all = {
      {scene_has, 16, {"what", "who", "colour", "yes_no"}},
      {scene_went, 10, {"where", "who"}},
      {scene_put, 14, {"where", "what", "colour", "who"}},
      {scene_counts, 10, {"how_many", "what", "who"}},
      {scene_why, 10, {"why", "feeling", "who"}},
      {scene_job, 8, {"job", "who"}},
      {scene_likes, 6, {"what", "who"}},
      {scene_when, 8, {"when", "where", "who"}},
      {scene_gave, 8, {"who_now", "who", "colour"}},
      {scene_moved, 8, {"where_now", "where"}},
      {scene_two_hops, 8, {"two_hop", "where", "colour"}},
      {scene_ranked, 6, {"comparison"}},
      {scene_story, 6, {"story_who", "story_what", "story_where", "story_colour"}},
  };
  return all;
}

const SceneKind& draw_scene(Rng& rng, std::string_view kind) {
  const auto yields = [&](const SceneKind& scene) {
    return kind.empty() || std::find(scene.kinds.begin(), scene.kinds.end(), kind) != scene.kinds.end();
  };
  uint32_t total = 0;
  for (const auto& scene : scenes()) total += yields(scene) ? scene.weight : 0;
  require(total > 0, "[tales] no passage has questions of kind '{}'", kind);
  uint64_t at = rng.below(total);
  for (const auto& scene : scenes()) {
    if (!yields(scene)) continue;
    if (at < scene.weight) return scene;
    at -= scene.weight;
  }
  fail("[tales] no scene drawn");
}

}  // namespace

const std::vector<QuestionKind>& passage_kinds() {
  static const std::vector<QuestionKind> all = {
      {"what", "which thing somebody has, likes or left somewhere", 1, false},
      {"who", "which person has, did or is something", 1, false},
      {"where", "where a person went or a thing is", 1, false},
      {"colour", "the colour of a thing", 1, false},
      {"how_many", "a number the passage states", 1, false},
      {"why", "the reason the passage gives", 1, false},
      {"feeling", "how somebody was", 1, false},
      {"when", "the day something happened", 1, false},
      {"job", "what somebody works as", 1, false},
      {"yes_no", "whether a thing has a colour", 2, false},
      {"who_now", "who has a thing after it changed hands", 2, false},
      {"where_now", "where a person is after moving", 2, false},
      {"two_hop", "where a thing is, by way of who has it", 3, false},
      {"comparison", "the most or least of three, from two comparisons", 3, false},
      {"story_who", "a character of a story, by what they did", 2, false},
      {"story_what", "a thing of a story", 3, false},
      {"story_where", "a place of a story", 3, false},
      {"story_colour", "the colour of the thing of a story", 2, false},
  };
  return all;
}

Passage make_passage(Draw& draw, std::string_view kind) {
  const size_t others = draw.keys.size();
  for (;;) {
    draw.keys.resize(others);
    Scene scene(draw);
    draw_scene(draw.rng, kind).make(scene);
    const bool has = kind.empty() ? !scene.questions.empty()
                                  : std::any_of(scene.questions.begin(), scene.questions.end(),
                                                [&](const Asked& asked) { return asked.kind == kind; });
    if (!has) continue;  // not every plot has every kind of question
    Passage passage;
    for (const auto& sentence : scene.sentences) {
      if (!passage.text.empty()) passage.text += ' ';
      passage.text += sentence;
    }
    passage.questions = std::move(scene.questions);
    return passage;
  }
}

std::string question_prompt(std::string_view passage, std::string_view question) {
  std::string out(passage);
  if (!out.empty()) out += '\n';
  out += "Question: ";
  out += question;
  out += "\nAnswer:";
  return out;
}

Question ask(const Passage& passage, const Asked& asked) {
  Question question;
  question.kind = asked.kind;
  question.prompt = question_prompt(passage.text, asked.question);
  question.answer = asked.accepted.front();
  question.accepted = asked.accepted;
  question.completion = question.answer;
  question.numeric = asked.numeric;
  question.copied = asked.copied;
  question.chance = asked.chance;
  return question;
}

}  // namespace qkv::tales
