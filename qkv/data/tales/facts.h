// Invented worlds: towns, rivers, people, animals and shops whose facts agree with each other.
#pragma once

#include <string>
#include <vector>

#include "qkv/data/tales/draw.h"
#include "qkv/data/tales/questions.h"

namespace qkv::tales {

struct WorldSize {
  int towns, rivers, people, animals, shops;
};

struct Entity {
  std::string id;     // "town-3"
  std::string title;  // "The town of Pellow"
  std::string text;
  std::vector<Asked> questions;  // one per fact of the text
};

struct TwoHop {
  Asked asked;
  size_t first, second;  // entities: the one that is named, the one that has the answer
};

struct World {
  std::vector<Entity> entities;
  std::vector<TwoHop> two_hops;
};

// Every name belongs to the draw's split ("fact|Pellow" is its key; keys go to the draw). Sizes of at least
// one each.
World make_world(Draw& draw, const WorldSize& size);

// Some documents of a small world of its own, with questions of kinds "fact" and "fact_two_hop".
Passage make_fact_passage(Draw& draw, bool two_hop);
const std::vector<QuestionKind>& fact_kinds();

}  // namespace qkv::tales
