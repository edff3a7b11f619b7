// A chat as the tokens a model reads: how turns are marked, and which of them still fit the context.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/engine/engine.h"
#include "qkv/text/chat_template.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

// How the turns of a chat are written.
struct ChatForm {
  enum class Kind {
    model,   // by a Jinja template: the model's own, or one from a file
    chatml,  // <|im_start|>role\n...<|im_end|>\n
    qa,      // Question: ...\nAnswer: ...
    plain,   // what was said, one line after the other
  };
  Kind kind = Kind::plain;
  std::optional<ChatTemplate> chat_template;  // of Kind::model
};
// "chatml", "qa", "plain", the path of a Jinja file, or "auto": the template that came with the vocabulary,
// else chatml if the vocabulary has its two markers, else qa. Error otherwise.
ChatForm make_chat_form(const std::string& choice, const Tokenizer& tokenizer, const std::string& model);

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
  // The turns as JSON, and from it; `where` names it in errors.
  std::string save() const;
  void restore(const std::string& json, const std::string& where);

  // Turns dropped by the last ask().
  int64_t dropped() const { return dropped_; }
  // What ends an answer in this form, beside the tokenizer's own stop ids.
  std::vector<std::string> stop_strings() const;
  const std::vector<int32_t>& stop_ids() const { return stop_ids_; }

 private:
  struct Turn {
    std::string question, answer;
    std::vector<int32_t> answer_tokens;  // without the token that ended it
    bool answered = false;
  };
  std::vector<int32_t> tokens() const;
  std::vector<int32_t> template_tokens() const;
  std::vector<int32_t> chatml_tokens() const;
  std::string text() const;

  const Tokenizer& tokenizer_;
  ChatForm form_;
  std::string system_;
  std::vector<Turn> turns_;
  std::vector<int32_t> stop_ids_;
  int64_t dropped_ = 0;
};

}  // namespace qkv
