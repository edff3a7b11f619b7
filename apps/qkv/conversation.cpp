#include "conversation.h"

#include <algorithm>

#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr std::string_view kStart = "<|im_start|>", kEnd = "<|im_end|>";

}  // namespace

ChatForm chat_form(const std::string& name, const Tokenizer& tokenizer) {
  const bool has_markers = tokenizer.token_to_id(kStart) && tokenizer.token_to_id(kEnd);
  if (name == "auto") return has_markers ? ChatForm::chatml : ChatForm::qa;
  if (name == "chatml") {
    require(has_markers, "--template chatml: expected {} and {} in the vocabulary, found no such tokens",
            kStart, kEnd);
    return ChatForm::chatml;
  }
  if (name == "qa") return ChatForm::qa;
  if (name == "plain") return ChatForm::plain;
  fail("--template: expected auto, chatml, qa or plain, found '{}'", name);
}

std::string_view chat_form_name(ChatForm form) {
  switch (form) {
    case ChatForm::chatml:
      return "chatml";
    case ChatForm::qa:
      return "qa";
    case ChatForm::plain:
      return "plain";
  }
  return "";
}

Conversation::Conversation(const Tokenizer& tokenizer, ChatForm form, std::string system)
    : tokenizer_(tokenizer), form_(form), system_(std::move(system)) {}

std::vector<int32_t> Conversation::ask(std::string question, int64_t context, int64_t reserve) {
  // A question that got no answer (an error, the context was too short) is taken back.
  if (!turns_.empty() && !turns_.back().answered) turns_.pop_back();
  turns_.push_back({std::move(question), {}, {}, false});
  dropped_ = 0;
  std::vector<int32_t> result = tokens();
  while (turns_.size() > 1 && static_cast<int64_t>(result.size()) + reserve > context) {
    turns_.erase(turns_.begin());
    ++dropped_;
    result = tokens();
  }
  return result;
}

void Conversation::answer(const Completion& completion) {
  Turn& turn = turns_.back();
  turn.answered = true;
  turn.answer = completion.text;
  turn.answer_tokens = completion.tokens;
  const std::vector<int32_t> ids = stop_ids();
  const bool stopped = completion.finish == FinishReason::stop;
  const bool by_id = stopped && std::find(ids.begin(), ids.end(), completion.tokens.back()) != ids.end();
  if (completion.finish == FinishReason::eos || by_id) {
    turn.answer_tokens.pop_back();
  } else if (stopped) {  // the last tokens spell a stop string, and may begin before it
    turn.answer_tokens = tokenizer_.encode(turn.answer, {.add_special = false, .parse_special = false});
  }
}

std::vector<std::string> Conversation::stop_strings() const {
  if (form_ == ChatForm::qa) return {"\nQuestion:"};
  return {};
}

std::vector<int32_t> Conversation::stop_ids() const {
  if (form_ == ChatForm::chatml) return {*tokenizer_.token_to_id(kEnd)};
  return {};
}

std::vector<int32_t> Conversation::tokens() const {
  if (form_ == ChatForm::chatml) return chatml_tokens();
  std::vector<int32_t> result = tokenizer_.prefix_ids();
  const std::vector<int32_t> body = tokenizer_.encode(text(), {.add_special = false, .parse_special = false});
  result.insert(result.end(), body.begin(), body.end());
  return result;
}

// Marker by marker, so that what a person types can never become one.
std::vector<int32_t> Conversation::chatml_tokens() const {
  const int32_t start = *tokenizer_.token_to_id(kStart), end = *tokenizer_.token_to_id(kEnd);
  std::vector<int32_t> result = tokenizer_.prefix_ids();
  const auto append = [&](const std::string& text) {
    const std::vector<int32_t> ids = tokenizer_.encode(text, {.add_special = false, .parse_special = false});
    result.insert(result.end(), ids.begin(), ids.end());
  };
  const auto message = [&](const std::string& role_and_text) {
    result.push_back(start);
    append(role_and_text);
    result.push_back(end);
    append("\n");
  };
  if (!system_.empty()) message("system\n" + system_);
  for (const Turn& turn : turns_) {
    message("user\n" + turn.question);
    result.push_back(start);
    append("assistant\n");
    if (!turn.answered) continue;
    result.insert(result.end(), turn.answer_tokens.begin(), turn.answer_tokens.end());
    result.push_back(end);
    append("\n");
  }
  return result;
}

std::string Conversation::text() const {
  std::string result = system_.empty() ? "" : system_ + "\n";
  for (const Turn& turn : turns_) {
    result += form_ == ChatForm::qa ? "Question: " + turn.question + "\nAnswer:" : turn.question + "\n";
    if (turn.answered) result += turn.answer + "\n";
  }
  return result;
}

}  // namespace qkv
