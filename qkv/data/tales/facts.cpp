// Building worlds and the documents and questions about them.
#include "qkv/data/tales/facts.h"

#include <algorithm>

#include "qkv/core/error.h"
#include "qkv/data/tales/words.h"

namespace qkv::tales {
namespace {

// Two parts of names, separated by spaces, or by '|' where a part may hold a space or nothing.
struct Syllables {
  Syllables(std::string_view first_parts, std::string_view second_parts)
      : first(parts(first_parts)), second(parts(second_parts)) {}
  std::vector<std::string> first, second;

 private:
  static std::vector<std::string> parts(std::string_view text) {
    if (text.find('|') == std::string_view::npos) return split_words(text);
    std::vector<std::string> all;
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find('|', begin), text.size());
      all.emplace_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
    return all;
  }
};

// No name is used twice in a world.
class Names {
 public:
  explicit Names(Draw& draw) : draw_(draw) {}

  std::string town() {
    static const Syllables syllables(
        "Pell Bram Or Tan Wil Ash Cor Dun El Fen Gar Hol Ker Lor Mar Nor Os Rav Sel Thorn Ul Ven Wes Yar",
        "low ford wick ton bury dale mere stead ham gate port field combe ley worth by");
    return unused(syllables);
  }
  std::string river() {
    static const Syllables syllables("Oo Li Va Sa Ne Mo Ti Re Ka Du Fa Zo Bri Gle Cha Wha Lu Pi",
                                     "na ren sk mel va rin do lla nna th ric nd mar wen");
    return unused(syllables);
  }
  std::string lake() {
    static const Syllables syllables("Am Be Ce Do Es Fi Gu Hal Im Jo Kor Lan Mi Nal",
                                     "dra bel nor tia lis mund vin ros gan sta dell via");
    return unused(syllables);
  }
  std::string animal() {
    static const Syllables syllables(
        "mor gli tov fen bru sni plo wug zar kel dap hob quin yol vop tus nib lum gro",
        "lin bat ker fin mo sel dle pup rat tle wick zy bon nar gle pod");
    return unused(syllables);
  }
  // First and last name.
  std::string person(const std::string& first_name) {
    static const Syllables syllables(
        "Hill Brook Stone Wood Marsh Reed Lane Moss Frost Bell Cook Drake Finch Grove Hart Hay Hunt Kemp "
        "Lamb Lock "
        "Mead Nash Page Park Pike Pond Quill Rush Sand Shaw Snow Swan Vale Wade Ward Webb West Wren",
        "|ton|ley|man|by|well|worth|croft|wick");
    return unused(syllables, first_name + " ");
  }
  std::string shop() {
    static const Syllables syllables(
        "Copper Silver Golden Green Blue Red White Little Happy Sleepy Jolly Lucky Merry Quiet Round Rusty "
        "Shiny Tiny "
        "Old Crooked Brave Busy Dancing Singing",
        " Spoon| Kettle| Lantern| Anchor| Barrel| Candle| Feather| Button| Wheel| Teapot| Ladder| Basket| "
        "Pumpkin| "
        "Acorn| Boot| Crown| Fiddle| Goose| Hammer| Needle| Owl| Parrot| Rooster| Snail| Thimble| Violin| "
        "Whale| "
        "Window| Rabbit| Ribbon");
    return unused(syllables);
  }
  std::string pet() {
    static const auto all = split_words(
        "Biscuit Button Pepper Ginger Mango Pickle Pudding Socks Spot Star Toffee Waffle Bubbles Coco Domino "
        "Fluff "
        "Honey Jelly Kiwi Maple Nutmeg Patch Rocket Shadow Tiger Velvet Whiskers Ziggy Cookie Muffin");
    return pick(all, draw_.rng);
  }

 private:
  std::string unused(const Syllables& syllables, const std::string& before = "") {
    for (;;) {
      std::string name = before + pick(syllables.first, draw_.rng);
      name += pick(syllables.second, draw_.rng);
      std::string key = make_key("fact", name);
      if (!draw_.wanted(key) || std::find(used_.begin(), used_.end(), name) != used_.end()) continue;
      used_.push_back(name);
      draw_.keys.push_back(std::move(key));
      return name;
    }
  }

