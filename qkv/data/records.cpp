#include "qkv/data/records.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/core/mapped_file.h"

namespace qkv {
namespace {

constexpr std::string_view kNames[] = {"text",       "alpaca",   "sharegpt", "messages", "prompt-completion",
                                       "preference", "unpaired", "rewarded"};

// One object of the file, with errors that name its line and the field.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  [[noreturn]] void wrong(const std::string& field, const std::string& expected,
                          const std::string& found) const {
    fail("{}: {}: expected {}, found {}", where_, field, expected, found);
  }
  bool has(const char* field) const { return object_.contains(field) && !object_[field].is_null(); }
  const Json& at(const char* field, const char* expected) const {
    if (!has(field)) {
      std::vector<std::string> keys;
      for (const auto& [key, value] : object_.items()) keys.push_back(key);
      fail("{}: {}: expected {}, found no such field among {}{}", where_, field, expected,
           fmt::join(keys, ", "), suggestion(field, keys));
    }
    return object_[field];
  }
  std::string text(const char* field, bool may_be_empty = false) const {
    const Json& value = at(field, "a text");
    if (!value.is_string()) wrong(field, "a text", value.type_name());
    const auto& result = value.get_ref<const std::string&>();
    if (!may_be_empty && result.find_first_not_of(" \t\r\n") == std::string::npos)
      wrong(field, "a text", result.empty() ? "an empty one" : "only spaces");
    return result;
  }
  const std::string& where() const { return where_; }

  // Checks a list of messages; `field` names it.
  Json messages(const Json& list, const std::string& field, bool answer_wanted) const {
    if (!list.is_array() || list.empty())
      wrong(field, "a list of messages", list.is_array() ? "an empty one" : list.type_name());
    bool answered = false;
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string name = fmt::format("{}[{}]", field, i);
      const Json& message = list[i];
      if (!message.is_object()) wrong(name, "an object with role and content", message.type_name());
      if (!message.contains("role") || !message["role"].is_string())
        wrong(name + ".role", "system, user, assistant or tool", "none");
      const auto role = message["role"].get<std::string>();
      if (role != "system" && role != "developer" && role != "user" && role != "assistant" &&
          role != "tool") {
        wrong(name + ".role", "system, user, assistant or tool", "'" + role + "'");
      }
      const bool calls = message.contains("tool_calls") && !message["tool_calls"].is_null();
      if (calls && (!message["tool_calls"].is_array() || message["tool_calls"].empty()))
        wrong(name + ".tool_calls", "a list of calls", "another value");
      const bool has_content = message.contains("content") && !message["content"].is_null();
      if (!has_content && !calls) wrong(name + ".content", "a text", "none");
      if (has_content && !message["content"].is_string() && !message["content"].is_array())
        wrong(name + ".content", "a text", message["content"].type_name());
      if (role == "assistant") {
        if (!calls && message["content"].is_string() &&
            message["content"].get_ref<const std::string&>().empty()) {
          wrong(name + ".content", "what the assistant says", "an empty text");
        }
        answered = true;
      }
    }
    if (answer_wanted && !answered) wrong(field, "a message of the assistant", "none");
    return list;
  }

  // A text, a message or a list of messages.
  Said said(const char* field) const {
    const Json& value = at(field, "a text or a list of messages");
    if (value.is_string()) return {text(field), nullptr};
    if (value.is_object()) return chat(messages(Json::array({normalized(value, field)}), field, false));
    return chat(messages(value, field, false));
  }

  static Said chat(Json messages) { return {"", std::make_shared<const Json>(std::move(messages))}; }

  // ShareGPT's message as OpenAI's.
  Json normalized(const Json& turn, const std::string& name) const {
    if (turn.is_object() && turn.contains("role")) return turn;
    if (!turn.is_object() || !turn.contains("from") || !turn["from"].is_string())
      wrong(name + ".from", "who speaks", turn.is_object() ? "none" : turn.type_name());
    if (!turn.contains("value") || !turn["value"].is_string())
      wrong(name + ".value", "a text", turn.contains("value") ? turn["value"].type_name() : "none");
    const auto from = turn["from"].get<std::string>();
    const auto& value = turn["value"].get_ref<const std::string&>();
    if (from == "human" || from == "user") return {{"role", "user"}, {"content", value}};
    if (from == "gpt" || from == "assistant" || from == "chatgpt" || from == "bot")
      return {{"role", "assistant"}, {"content", value}};
    if (from == "system") return {{"role", "system"}, {"content", value}};
    if (from == "tool" || from == "observation" || from == "function_response")
      return {{"role", "tool"}, {"content", value}};
    if (from == "function_call") {
      const Json call = parse_json(value, fmt::format("{}: {}.value", where_, name));
      return {{"role", "assistant"},
              {"content", ""},
              {"tool_calls", Json::array({{{"type", "function"}, {"function", call}}})}};
    }
    wrong(name + ".from", "human, gpt, system, tool, function_call or observation", "'" + from + "'");
  }

  Json conversation(const char* field) const {
    const Json& list = at(field, "a list of turns");
    if (!list.is_array()) wrong(field, "a list of turns", list.type_name());
    Json messages = Json::array();
    if (has("system") && !text("system", true).empty())
      messages.push_back({{"role", "system"}, {"content", text("system")}});
    for (size_t i = 0; i < list.size(); ++i)
      messages.push_back(normalized(list[i], fmt::format("{}[{}]", field, i)));
    return messages;
  }

  std::shared_ptr<const Json> tools() const {
    if (!has("tools")) return nullptr;
    Json list = object_["tools"];
    if (list.is_string())
      list = list.get_ref<const std::string&>().empty()
                 ? Json::array()
                 : parse_json(list.get_ref<const std::string&>(), where_ + ": tools");
    if (!list.is_array()) wrong("tools", "a list", list.type_name());
    return list.empty() ? nullptr : std::make_shared<const Json>(std::move(list));
  }

 private:
  const Json& object_;
  std::string where_;
};

