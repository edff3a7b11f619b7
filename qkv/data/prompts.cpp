#include "qkv/data/prompts.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/mapped_file.h"
#include "qkv/data/chat_tokens.h"

namespace qkv {
namespace {

Json checked_messages(const Json& list, const char* field, const std::string& where) {
  require(list.is_array() && !list.empty(), "{}: {}: expected a text or a list of messages, found {}", where,
          field, list.is_array() ? "an empty list" : list.type_name());
  for (size_t i = 0; i < list.size(); ++i) {
    const bool whole = list[i].is_object() && list[i].contains("role") && list[i]["role"].is_string() &&
                       list[i].contains("content");
    require(whole, "{}: {}[{}]: expected an object with role and content, found another value", where, field,
            i);
  }
  Json messages = list;
  while (!messages.empty() && messages.back()["role"] == "assistant") messages.erase(messages.size() - 1);
  require(!messages.empty(), "{}: {}: expected a message before the assistant's, found none", where, field);
  return messages;
}

Prompt parse_prompt(const Json& object, const std::string& where) {
  require(object.is_object(), "{}: record: expected an object, found {}", where, object.type_name());
  const char* field = object.contains("prompt") ? "prompt" : "messages";
  if (!object.contains(field)) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : object.items()) keys.push_back(key);
    fail("{}: prompt: expected a text or messages, found no such field among {}{}", where,
         fmt::join(keys, ", "), suggestion("prompt", keys));
  }
  Prompt prompt;
  prompt.where = where;
  prompt.record = std::make_shared<const Json>(object);
  const Json& value = object[field];
  if (value.is_string()) {
    prompt.said.text = prompt.text = value.get<std::string>();
    require(prompt.text.find_first_not_of(" \t\r\n") != std::string::npos,
            "{}: {}: expected a text, found an empty one", where, field);
    return prompt;
  }
  prompt.said.messages = std::make_shared<const Json>(checked_messages(value, field, where));
  const Json& last = prompt.said.messages->back()["content"];
  prompt.text = last.is_string() ? last.get<std::string>() : dump_json(last);
  return prompt;
}

}  // namespace

std::vector<Prompt> parse_prompts(std::string_view text, const std::string& path, int64_t limit) {
  std::vector<Prompt> all;
  const size_t start = text.find_first_not_of(" \t\r\n");
  if (start != std::string_view::npos && text[start] == '[') {
    const Json list = parse_json(text, path);
    for (size_t i = 0; i < list.size(); ++i)
      all.push_back(parse_prompt(list[i], fmt::format("{}:[{}]", path, i)));
  } else {
    int64_t line = 0;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      const std::string_view content = text.substr(begin, end - begin);
      begin = end + 1;
      ++line;
      if (content.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      const std::string where = fmt::format("{}:{}", path, line);
      all.push_back(parse_prompt(parse_json(content, where), where));
    }
  }
  require(!all.empty(), "{}: expected prompts, found none", path);
  const auto count = static_cast<int64_t>(all.size());
  if (limit <= 0 || limit >= count) return all;
  std::vector<Prompt> chosen;
  for (int64_t i = 0; i < limit; ++i)
    chosen.push_back(std::move(all[static_cast<size_t>(i * count / limit)]));
  return chosen;
}

std::vector<Prompt> read_prompts(const std::string& path, int64_t limit) {
  const auto file = MappedFile::open(path);
  return parse_prompts({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()}, path,
                       limit);
}

int64_t tokenize_prompts(std::vector<Prompt>& prompts, const Tokenizer& tokenizer, bool chat,
                         int64_t max_tokens) {
  const ChatTokens form(tokenizer);
  ChatTemplateOptions options;
  options.special_tokens = template_special_tokens(tokenizer);
  for (Prompt& prompt : prompts) {
    if (!prompt.said.is_chat() && !chat) {
      prompt.tokens = tokenizer.prefix_ids();
      const std::vector<int32_t> ids =
          tokenizer.encode(prompt.said.text, {.add_special = false, .parse_special = false});
      prompt.tokens.insert(prompt.tokens.end(), ids.begin(), ids.end());
      continue;
    }
    const Json messages = prompt.said.is_chat()
                              ? *prompt.said.messages
                              : Json::array({{{"role", "user"}, {"content", prompt.said.text}}});
    try {
      prompt.tokens = encode_chat(tokenizer, form.chat_template().render(messages, options));
    } catch (const Error& error) {
      fail("{}: messages: {}", prompt.where, error.what());
    }
  }
  const size_t before = prompts.size();
  std::erase_if(prompts, [&](const Prompt& prompt) {
    return prompt.tokens.empty() || static_cast<int64_t>(prompt.tokens.size()) > max_tokens;
  });
  require(!prompts.empty(), "data: no prompt is left: all {} have more than {} tokens", before, max_tokens);
  return static_cast<int64_t>(before - prompts.size());
}

std::vector<int32_t> answer_ends(const Tokenizer& tokenizer) {
  const ChatTokens form(tokenizer);
  return end_of_turn_ids(tokenizer, form.chat_template());
}

}  // namespace qkv
