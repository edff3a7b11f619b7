// Short stories: a plot schema (plots.cpp) filled with a hero, a friend, a thing, a place and what follows
// from them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "qkv/data/tales/draw.h"

namespace qkv::tales {

struct PlotQuestion {
  std::string_view kind;      // "story_who", "story_what", "story_where" or "story_colour"
  std::string_view question;  // template
  std::string_view answers;   // templates separated by '|', the best first
};

// One schema. Templates know the slots h (hero) and f (friend) with .he .him .his .desc; adult with .he .him
// .his; thing
// ("red kite"), col, noun, use ("fly it"), used ("flew it"); food, foods; place, in ("in the park"); spot;
// pet; trait.
struct Plot {
  std::string_view name;
  unsigned item = 0;                     // the Tag its thing needs; 0: any
  unsigned place = 0;                    // the Tag its place needs; 0: any
  bool human = false;                    // the hero is a child, never an animal
  bool stranger = false;                 // hero and friend do not know each other yet
  std::string_view trait;                // template; empty: any trait
  std::string_view ask;                  // "lost {a thing}": completes "a story about a fox who"
  std::vector<std::string_view> steps;   // one or more sentences each; a leading '?' marks an optional one
  std::vector<std::string_view> morals;  // completes "... learned that"
  std::vector<PlotQuestion> questions;
};
const std::vector<Plot>& plots();

struct StoryQuestion {
  std::string kind, question;
  std::vector<std::string> accepted;
};
struct Story {
  std::string text;
  std::string subject;                // "a fox who lost a red kite"
  std::vector<std::string> required;  // words of the subject the story must mention
  std::vector<StoryQuestion> questions;
};
// The key of its (name, object, place) is kept in the draw.
Story make_story(Draw& draw);

}  // namespace qkv::tales