  Draw& draw_;
  std::vector<std::string> used_;
};

// Writes one entity: sentences with their questions.
class Writer {
 public:
  Writer(Draw& draw, std::string id, std::string title) : rng_(draw.rng) {
    entity.id = std::move(id);
    entity.title = std::move(title);
  }
  void say(std::string_view text) {
    if (!entity.text.empty()) entity.text += ' ';
    render(text, bindings, rng_, entity.text);
  }
  void fact(std::string_view question, std::vector<std::string> accepted) {
    Asked asked{"fact", render(question, bindings, rng_), std::move(accepted)};
    asked.numeric = asked.accepted.front().find_first_not_of("0123456789") == std::string::npos;
    entity.questions.push_back(std::move(asked));
  }
  Entity entity;
  Bindings bindings;

 private:
  Rng& rng_;
};

struct River {
  std::string name, lake;
};
struct Town {
  std::string name, colour, product;
  int river = 0;
};
struct Resident {
  Person person;
  std::string name;  // in full
  std::string food;
  int town = 0;
};

const std::vector<std::string>& products() {
  static const auto all = split_words(
      "cheese bells honey boats bread clocks wool candles kites lamps soap hats apples music paper pots salt "
      "silk tea glass");
  return all;
}
const std::vector<std::string>& goods() {
  static const auto all = split_words(
      "lamps books shoes hats candles tea bread toys soap boots clocks ropes buttons brushes cups flutes "
      "maps ribbons seeds spoons");
  return all;
}
const std::vector<std::string>& seasons() {
  static const auto all = split_words("spring summer autumn winter");
  return all;
}
const std::vector<std::string>& fishes() {
  static const auto all = split_words("trout eels pike salmon perch carp crabs otters");
  return all;
}
const std::vector<std::string>& pet_species() {
  static const auto all = split_words("cat dog parrot rabbit pony goat hamster turtle");
  return all;
}

std::vector<std::string> river_answers(const std::string& name) {
  return {"the river " + name, name, name + " river", "on the river " + name, "near the river " + name};
}
std::vector<std::string> lake_answers(const std::string& name) {
  return {"Lake " + name, name, "into Lake " + name};
}

}  // namespace