RecordSchema detect(const Json& object, const Fields& fields) {
  const auto has = [&](const char* field) { return object.contains(field); };
  if (has("chosen") || has("rejected")) return RecordSchema::preference;
  if (has("label") && (has("completion") || has("messages"))) return RecordSchema::unpaired;
  if (has("reward") && has("completion")) return RecordSchema::rewarded;
  if (has("messages")) return RecordSchema::messages;
  if (has("conversations")) return RecordSchema::sharegpt;
  if (has("instruction") || has("output")) return RecordSchema::alpaca;
  if (has("prompt") || has("completion")) return RecordSchema::prompt_completion;
  if (has("text")) return RecordSchema::text;
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  fields.wrong(
      "fields",
      "messages, conversations, instruction and output, prompt and completion, chosen and rejected, or text",
      keys.empty() ? "none" : fmt::format("{}", fmt::join(keys, ", ")));
}

// "\n\nHuman: ...\n\nAssistant: ..." (hh-rlhf) as messages; null for any other text.
std::shared_ptr<const Json> dialogue_of(const std::string& text) {
  constexpr std::string_view human = "\n\nHuman:", assistant = "\n\nAssistant:";
  if (!text.starts_with(human)) return nullptr;
  Json messages = Json::array();
  size_t begin = 0;
  while (begin < text.size()) {
    const bool by_human = text.compare(begin, human.size(), human) == 0;
    const size_t words = begin + (by_human ? human.size() : assistant.size());
    const size_t end = std::min({text.find(human, words), text.find(assistant, words), text.size()});
    std::string content = text.substr(words, end - words);
    content.erase(0, content.find_first_not_of(' ') == std::string::npos ? content.size()
                                                                         : content.find_first_not_of(' '));
    messages.push_back({{"role", by_human ? "user" : "assistant"}, {"content", content}});
    begin = end;
  }
  return std::make_shared<const Json>(std::move(messages));
}

