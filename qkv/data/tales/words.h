// The word lists of the story world.
#pragma once

#include <string>
#include <vector>

#include "qkv/core/rng.h"
#include "qkv/data/tales/render.h"

namespace qkv::tales {

struct Person {
  std::string name;
  bool female = false;
  const char* he() const { return female ? "she" : "he"; }
  const char* him() const { return female ? "her" : "him"; }
  const char* his() const { return female ? "her" : "his"; }
};

// What can be done with a thing and where it can be.
enum Tag : unsigned {
  kToy = 1,  // played with
  kFood = 2,
  kSmall = 4,    // fits in a pocket
  kFragile = 8,  // breaks when it falls
  kWear = 16,
  kOutdoor = 32,  // place under the sky
  kWater = 64,    // place with water
  kShop = 128,    // place where things are sold
  kFlies = 256,   // gets stuck in trees
  kWarm = 512,    // can be put around somebody
  kDish = 1024,   // holds dough
};

struct Item {
  std::string noun;
  std::string plural;
  std::string use;   // infinitive with "it": "fly it"
  std::string used;  // past: "flew it"
  unsigned tags = 0;
};

struct Place {
  std::string noun;  // "park"
  std::string in;    // "in the park"
  unsigned tags = 0;
};

struct Animal {
  std::string noun;
  std::string plural;
};

// Past-tense feeling and a reason with the slots {he}, {his}: {"sad", "{he} lost {his} hat", "lost {his}
// hat"}.
struct Reason {
  std::string feeling;
  std::string clause;
};

const std::vector<Person>& people();
const std::vector<Item>& items();  // things, without food
const std::vector<Item>& items_with(
    unsigned any_tag);             // those with at least one of the tags; `any_tag` is one Tag
const std::vector<Item>& foods();  // the first kFruits of them grow on trees and bushes
inline constexpr uint64_t kFruits = 10;
const std::vector<Place>& places();
const std::vector<Place>& places_with(unsigned tag);
const std::vector<Animal>& characters();  // animals that act in stories
const std::vector<std::string>& colours();
const std::vector<std::string>& traits();
const std::vector<std::string>& jobs();
const std::vector<std::string>& indoor_spots();   // "under the bed"
const std::vector<std::string>& outdoor_spots();  // "behind the tree"
const std::vector<std::string>& spots();          // both
const std::vector<std::string>& days();
const std::vector<Reason>& reasons();

// Binds "<p>", "<p>.he", "<p>.him", "<p>.his" for p in {"h","f","g"}; `who` 0, 1 or 2 chooses p.
void bind_person(Bindings& bindings, int who, const Person& person);
// `count` different people.
std::vector<Person> draw_people(Rng& rng, int count);
// "3 apples", "1 apple".
std::string counted(int count, const Item& item);

}  // namespace qkv::tales
