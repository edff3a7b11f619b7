// A chat as the tokens a model reads: how turns are marked, and which of them still fit the context.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/engine/engine.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

enum class ChatForm {
  chatml,  // <|im_start|>role\n...<|im_end|>\n
  qa,      // Question: ...\nAnswer: ...
  plain,   // what was said, one line after the other
};
// "chatml", "qa", "plain", or "auto": chatml if the vocabulary has its two markers, else qa. Error otherwise.
ChatForm chat_form(const std::string& name, const Tokenizer& tokenizer);
std::string_view chat_form_name(ChatForm form);

class Conversation {
 public:
  // `tokenizer` must outlive the conversation. `system` may be empty.
  Conversation(const Tokenizer& tokenizer, ChatForm form, std::string system);

  // The tokens up to where the answer to `question` begins. If they leave fewer than `reserve` tokens of
  // `context`, the oldest turns are dropped for good.
  std::vector<int32_t> ask(std::string question, int64_t context, int64_t reserve);
  // Completes the turn that ask() began.
  void answer(const Completion& completion);
  void clear() { turns_.clear(); }

  // Turns dropped by the last ask().
  int64_t dropped() const { return dropped_; }
  // What ends an answer in this form.
  std::vector<std::string> stop_strings() const;
  std::vector<int32_t> stop_ids() const;

 private:
  struct Turn {
    std::string question, answer;
    std::vector<int32_t> answer_tokens;  // without the token that ended it
    bool answered = false;
  };
  std::vector<int32_t> tokens() const;
  std::vector<int32_t> chatml_tokens() const;
  std::string text() const;

  const Tokenizer& tokenizer_;
  ChatForm form_;
  std::string system_;
  std::vector<Turn> turns_;
  int64_t dropped_ = 0;
};

}  // namespace qkv
