#include "qkv/data/chat_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"

namespace qkv {
namespace {

// Where each token's bytes lie in the text. Vocabularies may put a space before the first word of a stretch,
// which the text does not have; a token that spells something else than the text has been rewritten.
std::vector<TextRange> places_of(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                                 std::string_view text, const std::string& where) {
  std::vector<TextRange> places;
  size_t at = 0;
  for (const int32_t id : ids) {
    std::string_view bytes = tokenizer.token_bytes(id);
    if (text.substr(at, bytes.size()) != bytes && !bytes.empty() && bytes.front() == ' ')
      bytes.remove_prefix(1);
    require(text.substr(at, bytes.size()) == bytes,
            "{}: the tokenizer rewrites the text at byte {} ('{}'), so what is learned cannot be marked",
            where, at, text.substr(at, 12));
    places.push_back({at, at + bytes.size()});
    at += bytes.size();
  }
  require(at == text.size(),
          "{}: the tokenizer drops the end of the text from byte {}, so what is learned cannot be marked",
          where, at);
  return places;
}

std::string role_of(const Json& message) {
  return message.value("role", "");
}

}  // namespace

int64_t TokenSample::learned_count() const {
  return std::count(learned.begin(), learned.end(), 1);
}

const std::string& plain_chat_template() {
  static const std::string source =
      "{%- for message in messages -%}"
      "{%- if message['role'] == 'assistant' -%}{{ 'Answer: ' + message['content'] + eos_token + '\\n' }}"
      "{%- elif message['role'] == 'user' -%}{{ 'Question: ' + message['content'] + '\\n' }}"
      "{%- else -%}{{ message['content'] + '\\n' }}{%- endif -%}"
      "{%- endfor -%}"
      "{%- if add_generation_prompt -%}{{ 'Answer:' }}{%- endif -%}";
  return source;
}

ChatTokens::ChatTokens(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer), plain_(!tokenizer.chat_template().has_value()), template_([&] {
        auto own = make_chat_template(tokenizer, false, "chat template");
        return own ? std::move(*own) : ChatTemplate(plain_chat_template(), "plain chat template");
      }()) {}

TokenSample ChatTokens::sample(const Record& record) const {
  return answered(record, record.answer);
}
TokenSample ChatTokens::rejected(const Record& record) const {
  return answered(record, record.rejected);
}

TokenSample ChatTokens::answered(const Record& record, const Said& answer) const {
  if (!answer.is_chat()) return text(record.prompt.text, answer.text, record.where);
  Json messages = record.prompt.is_chat() ? *record.prompt.messages : Json::array();
  const size_t first = messages.size();
  for (const Json& message : *answer.messages) messages.push_back(message);
  return conversation(messages, first, record);
}

TokenSample ChatTokens::text(const std::string& prompt, const std::string& answer,
                             const std::string& where) const {
  TokenSample sample;
  sample.tokens = tokenizer_.prefix_ids();
  const std::string whole = prompt + answer;
  const std::vector<int32_t> ids = tokenizer_.encode(whole, {.add_special = false, .parse_special = false});
  const std::vector<TextRange> places = places_of(tokenizer_, ids, whole, where);
  sample.learned.assign(sample.tokens.size(), 0);
  for (size_t i = 0; i < ids.size(); ++i) {
    sample.tokens.push_back(ids[i]);
    sample.learned.push_back(places[i].end > prompt.size() ? 1 : 0);
  }
  if (tokenizer_.eos_id()) {
    sample.tokens.push_back(*tokenizer_.eos_id());
    sample.learned.push_back(1);
  }
  return sample;
}

TokenSample ChatTokens::conversation(const Json& messages, size_t first_learned, const Record& record) const {
  ChatTemplateOptions options;
  options.special_tokens = template_special_tokens(tokenizer_);
  options.add_generation_prompt = false;
  options.tools = record.tools.get();
  const auto render = [&](const Json& part) {
    try {
      return template_.render(part, options);
    } catch (const Error& error) {
      fail("{}: messages: {}", record.where, error.what());
    }
  };
  const RenderedChat chat = render(messages);
  TokenSample sample;
  sample.tokens = encode_chat(tokenizer_, chat);
  sample.learned.assign(sample.tokens.size(), 0);
  const std::vector<TextRange> places = places_of(tokenizer_, sample.tokens, chat.text, record.where);
  const auto learn = [&](size_t begin, size_t end) {
    for (size_t i = 0; i < places.size(); ++i) {
      if (places[i].end > begin && places[i].begin < end) sample.learned[i] = 1;
    }
  };
  if (!chat.generated.empty()) {
    for (const ChatSpan& span : chat.generated) learn(span.begin, span.end);
    return sample;
  }
  for (size_t m = first_learned; m < messages.size(); ++m) {
    if (role_of(messages[m]) != "assistant") continue;
    std::optional<TextRange> words;
    for (const ChatSpan& span : chat.spans) {
      if (span.source != ChatSpan::Source::message || span.message != static_cast<int64_t>(m) ||
          span.key == "role" || span.begin == span.end)
        continue;
      if (!words) words = TextRange{span.begin, span.end};
      words->end = std::max(words->end, span.end);
    }
    require(words.has_value(),
            "{}: messages[{}]: expected the template to show what the assistant says, found it left out",
            record.where, m);
    size_t begin = words->begin;
    if (m > 0) {
      options.add_generation_prompt = true;
      const std::string before =
          render(Json(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(m))).text;
      options.add_generation_prompt = false;
      if (before.size() <= begin && chat.text.starts_with(before)) begin = before.size();
    }
    learn(begin, words->end);
    // What ends the turn: what the template puts behind the words, up to its last special token; where the
    // conversation up to here is not the beginning of the whole, the first special token that only spaces
    // precede.
    const std::string through =
        render(Json(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(m) + 1)).text;
    const bool known = through.size() >= words->end && chat.text.starts_with(through);
    size_t end = words->end;
    for (size_t i = 0; i < places.size() && (!known || places[i].end <= through.size()); ++i) {
      if (places[i].begin < words->end) continue;
      const std::string_view bytes =
          std::string_view(chat.text).substr(places[i].begin, places[i].end - places[i].begin);
      if (tokenizer_.is_special(sample.tokens[i])) {
        end = places[i].end;
        if (!known) break;
      } else if (!known && bytes.find_first_not_of(" \t\r\n") != std::string_view::npos) {
        break;
      }
    }
    learn(words->end, end);
  }
  return sample;
}

}  // namespace qkv
