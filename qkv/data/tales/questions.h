// Questions about short passages: a scene states a few facts of one form, and each fact can be asked for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "qkv/data/tales/draw.h"

namespace qkv::tales {

// One question of a passage, without the passage.
struct Asked {
  std::string kind;
  std::string question;
  std::vector<std::string> accepted;  // the answer first
  double chance = 0;
  bool numeric = false;
  bool copied = true;
};

struct Passage {
  std::string text;
  std::vector<Asked> questions;
};

// A passage with at least one question of the kind; empty: any kind. Keys go to the draw.
Passage make_passage(Draw& draw, std::string_view kind = "");
const std::vector<QuestionKind>& passage_kinds();

// "Question: <q>\nAnswer:" after the passage.
std::string question_prompt(std::string_view passage, std::string_view question);
Question ask(const Passage& passage, const Asked& asked);

}  // namespace qkv::tales
