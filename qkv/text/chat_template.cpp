// The variables of a chat template, and what its marks mean.
#include "qkv/text/chat_template.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "qkv/core/error.h"
#include "qkv/text/tokenizer.h"

namespace qkv {
namespace {

// Numbers the sources of text: tag i is sources[i - 1].
class Sources {
 public:
  uint32_t add(ChatSpan::Source source, int64_t message = -1, std::string key = "") {
    ChatSpan span;
    span.source = source;
    span.message = message;
    span.key = std::move(key);
    spans_.push_back(std::move(span));
    return static_cast<uint32_t>(spans_.size());
  }
  const ChatSpan& operator[](uint32_t tag) const { return spans_[tag - 1]; }

 private:
  std::vector<ChatSpan> spans_;
};

jinja::Value message_value(jinja::Heap& heap, const Json& message, int64_t index, const std::string& name,
                           Sources& sources) {
  const std::string where = fmt::format("{}: messages[{}]", name, index);
  const uint32_t whole = sources.add(ChatSpan::Source::message, index);
  if (!message.is_object()) return jinja::from_json(heap, message, whole, where);
  auto dict = std::make_shared<jinja::Dict>();
  for (const auto& [key, value] : message.items()) {
    dict->set(heap.text(key),
              jinja::from_json(heap, value, sources.add(ChatSpan::Source::message, index, key),
                               fmt::format("{}.{}", where, key)));
  }
  return heap.dict(std::move(dict)).with_tag(whole);
}

}  // namespace

RenderedChat ChatTemplate::render(const Json& messages, const ChatTemplateOptions& options) const {
  require(messages.is_array(), "{}: messages: expected a list, found {}", name(), messages.type_name());
  require(options.variables == nullptr || options.variables->is_object(), "{}: variables: expected an object",
          name());
  Sources sources;
  const auto fill = [&](jinja::Heap& heap, jinja::Interpreter::Variables& variables) {
    for (const auto& [key, token] : options.special_tokens) variables[key] = heap.text(token);
    std::vector<jinja::Value> list;
    for (const auto& message : messages)
      list.push_back(message_value(heap, message, static_cast<int64_t>(list.size()), name(), sources));
    variables["messages"] = heap.list(std::move(list));
    variables["add_generation_prompt"] = jinja::Value(options.add_generation_prompt);
    if (options.tools != nullptr) {
      variables["tools"] =
          jinja::from_json(heap, *options.tools, sources.add(ChatSpan::Source::tools), name() + ": tools");
    }
    if (options.documents != nullptr) {
      variables["documents"] = jinja::from_json(
          heap, *options.documents, sources.add(ChatSpan::Source::documents), name() + ": documents");
    }
    if (options.variables != nullptr) {
      for (const auto& [key, value] : options.variables->items())
        variables[key] = jinja::from_json(heap, value, 0, fmt::format("{}: variable {}", name(), key));
    }
  };
  jinja::Rendering rendering =
      template_.render(fill, options.now.value_or(std::chrono::system_clock::now()), options.limits);
  RenderedChat chat;
  chat.text = std::move(rendering.text);
  for (const jinja::Mark& mark : rendering.marks) {
    const bool generated = mark.tag == jinja::kGenerationTag;
    ChatSpan span = generated ? ChatSpan() : sources[mark.tag];
    span.begin = mark.begin;
    span.end = mark.end;
    (generated ? chat.generated : chat.spans).push_back(std::move(span));
  }
  std::sort(chat.spans.begin(), chat.spans.end(), [](const ChatSpan& a, const ChatSpan& b) {
    return std::tie(a.begin, a.end, a.message, a.key) < std::tie(b.begin, b.end, b.message, b.key);
  });
  return chat;
}

std::optional<ChatTemplate> make_chat_template(const Tokenizer& tokenizer, bool with_tools,
                                               const std::string& name) {
  const auto& named = tokenizer.named_templates();
  if (const auto it = named.find("tool_use"); with_tools && it != named.end())
    return ChatTemplate(it->second, name + ": chat template 'tool_use'");
  if (!tokenizer.chat_template()) return std::nullopt;
  return ChatTemplate(*tokenizer.chat_template(), name + ": chat template");
}

std::map<std::string, std::string> template_special_tokens(const Tokenizer& tokenizer) {
  std::map<std::string, std::string> tokens;
  const auto add = [&](const char* name, std::optional<int32_t> id) {
    if (id) tokens[name] = tokenizer.id_to_token(*id);
  };
  add("bos_token", tokenizer.bos_id());
  add("eos_token", tokenizer.eos_id());
  add("pad_token", tokenizer.pad_id());
  add("unk_token", tokenizer.unk_id());
  return tokens;
}

std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, const RenderedChat& chat) {
  std::vector<TextRange> plain;
  for (const ChatSpan& span : chat.spans) {
    if (!plain.empty() && span.begin <= plain.back().end) {
      plain.back().end = std::max(plain.back().end, span.end);
    } else {
      plain.push_back({span.begin, span.end});
    }
  }
  return tokenizer.encode(chat.text, {.add_special = false, .parse_special = true, .plain = plain});
}

std::vector<int32_t> end_of_turn_ids(const Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  const Json messages = Json::array(
      {{{"role", "user"}, {"content", "question"}}, {{"role", "assistant"}, {"content", "answer"}}});
  ChatTemplateOptions options;
  options.add_generation_prompt = false;
  options.special_tokens = template_special_tokens(tokenizer);
  RenderedChat chat;
  try {
    chat = chat_template.render(messages, options);
  } catch (const Error&) {
    return {};  // it wants more than two plain messages
  }
  std::optional<size_t> end;
  for (const ChatSpan& span : chat.spans) {
    if (span.message == 1 && span.key == "content") end = span.end;
  }
  if (!end) return {};
  const size_t next = chat.text.find_first_not_of(" \t\r\n", *end);
  if (next == std::string::npos) return {};
  const auto ids = tokenizer.encode(std::string_view(chat.text).substr(next), {.add_special = false});
  if (ids.empty() || !tokenizer.is_special(ids.front())) return {};
  return {ids.front()};
}

}  // namespace qkv
