// Filling a plot schema.
#include "qkv/data/tales/stories.h"

#include "qkv/data/tales/words.h"

namespace qkv::tales {
namespace {

struct Cast {
  Person hero, other;
  std::string hero_species, friend_species;
  const Item* item;
  const Place* place;
};

const std::vector<std::string>& pets() {
  static const auto all = split_words("kitten puppy bird lamb duckling squirrel bunny hedgehog");
  return all;
}
const std::vector<std::string>& skills() {
  static const auto all = split_words("swim whistle skate juggle dance climb paint sew");
  return all;
}
const std::vector<std::string>& adults() {
  static const auto all = split_words("mother grandmother aunt father grandfather uncle");
  return all;
}

std::string child(const Person& person) {
  return person.female ? "girl" : "boy";
}

Cast draw_cast(const Plot& plot, Draw& draw) {
  Rng& rng = draw.rng;
  return draw.until_wanted(
      [&] {
        Cast cast;
        auto two = draw_people(rng, 2);
        // Mostly one "he" and one "she", so that pronouns are plain.
        if (two[0].female == two[1].female && chance(rng, 75)) {
          while (two[0].female == two[1].female) two[1] = pick(people(), rng);
        }
        cast.hero = two[0];
        cast.other = two[1];
        cast.hero_species = child(cast.hero);
        cast.friend_species = child(cast.other);
        if (!plot.human && chance(rng, 50)) {
          const uint64_t hero = rng.below(characters().size());
          const uint64_t other = (hero + 1 + rng.below(characters().size() - 1)) % characters().size();
          cast.hero_species = characters()[hero].noun;
          cast.friend_species = characters()[other].noun;
        }
        cast.item = &pick(plot.item ? items_with(plot.item) : items(), rng);
        cast.place = &pick(plot.place ? places_with(plot.place) : places(), rng);
        return cast;
      },
      [](const Cast& cast) { return make_key("story", cast.hero.name, cast.item->noun, cast.place->noun); });
}

std::string source(const Place& place) {
  return "from the " + place.noun;
}

Bindings bind(const Plot& plot, const Cast& cast, Rng& rng) {
  Bindings b;
  bind_person(b, 0, cast.hero);
  bind_person(b, 1, cast.other);
  const std::string trait = plot.trait.empty() ? pick(traits(), rng) : render(plot.trait, b, rng);
  std::string other_trait = pick(traits(), rng);
  while (other_trait == trait) other_trait = pick(traits(), rng);
  b.set("h.species", cast.hero_species).set("h.desc", trait + " " + cast.hero_species);
  b.set("f.desc", other_trait + " " + cast.friend_species);
  const uint64_t adult = rng.below(adults().size());
  const Person grown{adults()[adult], adult < 3};
  b.set("adult", grown.name)
      .set("adult.he", grown.he())
      .set("adult.him", grown.him())
      .set("adult.his", grown.his());
  const std::string& colour = pick(colours(), rng);
  const Item& item = *cast.item;
  b.set("col", colour).set("noun", item.noun).set("thing", colour + " " + item.noun);
  b.set("use", item.use).set("used", item.used);
  b.set("place", cast.place->noun).set("in", cast.place->in).set("from", source(*cast.place));
  // A plot that is set at home (children only, any place) hides things in the house.
  const bool outside = (cast.place->tags & kOutdoor) != 0 && !(plot.human && plot.place == 0);
  b.set("spot", pick(outside ? outdoor_spots() : indoor_spots(), rng));
  const Item& food = pick(foods(), rng);
  b.set("food", food.noun).set("foods", food.plural);
  const Item& fruit = foods()[rng.below(kFruits)];
  b.set("fruit", fruit.noun).set("fruits", fruit.plural);
  // What can be dug into the ground stands beside something, not in it.
  std::string near = pick(outdoor_spots(), rng);
  while (near.starts_with("in ") || near.starts_with("under ")) near = pick(outdoor_spots(), rng);
  b.set("near", near);
  std::string pet = pick(pets(), rng);
  while (pet == cast.hero_species || pet == cast.friend_species) pet = pick(pets(), rng);
  b.set("pet", pet).set("skill", pick(skills(), rng));
  return b;
}

constexpr std::string_view kOpening =
    "[Once upon a time, there was {a h.desc} named {h}.|There once was {a h.desc} named {h}.|{H} was {a "
    "h.desc}.|Long ago, in a small "
    "[town|village], there lived {a h.desc} named {h}.|This is a story about {h}, {a h.desc}.]";
constexpr std::string_view kFriend =
    "[{H.his} best friend was {a f.desc} named {f}.|{H} had a friend named {f}, {a f.desc}.]";
constexpr std::string_view kStranger =
    "[Not far away lived {a f.desc} named {f}.|In the same [town|village] lived {a f.desc} named {f}.]";
constexpr std::string_view kMoral =
    "[{H} learned that|From that day on, {h} knew that|And so they learned that|{H} never forgot that] ";

}  // namespace

Story make_story(Draw& draw) {
  Rng& rng = draw.rng;
  const Plot& plot = pick(plots(), rng);
  const Cast cast = draw_cast(plot, draw);
  const Bindings bindings = bind(plot, cast, rng);
  Story story;
  const auto sentence = [&](std::string_view text) {
    if (!story.text.empty()) story.text += ' ';
    render(text, bindings, rng, story.text);
  };
  const uint32_t fullness = chance(rng, 50) ? 30 : 80;  // shorter and longer tellings
  sentence(kOpening);
  if (chance(rng, 75)) sentence(plot.stranger ? kStranger : kFriend);
  for (const auto step : plot.steps) {
    if (step.front() != '?') {
      sentence(step);
    } else if (chance(rng, fullness)) {
      sentence(step.substr(1));
    }
  }
  if (chance(rng, fullness)) {
    sentence(kMoral);
    render(pick(plot.morals, rng), bindings, rng, story.text);
    story.text += '.';
  }

  story.subject = with_article(bindings.get("h.species")) + " who " + render(plot.ask, bindings, rng);
  story.required.push_back(bindings.get("h.species"));
  for (const auto& [slot, key] :
       {std::pair{"{a thing}", "noun"}, {"{a noun}", "noun"}, {"{foods}", "foods"}, {"{a food}", "food"}}) {
    if (plot.ask.find(slot) != std::string_view::npos) story.required.push_back(bindings.get(key));
  }
  for (const auto& asked : plot.questions) {
    StoryQuestion question{std::string(asked.kind), render(asked.question, bindings, rng), {}};
    for (size_t begin = 0; begin <= asked.answers.size();) {
      const size_t end = std::min(asked.answers.find('|', begin), asked.answers.size());
      question.accepted.push_back(render(asked.answers.substr(begin, end - begin), bindings, rng));
      begin = end + 1;
    }
    story.questions.push_back(std::move(question));
  }
  return story;
}

}  // namespace qkv::tales