// Takes what both answers begin with out of them.
void split_common(Record& record, const Fields& fields) {
  if (!record.answer.is_chat() && !record.rejected.is_chat()) {
    record.answer.messages = dialogue_of(record.answer.text);
    record.rejected.messages = dialogue_of(record.rejected.text);
    if (!record.answer.messages || !record.rejected.messages)
      fields.wrong("prompt", "a text, since chosen and rejected are texts", "none");
    record.answer.text = record.rejected.text = "";
  }
  if (!record.answer.is_chat() || !record.rejected.is_chat())
    fields.wrong("rejected", "messages, as chosen is", "a text");
  const Json &a = *record.answer.messages, &b = *record.rejected.messages;
  size_t common = 0;
  while (common < a.size() && common < b.size() && a[common] == b[common]) ++common;
  Json prompt = Json::array(), chosen = Json::array(), rejected = Json::array();
  for (size_t i = 0; i < a.size(); ++i) (i < common ? prompt : chosen).push_back(a[i]);
  for (size_t i = common; i < b.size(); ++i) rejected.push_back(b[i]);
  if (common == a.size() || common == b.size())
    fields.wrong("rejected", "another answer than chosen", "the same or none");
  if (prompt.empty()) fields.wrong("rejected", "a conversation that begins as chosen does", "another one");
  record.prompt = Fields::chat(std::move(prompt));
  record.answer = Fields::chat(std::move(chosen));
  record.rejected = Fields::chat(std::move(rejected));
}

// A conversation whose last turn is what the record is about.
void split_last(Record& record, Json messages, const Fields& fields) {
  if (messages.back()["role"] != "assistant")
    fields.wrong(fmt::format("messages[{}].role", messages.size() - 1),
                 "assistant, whose answer the label is of",
                 "'" + messages.back()["role"].get<std::string>() + "'");
  Json answer = Json::array({messages.back()});
  messages.erase(messages.size() - 1);
  record.prompt = Fields::chat(std::move(messages));
  record.answer = Fields::chat(std::move(answer));
}

void require_answers(const Said& said, const Fields& fields, const char* field) {
  if (said.is_chat()) fields.messages(*said.messages, field, true);
}

Record parse_record(const Json& object, RecordSchema schema, const Fields& fields) {
  Record record;
  record.where = fields.where();
  record.tools = fields.tools();
  switch (schema) {
    case RecordSchema::text:
      record.answer.text = fields.text("text");
      break;
    case RecordSchema::alpaca: {
      std::string user = fields.text("instruction");
      if (fields.has("input") && !fields.text("input", true).empty()) user += "\n\n" + fields.text("input");
      Json messages = Json::array();
      if (fields.has("system") && !fields.text("system", true).empty())
        messages.push_back({{"role", "system"}, {"content", fields.text("system")}});
      messages.push_back({{"role", "user"}, {"content", user}});
      messages.push_back({{"role", "assistant"}, {"content", fields.text("output")}});
      record.answer = Fields::chat(std::move(messages));
      break;
    }
    case RecordSchema::sharegpt:
      record.answer =
          Fields::chat(fields.messages(fields.conversation("conversations"), "conversations", true));
      break;
    case RecordSchema::messages:
      record.answer =
          Fields::chat(fields.messages(fields.at("messages", "a list of messages"), "messages", true));
      break;
    case RecordSchema::prompt_completion:
    case RecordSchema::unpaired:
    case RecordSchema::rewarded:
      if (fields.has("messages")) {
        split_last(record, fields.messages(fields.at("messages", "a list of messages"), "messages", true),
                   fields);
      } else {
        record.prompt = fields.said("prompt");
        record.answer = fields.said("completion");
      }
      require_answers(record.answer, fields, "completion");
      if (record.prompt.is_chat() != record.answer.is_chat())
        fields.wrong("completion",
                     record.prompt.is_chat() ? "messages, as prompt is" : "a text, as prompt is",
                     "the other");
      if (schema == RecordSchema::unpaired) {
        if (!object["label"].is_boolean())
          fields.wrong("label", "true or false", object["label"].type_name());
        record.good = object["label"].get<bool>();
      }
      if (schema == RecordSchema::rewarded) {
        if (!object["reward"].is_number()) fields.wrong("reward", "a number", object["reward"].type_name());
        record.reward = object["reward"].get<double>();
      }
      break;
    case RecordSchema::preference:
      if (fields.has("margin")) {
        if (!object["margin"].is_number()) fields.wrong("margin", "a number", object["margin"].type_name());
        record.margin = object["margin"].get<double>();
      }
      record.answer = fields.said("chosen");
      record.rejected = fields.said("rejected");
      if (record.answer == record.rejected)
        fields.wrong("rejected", "another answer than chosen", "the same");
      if (fields.has("prompt")) {
        record.prompt = fields.said("prompt");
      } else if (fields.has("conversations")) {
        record.prompt =
            Fields::chat(fields.messages(fields.conversation("conversations"), "conversations", false));
      } else {
        split_common(record, fields);
      }
      require_answers(record.answer, fields, "chosen");
      require_answers(record.rejected, fields, "rejected");
      if (record.answer.is_chat() != record.rejected.is_chat())
        fields.wrong("rejected", "the same kind as chosen", "the other");
      if (record.prompt.is_chat() != record.answer.is_chat()) {
        if (!record.prompt.is_chat()) fields.wrong("prompt", "messages, as chosen is", "a text");
        fields.wrong("chosen", "messages, as the prompt is", "a text");
      }
      break;
  }
  return record;
}

}  // namespace