World make_world(Draw& draw, const WorldSize& size) {
  Rng& rng = draw.rng;
  Names names(draw);
  World world;
  const auto add = [&](Writer& writer) { world.entities.push_back(std::move(writer.entity)); };
  const auto hop = [&](std::string question, std::vector<std::string> accepted, size_t first, size_t second) {
    Asked asked{"fact_two_hop", std::move(question), std::move(accepted)};
    world.two_hops.push_back({std::move(asked), first, second});
  };

  std::vector<River> rivers;
  for (int i = 0; i < size.rivers; ++i) {
    rivers.push_back({names.river(), names.lake()});
    Writer w(draw, fmt::format("river-{}", i + 1), "The river " + rivers.back().name);
    const std::string bridges = std::to_string(between(rng, 2, 12));
    const std::string& fish = pick(fishes(), rng);
    w.bindings.set("name", rivers.back().name)
        .set("lake", rivers.back().lake)
        .set("n", bridges)
        .set("fish", fish);
    w.say("The river {name} flows into Lake {lake}.");
    w.say("[There are {n} bridges over the {name}.|It has {n} bridges.]");
    w.say("[Many {fish} live in it.|It is full of {fish}.]");
    w.fact("Into which lake does the river {name} flow?", lake_answers(rivers.back().lake));
    w.fact("How many bridges does the river {name} have?", {bridges});
    w.fact("Which animals live in the river {name}?", {fish});
    add(w);
  }

  std::vector<Town> towns;
  const size_t first_town = world.entities.size();
  for (int i = 0; i < size.towns; ++i) {
    towns.push_back({names.town(), pick(colours(), rng), pick(products(), rng),
                     static_cast<int>(rng.below(rivers.size()))});
    const Town& town = towns.back();
    Writer w(draw, fmt::format("town-{}", i + 1), "The town of " + town.name);
    const std::string& season = pick(seasons(), rng);
    w.bindings.set("name", town.name)
        .set("river", rivers[town.river].name)
        .set("col", town.colour)
        .set("product", town.product)
        .set("season", season);
    w.say("{name} is a [small|quiet|busy|pretty] town on the river {river}.");
    w.say("[Its houses have {col} roofs.|The roofs of {name} are {col}.]");
    w.say("[{name} is known for its {product}.|The town is known for its {product}.]");
    w.say("[Every {season}, there is a fair in {name}.|The town has a fair every {season}.]");
    w.fact("On which river is {name}?", river_answers(rivers[town.river].name));
    w.fact("What colour are the roofs of {name}?", {town.colour});
    w.fact("What is {name} known for?", {town.product, "its " + town.product});
    w.fact("When is the fair in {name}?", {"every " + season, season, "in " + season});
    hop("Into which lake does the river of " + town.name + " flow?", lake_answers(rivers[town.river].lake),
        world.entities.size(), static_cast<size_t>(town.river));
    add(w);
  }

  std::vector<Resident> residents;
  const size_t first_person = world.entities.size();
  for (int i = 0; i < size.people; ++i) {
    const Person& person = pick(people(), rng);
    residents.push_back({person, names.person(person.name), pick(foods(), rng).plural,
                         static_cast<int>(rng.below(towns.size()))});
    const Resident& resident = residents.back();
    const Town& town = towns[resident.town];
    Writer w(draw, fmt::format("person-{}", i + 1), resident.name);
    const std::string& job = pick(jobs(), rng);
    const std::string pet = names.pet();
    w.bindings.set("name", resident.name)
        .set("first", person.name)
        .set("he", person.he())
        .set("his", person.his());
    w.bindings.set("town", town.name)
        .set("job", job)
        .set("pet", pet)
        .set("species", pick(pet_species(), rng))
        .set("foods", resident.food);
    w.say("{name} is {a job} who lives in {town}.");
    w.say("[{He} has {a species} called {pet}.|{first} has {a species} called {pet}.]");
    w.say("[{His} favourite food is {foods}.|{first} likes {foods} most of all.]");
    w.fact("Where does {name} live?", {"in " + town.name, town.name});
    w.fact("What is the job of {name}?", {with_article(job), job});
    w.fact("What is the {species} of {name} called?", {pet});
    w.fact("What is the favourite food of {name}?", {resident.food});
    const size_t here = world.entities.size(), home = first_town + static_cast<size_t>(resident.town);
    hop("On which river is the town where " + resident.name + " lives?",
        river_answers(rivers[town.river].name), here, home);
    hop("What colour are the roofs of the town where " + resident.name + " lives?", {town.colour}, here,
        home);
    hop("What is the town where " + resident.name + " lives known for?",
        {town.product, "its " + town.product}, here, home);
    add(w);
  }

  for (int i = 0; i < size.animals; ++i) {
    const std::string name = names.animal();
    Writer w(draw, fmt::format("animal-{}", i + 1), "The " + name);
    const size_t river = rng.below(rivers.size());
    const std::string legs = std::to_string(2 * between(rng, 1, 4));
    const std::string colour = pick(colours(), rng);
    const std::string& food = pick(foods(), rng).plural;
    w.bindings.set("name", name)
        .set("river", rivers[river].name)
        .set("col", colour)
        .set("n", legs)
        .set("foods", food);
    w.say("The {name} is {a col} animal with {n} legs.");
    w.say("[It lives near the river {river}.|It makes its nest near the river {river}.]");
    w.say("[It eats {foods}.|It eats nothing but {foods}.]");
    w.fact("What colour is the {name}?", {colour});
    w.fact("How many legs does the {name} have?", {legs});
    w.fact("Near which river does the {name} live?", river_answers(rivers[river].name));
    w.fact("What does the {name} eat?", {food});
    hop("The " + name + " lives near a river. Into which lake does it flow?",
        lake_answers(rivers[river].lake), world.entities.size(), river);
    add(w);
  }

  for (int i = 0; i < size.shops; ++i) {
    const std::string name = names.shop();
    Writer w(draw, fmt::format("shop-{}", i + 1), "The " + name);
    const size_t owner = rng.below(residents.size());
    const size_t town = rng.below(towns.size());
    const std::string& sold = pick(goods(), rng);
    const std::string& day = pick(days(), rng);
    w.bindings.set("name", name)
        .set("town", towns[town].name)
        .set("owner", residents[owner].name)
        .set("sold", sold)
        .set("day", day);
    w.say("The {name} is a shop in {town}.");
    w.say("[It belongs to {owner}.|{owner} owns it.]");
    w.say("[It sells {sold}.|You can buy {sold} there.]");
    w.say("[It is closed on {day}.|The shop is closed on {day}.]");
    w.fact("In which town is the {name}?", {"in " + towns[town].name, towns[town].name});
    w.fact("Who owns the {name}?", {residents[owner].name});
    w.fact("What does the {name} sell?", {sold});
    w.fact("On which day is the {name} closed?", {"on " + day, day});
    const size_t here = world.entities.size();
    hop("Where does the owner of the " + name + " live?",
        {"in " + towns[residents[owner].town].name, towns[residents[owner].town].name}, here,
        first_person + owner);
    hop("What is the favourite food of the owner of the " + name + "?", {residents[owner].food}, here,
        first_person + owner);
    hop("On which river is the town of the " + name + "?", river_answers(rivers[towns[town].river].name),
        here, first_town + town);
    add(w);
  }
  return world;
}

