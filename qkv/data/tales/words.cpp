// Word lists. Plain, everyday, short: with a vocabulary of a few thousand pieces most words stay whole.
#include "qkv/data/tales/words.h"

namespace qkv::tales {
namespace {

std::vector<Person> make_people() {
  const char* girls =
      "Mia Anna Lily Emma Sara Lucy Rosa Nina Ella Zoe Amy Kate Jane Ruby Molly Daisy Grace Alice Clara Eva "
      "Hana Ida Ivy "
      "Jill Julia June Kim Lara Lena Lola Luna Maria Mary Meg Nora Olga Olive Pam Paula Penny Polly Rita "
      "Rose Sally "
      "Sofia Sue Susan Tina Vera Wendy Wilma Yara Zara Abby Ada Beth Betty Bella Carla Cora Dora Edith Elsa "
      "Emily Fay "
      "Flora Freya Gina Greta Hazel Helen Holly Iris Jenny Joan Karen Leah Linda Mabel Nadia";
  const char* boys =
      "Tom Ben Sam Max Leo Tim Jack Dan Finn Alex Adam Omar Hugo Noah Luke Paul Peter Mark Nick Oscar Ali "
      "Amir Anton Billy "
      "Bob Boris Carl Charlie Chris Colin David Dean Eddie Eli Emil Eric Frank Fred Gary George Gus Hans "
      "Harry Henry Ian "
      "Igor Isaac Ivan Jake James Jim Joe John Josh Juan Karl Ken Kevin Lars Liam Louis Marco Martin Matt "
      "Mike Milo Nate "
      "Ned Neil Oliver Otto Owen Pedro Phil Ralph Ray Roy Ruben Simon Stan Steve Ted Theo Tony Victor Walter "
      "Wim";
  std::vector<Person> all;
  for (auto& name : split_words(girls)) all.push_back({std::move(name), true});
  for (auto& name : split_words(boys)) all.push_back({std::move(name), false});
  return all;
}

std::vector<Item> make_items() {
  const unsigned toy = kToy, small = kSmall, fragile = kFragile, wear = kWear, flies = kFlies, warm = kWarm,
                 dish = kDish;
  return {
      {"kite", "kites", "fly it", "flew it", toy | flies},
      {"ball", "balls", "kick it", "kicked it", toy | flies},
      {"drum", "drums", "play it", "played it", toy},
      {"boat", "boats", "sail it", "sailed it", toy},
      {"doll", "dolls", "play with it", "played with it", toy},
      {"robot", "robots", "play with it", "played with it", toy},
      {"train", "trains", "play with it", "played with it", toy},
      {"truck", "trucks", "push it", "pushed it", toy},
      {"top", "tops", "spin it", "spun it", toy | small},
      {"whistle", "whistles", "blow it", "blew it", toy | small},
      {"flute", "flutes", "play it", "played it", toy},
      {"puzzle", "puzzles", "solve it", "solved it", toy},
      {"balloon", "balloons", "hold it", "held it", toy | flies},
      {"yo-yo", "yo-yos", "play with it", "played with it", toy | small},
      {"marble", "marbles", "roll it", "rolled it", toy | small},
      {"sled", "sleds", "ride it", "rode it", toy},
      {"scooter", "scooters", "ride it", "rode it", toy},
      {"rope", "ropes", "jump over it", "jumped over it", toy},
      {"puppet", "puppets", "play with it", "played with it", toy},
      {"teddy", "teddies", "hug it", "hugged it", toy},
      {"plane", "planes", "throw it", "threw it", toy | flies},
      {"book", "books", "read it", "read it", 0},
      {"bag", "bags", "carry it", "carried it", 0},
      {"box", "boxes", "open it", "opened it", 0},
      {"key", "keys", "use it", "used it", small},
      {"coin", "coins", "keep it", "kept it", small},
      {"ring", "rings", "wear it", "wore it", small | wear},
      {"shell", "shells", "listen to it", "listened to it", small},
      {"stone", "stones", "hold it", "held it", small},
      {"feather", "feathers", "hold it", "held it", small},
      {"button", "buttons", "use it", "used it", small},
      {"pencil", "pencils", "draw with it", "drew with it", small},
      {"brush", "brushes", "paint with it", "painted with it", small},
      {"bell", "bells", "ring it", "rang it", small},
      {"watch", "watches", "wear it", "wore it", small | wear},
      {"lamp", "lamps", "light it", "lit it", fragile},
      {"cup", "cups", "drink from it", "drank from it", fragile},
      {"plate", "plates", "eat from it", "ate from it", fragile},
      {"vase", "vases", "put flowers in it", "put flowers in it", fragile},
      {"jar", "jars", "fill it", "filled it", fragile},
      {"bowl", "bowls", "fill it", "filled it", fragile | dish},
      {"pot", "pots", "cook in it", "cooked in it", dish},
      {"pan", "pans", "cook in it", "cooked in it", dish},
      {"mirror", "mirrors", "look into it", "looked into it", fragile},
      {"hat", "hats", "wear it", "wore it", wear},
      {"coat", "coats", "wear it", "wore it", wear | warm},
      {"scarf", "scarves", "wear it", "wore it", wear | warm},
      {"cap", "caps", "wear it", "wore it", wear},
      {"shirt", "shirts", "wear it", "wore it", wear | warm},
      {"belt", "belts", "wear it", "wore it", wear},
      {"mask", "masks", "wear it", "wore it", wear},
      {"blanket", "blankets", "sleep under it", "slept under it", warm},
      {"towel", "towels", "use it", "used it", warm},
      {"sweater", "sweaters", "wear it", "wore it", wear | warm},
      {"pillow", "pillows", "sleep on it", "slept on it", 0},
      {"basket", "baskets", "carry it", "carried it", 0},
      {"bucket", "buckets", "fill it", "filled it", 0},
      {"chair", "chairs", "sit on it", "sat on it", 0},
      {"clock", "clocks", "look at it", "looked at it", fragile},
      {"umbrella", "umbrellas", "hold it", "held it", 0},
      {"flag", "flags", "wave it", "waved it", toy},
      {"card", "cards", "read it", "read it", small},
      {"map", "maps", "look at it", "looked at it", small},
      {"ribbon", "ribbons", "wear it", "wore it", small | wear},
  };
}

std::vector<Item> make_foods() {
  const unsigned food = kFood;
  std::vector<Item> all;
  const char* pairs =
      "apple apples pear pears plum plums peach peaches lemon lemons orange oranges banana bananas cherry "
      "cherries grape grapes "
      "berry berries carrot carrots potato potatoes onion onions tomato tomatoes egg eggs nut nuts cookie "
      "cookies muffin "
      "muffins pancake pancakes sandwich sandwiches bun buns cake cakes pie pies melon melons bean beans";
  const auto words = split_words(pairs);
  for (size_t i = 0; i + 1 < words.size(); i += 2)
    all.push_back({words[i], words[i + 1], "eat it", "ate it", food});
  return all;
}

std::vector<Place> make_places() {
  const unsigned outdoor = kOutdoor, water = kWater, shop = kShop;
  return {
      {"park", "in the park", outdoor},
      {"garden", "in the garden", outdoor},
      {"forest", "in the forest", outdoor},
      {"beach", "at the beach", outdoor | water},
      {"lake", "at the lake", outdoor | water},
      {"river", "at the river", outdoor | water},
      {"pond", "at the pond", outdoor | water},
      {"farm", "at the farm", outdoor},
      {"field", "in the field", outdoor},
      {"hill", "on the hill", outdoor},
      {"meadow", "in the meadow", outdoor},
      {"playground", "at the playground", outdoor},
      {"yard", "in the yard", outdoor},
      {"market", "at the market", outdoor | shop},
      {"harbour", "at the harbour", outdoor | water},
      {"bridge", "on the bridge", outdoor},
      {"orchard", "in the orchard", outdoor},
      {"valley", "in the valley", outdoor},
      {"zoo", "at the zoo", outdoor},
      {"village", "in the village", outdoor},
      {"school", "at the school", 0},
      {"library", "in the library", 0},
      {"kitchen", "in the kitchen", 0},
      {"barn", "in the barn", 0},
      {"attic", "in the attic", 0},
      {"cellar", "in the cellar", 0},
      {"museum", "in the museum", 0},
      {"bakery", "at the bakery", shop},
      {"shop", "in the shop", shop},
      {"hall", "in the hall", 0},
      {"castle", "in the castle", 0},
      {"tower", "in the tower", 0},
      {"station", "at the station", 0},
      {"office", "in the office", 0},
      {"bedroom", "in the bedroom", 0},
      {"cave", "in the cave", 0},
  };
}

}  // namespace

const std::vector<Person>& people() {
  static const auto all = make_people();
  return all;
}
const std::vector<Item>& items() {
  static const auto all = make_items();
  return all;
}
const std::vector<Item>& foods() {
  static const auto all = make_foods();
  return all;
}
const std::vector<Place>& places() {
  static const auto all = make_places();
  return all;
}

namespace {

template <typename T>
std::vector<std::vector<T>> by_tag(const std::vector<T>& all) {
  std::vector<std::vector<T>> groups(16);
  for (const auto& one : all) {
    for (unsigned bit = 0; bit < 16; ++bit) {
      if (one.tags >> bit & 1) groups[bit].push_back(one);
    }
  }
  return groups;
}

}  // namespace

const std::vector<Item>& items_with(unsigned any_tag) {
  static const auto groups = by_tag(items());
  unsigned bit = 0;
  while (!(any_tag >> bit & 1)) ++bit;
  return groups[bit];
}

const std::vector<Place>& places_with(unsigned tag) {
  static const auto groups = by_tag(places());
  unsigned bit = 0;
  while (!(tag >> bit & 1)) ++bit;
  return groups[bit];
}

const std::vector<Animal>& characters() {
  static const std::vector<Animal> all = {
      {"fox", "foxes"},        {"rabbit", "rabbits"},   {"bear", "bears"},         {"mouse", "mice"},
      {"owl", "owls"},         {"frog", "frogs"},       {"hedgehog", "hedgehogs"}, {"squirrel", "squirrels"},
      {"duck", "ducks"},       {"cat", "cats"},         {"dog", "dogs"},           {"goat", "goats"},
      {"sheep", "sheep"},      {"pig", "pigs"},         {"beaver", "beavers"},     {"turtle", "turtles"},
      {"badger", "badgers"},   {"mole", "moles"},       {"otter", "otters"},       {"deer", "deer"},
      {"wolf", "wolves"},      {"lion", "lions"},       {"monkey", "monkeys"},     {"elephant", "elephants"},
      {"penguin", "penguins"}, {"raccoon", "raccoons"}, {"hamster", "hamsters"},   {"pony", "ponies"},
  };
  return all;
}

const std::vector<std::string>& colours() {
  static const auto all =
      split_words("red blue green yellow white black brown pink purple orange grey golden");
  return all;
}
const std::vector<std::string>& traits() {
  static const auto all = split_words(
      "kind brave shy clever quiet funny gentle curious happy polite careful honest patient busy friendly "
      "cheerful "
      "playful helpful little young");
  return all;
}
const std::vector<std::string>& jobs() {
  static const auto all = split_words(
      "baker farmer teacher doctor pilot painter singer driver cook nurse tailor builder gardener sailor "
      "dancer writer "
      "carpenter fisherman plumber barber");
  return all;
}
const std::vector<std::string>& indoor_spots() {
  static const std::vector<std::string> all = {"under the bed",      "on the shelf",    "behind the door",
                                               "in the drawer",      "under the table", "on the chair",
                                               "behind the curtain", "in the corner",   "near the window",
                                               "on the stairs",      "in the cupboard", "beside the stove"};
  return all;
}
const std::vector<std::string>& outdoor_spots() {
  static const std::vector<std::string> all = {"behind the tree",  "in the tall grass", "next to the rock",
                                               "under the bench",  "in the bush",       "beside the gate",
                                               "near the well",    "behind the shed",   "near the pump",
                                               "under the leaves", "beside the path",   "behind the fence"};
  return all;
}
const std::vector<std::string>& spots() {
  static const auto all = [] {
    auto both = indoor_spots();
    both.insert(both.end(), outdoor_spots().begin(), outdoor_spots().end());
    return both;
  }();
  return all;
}
const std::vector<std::string>& days() {
  static const auto all = split_words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday");
  return all;
}
const std::vector<Reason>& reasons() {
  static const std::vector<Reason> all = {
      {"sad", "{he} lost {his} hat"},       {"sad", "{his} toy was broken"},
      {"sad", "it rained all day"},         {"sad", "{his} friend moved away"},
      {"happy", "{he} won the race"},       {"happy", "{he} got a letter"},
      {"happy", "it was {his} birthday"},   {"happy", "the sun came out"},
      {"angry", "{his} tower fell down"},   {"angry", "somebody took {his} seat"},
      {"angry", "the game was not fair"},   {"scared", "{he} heard a loud noise"},
      {"scared", "the room was dark"},      {"scared", "{he} saw a big spider"},
      {"tired", "{he} ran up the hill"},    {"tired", "{he} worked all day"},
      {"tired", "{he} woke up too early"},  {"proud", "{he} fixed the fence"},
      {"proud", "{he} learned to swim"},    {"proud", "{he} told the truth"},
      {"hungry", "{he} missed lunch"},      {"hungry", "{he} did not eat breakfast"},
      {"cold", "{he} forgot {his} coat"},   {"cold", "the window was open"},
      {"wet", "{he} fell into the pond"},   {"wet", "{he} walked in the rain"},
      {"late", "{he} missed the bus"},      {"late", "the clock was slow"},
      {"bored", "there was nothing to do"}, {"bored", "{he} had to wait for an hour"},
  };
  return all;
}

void bind_person(Bindings& bindings, int who, const Person& person) {
  static constexpr const char* kNames[3][4] = {
      {"h", "h.he", "h.him", "h.his"}, {"f", "f.he", "f.him", "f.his"}, {"g", "g.he", "g.him", "g.his"}};
  const auto& names = kNames[who];
  bindings.set(names[0], person.name)
      .set(names[1], person.he())
      .set(names[2], person.him())
      .set(names[3], person.his());
}

std::vector<Person> draw_people(Rng& rng, int count) {
  std::vector<Person> drawn;
  while (static_cast<int>(drawn.size()) < count) {
    const Person& person = pick(people(), rng);
    bool known = false;
    for (const auto& other : drawn) known = known || other.name == person.name;
    if (!known) drawn.push_back(person);
  }
  return drawn;
}

std::string counted(int count, const Item& item) {
  return std::to_string(count) + " " + (count == 1 ? item.noun : item.plural);
}

}  // namespace qkv::tales