bool Said::operator==(const Said& other) const {
  if (is_chat() != other.is_chat()) return false;
  return is_chat() ? *messages == *other.messages : text == other.text;
}

std::string_view schema_name(RecordSchema schema) {
  return kNames[static_cast<size_t>(schema)];
}

RecordFile parse_records(std::string_view text, const std::string& path) {
  RecordFile file;
  bool first = true;
  std::string first_where;
  std::unordered_map<std::string, std::string> ids;
  const auto add = [&](const Json& object, const std::string& where) {
    require(object.is_object(), "{}: record: expected an object, found {}", where, object.type_name());
    const Fields fields(object, where);
    const RecordSchema schema = detect(object, fields);
    if (first) {
      file.schema = schema;
      first_where = where;
      first = false;
    }
    require(schema == file.schema, "{}: fields: expected those of {} data, as at {}, found those of {} data",
            where, schema_name(file.schema), first_where, schema_name(schema));
    if (fields.has("id") && (object["id"].is_string() || object["id"].is_number())) {
      const auto [place, is_new] = ids.emplace(dump_json(object["id"]), where);
      require(is_new, "{}: id: expected one of its own, found {} as at {}", where, place->first,
              place->second);
    }
    file.records.push_back(parse_record(object, schema, fields));
  };
  const size_t start = text.find_first_not_of(" \t\r\n");
  if (start != std::string_view::npos && text[start] == '[') {
    const Json list = parse_json(text, path);
    for (size_t i = 0; i < list.size(); ++i) add(list[i], fmt::format("{}:[{}]", path, i));
  } else {
    int64_t line = 0;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      std::string_view content = text.substr(begin, end - begin);
      begin = end + 1;
      ++line;
      if (!content.empty() && content.back() == '\r') content.remove_suffix(1);
      if (content.find_first_not_of(" \t") == std::string_view::npos) continue;
      const std::string where = fmt::format("{}:{}", path, line);
      add(parse_json(content, where), where);
    }
  }
  require(!file.records.empty(), "{}: expected records, found none", path);
  return file;
}

RecordFile read_records(const std::string& path) {
  const auto file = MappedFile::open(path);
  return parse_records({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()}, path);
}

Record as_chat(Record record) {
  const auto one = [](const char* role, const std::string& text) {
    return Fields::chat(Json::array({{{"role", role}, {"content", text}}}));
  };
  if (record.prompt.is_chat() || record.prompt.text.empty()) return record;
  record.prompt = one("user", record.prompt.text);
  record.answer = one("assistant", record.answer.text);
  if (!record.rejected.text.empty()) record.rejected = one("assistant", record.rejected.text);
  return record;
}

}  // namespace qkv
