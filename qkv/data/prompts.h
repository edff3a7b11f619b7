// Prompts without answers: what on-policy training and evaluation sample from. JSON lines, or a JSON file
// with one list, of
//   {"prompt": text or messages, ...}  or  {"messages": [...], ...}, whose last turn is the assistant's to
//   make
// (an answer at the end is left out). The other fields stay as they are: rewards read them ("answer",
// "accepted", "numeric").
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qkv/data/records.h"
#include "qkv/text/chat_template.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

struct Prompt {
  std::string where;                   // "file:12": opens error sentences
  Said said;                           // a text, or messages
  std::shared_ptr<const Json> record;  // the whole object
  std::string text;                    // the prompt, or the last message's words: what rewards see
  std::vector<int32_t> tokens;         // up to where the answer begins; empty until tokenize_prompts()
};

// `limit` > 0: at most that many, spread evenly over the file. Throws Error `<file>:<line>: <field>: expected
// ..., found ...`.
std::vector<Prompt> read_prompts(const std::string& path, int64_t limit = 0);
// The same from memory; `path` names it.
std::vector<Prompt> parse_prompts(std::string_view text, const std::string& path, int64_t limit = 0);

// Fills `tokens`. Messages are written by the tokenizer's chat template (plain_chat_template() if it has
// none), and so are texts, as what a user says, if `chat`. Prompts of more than `max_tokens` are taken out;
// returns how many. Error if none is left.
int64_t tokenize_prompts(std::vector<Prompt>& prompts, const Tokenizer& tokenizer, bool chat,
                         int64_t max_tokens);

// What ends an answer by the tokenizer's chat template, beside its own stop ids.
std::vector<int32_t> answer_ends(const Tokenizer& tokenizer);

}  // namespace qkv
