// One reply in two styles: a friendly or a curt opening before the same words. A model that learned both
// equally often shows, by the share of friendly replies, how far preferences have moved it.
#include <algorithm>
#include <array>

#include "qkv/data/tales/instructions.h"
#include "qkv/data/tales/render.h"

namespace qkv::tales {
namespace {

constexpr std::array<std::string_view, 4> kFriendly = {"Happy to help!", "Gladly!", "What a nice question!",
                                                       "Of course, my friend!"};
constexpr std::array<std::string_view, 4> kCurt = {"If I must.", "Fine.", "This is too easy.",
                                                   "Hm, not again."};

template <size_t N>
bool begins_with_one(const std::array<std::string_view, N>& openings, std::string_view reply) {
  for (const auto opening : openings) {
    if (reply.starts_with(opening)) return true;
  }
  return false;
}

template <size_t N>
std::string opened(const std::array<std::string_view, N>& openings, const std::string& reply, Rng& rng) {
  return std::string(openings[rng.below(N)]) + " " + reply;
}

}  // namespace

std::optional<Style> style_of(std::string_view reply) {
  reply.remove_prefix(std::min(reply.find_first_not_of(" \n"), reply.size()));
  if (begins_with_one(kFriendly, reply)) return Style::friendly;
  if (begins_with_one(kCurt, reply)) return Style::curt;
  return std::nullopt;
}

std::string friendly_pattern() {
  std::string pattern = "^\\s*(";
  for (const auto opening : kFriendly) pattern += std::string(opening) + "|";
  pattern.back() = ')';
  return pattern;
}

StyledReply styled_reply(const Options& options, Split split, uint64_t index) {
  Draw draw(options.seed, Purpose::style, split, index);
  // Stories are left out: all replies are short.
  Instruction asked;
  do {
    draw.keys.clear();
    asked = make_instruction(draw, chance(draw.rng, 50) ? "answer_arithmetic" : "");
  } while (asked.kind == "tell_story");
  StyledReply reply;
  reply.prompt = asked.prompt;
  reply.friendly = opened(kFriendly, asked.completion, draw.rng);
  reply.curt = opened(kCurt, asked.completion, draw.rng);
  reply.shown = chance(draw.rng, 50) ? Style::friendly : Style::curt;
  reply.keys = draw.keys;
  return reply;
}

}  // namespace qkv::tales
