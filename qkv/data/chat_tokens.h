// Records as tokens, with a mask of what is learned: the assistant's words and what ends its turn,
// completions, or whole texts.
//
// What the assistant said is found by the template engine, which knows of every byte whether a message or the
// template gave it (text/chat_template.h); where rendering the conversation up to the answer gives the
// beginning of the whole rendering, the answer begins there, so that what the template puts around tool calls
// is learned too. {% generation %} marks, where a template has them, decide alone.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "qkv/data/records.h"
#include "qkv/text/chat_template.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

struct TokenSample {
  std::vector<int32_t> tokens;
  std::vector<char> learned;  // as long: 1 where the token is to be predicted
  int64_t learned_count() const;
};

class ChatTokens {
 public:
  // The tokenizer's own template, or plain_chat_template() if it has none. Both must outlive this object.
  explicit ChatTokens(const Tokenizer& tokenizer);

  // Learned: all assistant turns of a conversation; the answer after a prompt; all of a text, with EOS. Error
  // naming the record if the template leaves an assistant turn out, or changes a text so that its words
  // cannot be found.
  TokenSample sample(const Record& record) const;
  // The same with the rejected answer.
  TokenSample rejected(const Record& record) const;

  const Tokenizer& tokenizer() const { return tokenizer_; }
  const ChatTemplate& chat_template() const { return template_; }
  // The tokenizer had none.
  bool has_plain_template() const { return plain_; }

 private:
  TokenSample answered(const Record& record, const Said& answer) const;
  TokenSample conversation(const Json& messages, size_t first_learned, const Record& record) const;
  TokenSample text(const std::string& prompt, const std::string& answer, const std::string& where) const;

  const Tokenizer& tokenizer_;
  bool plain_;
  ChatTemplate template_;
};

// "Question: ...\nAnswer: ...<eos>\n": for base models without markers of turns.
const std::string& plain_chat_template();

}  // namespace qkv