const std::vector<QuestionKind>& fact_kinds() {
  static const std::vector<QuestionKind> all = {
      {"fact", "one fact of a document about an invented town, river, person, animal or shop", 2, false},
      {"fact_two_hop", "two such documents combined", 3, false},
  };
  return all;
}

Passage make_fact_passage(Draw& draw, bool two_hop) {
  Rng& rng = draw.rng;
  const World world = make_world(draw, {2, 2, 2, 1, 1});
  std::vector<size_t> shown;
  Passage passage;
  if (two_hop) {
    const TwoHop& hop = pick(world.two_hops, rng);
    shown = {hop.first, hop.second};
    passage.questions.push_back(hop.asked);
  } else {
    shown = {rng.below(world.entities.size())};
  }
  // Sometimes with a further document, as a search would bring along.
  if (chance(rng, 40)) {
    const size_t other = rng.below(world.entities.size());
    if (std::find(shown.begin(), shown.end(), other) == shown.end()) shown.push_back(other);
  }
  shuffle(shown, rng);
  size_t facts = 0;
  for (const size_t entity : shown) {
    if (!passage.text.empty()) passage.text += '\n';
    passage.text += world.entities[entity].text;
    facts += world.entities[entity].questions.size();
  }
  if (!two_hop) {
    for (const size_t entity : shown) {
      const auto& asked = world.entities[entity].questions;
      passage.questions.insert(passage.questions.end(), asked.begin(), asked.end());
    }
  }
  for (auto& asked : passage.questions) asked.chance = 1.0 / static_cast<double>(facts);
  return passage;
}

namespace {

// The knowledge base: several hundred facts under names of the held-out split.
World knowledge_base(uint64_t seed) {
  Draw draw(seed, Purpose::world, Split::held_out, 0);
  return make_world(draw, {24, 10, 60, 20, 40});
}

}  // namespace

std::vector<FactDocument> fact_documents(uint64_t seed) {
  std::vector<FactDocument> documents;
  for (auto& entity : knowledge_base(seed).entities) {
    documents.push_back({std::move(entity.id), std::move(entity.title), std::move(entity.text),
                         static_cast<int>(entity.questions.size())});
  }
  return documents;
}

std::vector<FactQuestion> fact_questions(uint64_t seed) {
  const World world = knowledge_base(seed);
  std::vector<FactQuestion> questions;
  const auto add = [&](const Asked& asked, std::vector<std::string> documents) {
    questions.push_back({asked.question, asked.accepted.front(), asked.accepted, asked.numeric,
                         static_cast<int>(documents.size()), documents});
  };
  for (const auto& entity : world.entities) {
    for (const auto& asked : entity.questions) add(asked, {entity.id});
  }
  for (const auto& hop : world.two_hops)
    add(hop.asked, {world.entities[hop.first].id, world.entities[hop.second].id});
  return questions;
}

}  // namespace qkv::tales
