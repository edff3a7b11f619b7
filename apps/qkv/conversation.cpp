#include "conversation.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"

namespace qkv {
namespace {

constexpr std::string_view kStart = "<|im_start|>", kEnd = "<|im_end|>";

}  // namespace

ChatForm make_chat_form(const std::string& choice, const Tokenizer& tokenizer, const std::string& model) {
  const bool has_markers = tokenizer.token_to_id(kStart) && tokenizer.token_to_id(kEnd);
  if (choice == "auto") {
    if (auto own = make_chat_template(tokenizer, false, model))
      return {ChatForm::Kind::model, std::move(own)};
    return {has_markers ? ChatForm::Kind::chatml : ChatForm::Kind::qa, std::nullopt};
  }
  if (choice == "chatml") {
    require(has_markers, "--template chatml: expected {} and {} in the vocabulary, found no such tokens",
            kStart, kEnd);
    return {ChatForm::Kind::chatml, std::nullopt};
  }
  if (choice == "qa") return {ChatForm::Kind::qa, std::nullopt};
  if (choice == "plain") return {ChatForm::Kind::plain, std::nullopt};
  require(std::filesystem::exists(choice) && !std::filesystem::is_directory(choice),
          "--template: expected auto, chatml, qa, plain or a file, found '{}'", choice);
  return {ChatForm::Kind::model, ChatTemplate(read_file(choice), choice)};
}

Conversation::Conversation(const Tokenizer& tokenizer, ChatForm form, std::string system)
    : tokenizer_(tokenizer), form_(std::move(form)), system_(std::move(system)) {
  if (form_.kind == ChatForm::Kind::chatml) stop_ids_ = {*tokenizer_.token_to_id(kEnd)};
  if (form_.kind == ChatForm::Kind::model) stop_ids_ = end_of_turn_ids(tokenizer_, *form_.chat_template);
}

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
  const bool stopped = completion.finish == FinishReason::stop;
  const bool by_id =
      stopped && std::find(stop_ids_.begin(), stop_ids_.end(), completion.tokens.back()) != stop_ids_.end();
  if (completion.finish == FinishReason::eos || by_id) {
    turn.answer_tokens.pop_back();
  } else if (stopped) {  // the last tokens spell a stop string, and may begin before it
    turn.answer_tokens = tokenizer_.encode(turn.answer, {.add_special = false, .parse_special = false});
  }
}

std::string Conversation::save() const {
  Json turns = Json::array();
  for (const Turn& turn : turns_) {
    if (!turn.answered) continue;
    turns.push_back(
        {{"question", turn.question}, {"answer", turn.answer}, {"answer_tokens", turn.answer_tokens}});
  }
  return dump_json({{"system", system_}, {"turns", turns}});
}

void Conversation::restore(const std::string& json, const std::string& where) {
  const Json saved = parse_json(json.empty() ? "{}" : json, where);
  const JsonView view(saved, where);
  const Json* turns = view.find("turns");
  require(turns != nullptr && turns->is_array(),
          "{}: expected a session of 'qkv chat', found none of its turns", where);
  if (system_.empty()) system_ = view.string_or("system", "");
  for (const Json& entry : *turns) {
    const JsonView turn(entry, where, "turns");
    const Json* tokens = turn.find("answer_tokens");
    require(tokens != nullptr && tokens->is_array(), "{}: key 'turns.answer_tokens': expected token ids",
            where);
    Turn restored{turn.string("question"), turn.string("answer"), {}, true};
    for (const Json& id : *tokens) {
      require(id.is_number_integer() && id >= 0 && id < tokenizer_.vocab_size(),
              "{}: key 'turns.answer_tokens': expected token ids below {}", where, tokenizer_.vocab_size());
      restored.answer_tokens.push_back(id.get<int32_t>());
    }
    turns_.push_back(std::move(restored));
  }
}

std::vector<std::string> Conversation::stop_strings() const {
  if (form_.kind == ChatForm::Kind::qa) return {"\nQuestion:"};
  return {};
}

std::vector<int32_t> Conversation::tokens() const {
  if (form_.kind == ChatForm::Kind::model) return template_tokens();
  if (form_.kind == ChatForm::Kind::chatml) return chatml_tokens();
  std::vector<int32_t> result = tokenizer_.prefix_ids();
  const std::vector<int32_t> body = tokenizer_.encode(text(), {.add_special = false, .parse_special = false});
  result.insert(result.end(), body.begin(), body.end());
  return result;
}

// All of it anew: a template may write earlier turns in another way than the last one (without their
// reasoning).
std::vector<int32_t> Conversation::template_tokens() const {
  Json messages = Json::array();
  const auto say = [&](const char* role, const std::string& text) {
    messages.push_back({{"role", role}, {"content", text}});
  };
  if (!system_.empty()) say("system", system_);
  for (const Turn& turn : turns_) {
    say("user", turn.question);
    if (turn.answered) say("assistant", turn.answer);
  }
  ChatTemplateOptions options;
  options.special_tokens = template_special_tokens(tokenizer_);
  return encode_chat(tokenizer_, form_.chat_template->render(messages, options));
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
    result +=
        form_.kind == ChatForm::Kind::qa ? "Question: " + turn.question + "\nAnswer:" : turn.question + "\n";
    if (turn.answered) result += turn.answer + "\n";
  }
  return result;
}

}  // namespace qkv
