// Things a user asks for, with a right reply and how to check one.
#pragma once

#include <string_view>

#include "qkv/data/tales/draw.h"
#include "qkv/data/tales/questions.h"

namespace qkv::tales {

// Keys go to the draw and the result. `kind` empty: any.
Instruction make_instruction(Draw& draw, std::string_view kind = "");
// A question as a user asks it and a short full reply: "A red kite.".
Instruction as_instruction(const Question& question);
// "A red kite." of "a red kite".
std::string as_sentence(std::string_view answer);

}  // namespace qkv::tales
