// Reading the files beside a vocabulary.
#include "qkv/text/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/text/tokenizer_files.h"

namespace qkv {
namespace {

// A token is a string or an object with "content".
std::optional<std::string> token_of(const JsonView& view, std::string_view key) {
  const Json* value = view.find(key);
  if (!value) return std::nullopt;
  if (value->is_object()) return view.object(key).string("content");
  return view.string(key);
}

void read_special_tokens(const JsonView& view, TokenizerConfig& config) {
  const auto read = [&](const char* key, std::optional<std::string>& into) {
    if (auto token = token_of(view, key); token && !into) into = std::move(token);
  };
  read("bos_token", config.bos_token);
  read("eos_token", config.eos_token);
  read("pad_token", config.pad_token);
  read("unk_token", config.unk_token);
  if (!config.bos_token) read("cls_token", config.bos_token);
  if (!config.eos_token) read("sep_token", config.eos_token);
}

void read_added_tokens_decoder(const JsonView& view, TokenizerConfig& config) {
  if (!view.has("added_tokens_decoder")) return;
  const JsonView list = view.object("added_tokens_decoder");
  for (const auto& [key, value] : list.json().items()) {
    const std::string where = view.where() + ": added_tokens_decoder." + key;
    int32_t id = -1;
    const auto [stop, code] = std::from_chars(key.data(), key.data() + key.size(), id);
    require(code == std::errc() && stop == key.data() + key.size() && id >= 0, "{}: expected an id as key",
            where);
    AddedToken token = parse_added_token(JsonView(value, where));
    token.id = id;
    config.added.push_back(std::move(token));
  }
}

void read_chat_template(const JsonView& view, TokenizerConfig& config) {
  const Json* value = view.find("chat_template");
  if (!value) return;
  if (value->is_string()) {
    config.chat_template = value->get<std::string>();
    return;
  }
  require(value->is_array(), "{}: key 'chat_template': expected a string or a list of named templates",
          view.where());
  for (const auto& item : *value) {
    const JsonView named(item, view.where() + ": chat_template");
    config.named_templates[named.string("name")] = named.string("template");
  }
  // Without one of that name the first is the default.
  if (value->empty()) return;
  const std::string first = value->front()["name"].get<std::string>();
  const auto found =
      config.named_templates.find(config.named_templates.count("default") > 0 ? "default" : first);
  config.chat_template = found->second;
  config.named_templates.erase(found);
}

void read_generation_config(const JsonView& view, TokenizerConfig& config) {
  const auto id_of = [&](const char* key) -> std::optional<int32_t> {
    const Json* value = view.find(key);
    if (!value || value->is_array()) return std::nullopt;
    const int64_t id = view.integer(key);
    if (id < 0 || id > INT32_MAX) return std::nullopt;  // -1 means none
    return static_cast<int32_t>(id);
  };
  config.bos_id = id_of("bos_token_id");
  config.eos_id = id_of("eos_token_id");
  config.pad_id = id_of("pad_token_id");
  if (config.eos_id) config.stop_ids = {*config.eos_id};
  if (const Json* list = view.find("eos_token_id"); list && list->is_array()) {
    for (const auto& item : *list) {
      require(item.is_number_integer() && item.get<int64_t>() >= 0 && item.get<int64_t>() <= INT32_MAX,
              "{}: key 'eos_token_id': expected ids, found {}", view.where(), dump_json(item));
      config.stop_ids.push_back(item.get<int32_t>());
    }
    if (!config.stop_ids.empty()) config.eos_id = config.stop_ids.front();
  }
}

// {"<|im_start|>": 100264}: the older form, without flags.
void read_added_tokens(const JsonView& view, TokenizerConfig& config) {
  for (const auto& [content, value] : view.json().items()) {
    const int64_t id = view.integer(content);
    require(id >= 0 && id <= INT32_MAX, "{}: key '{}': expected an id, found {}", view.where(), content, id);
    const bool known = std::any_of(config.added.begin(), config.added.end(),
                                   [&](const AddedToken& token) { return token.id == id; });
    if (known) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = content;
    // Without a flag, the spelling is what tells control tokens from words.
    token.special = (content.starts_with('<') && content.ends_with('>')) ||
                    (content.starts_with('[') && content.ends_with(']'));
    config.added.push_back(std::move(token));
  }
}

}  // namespace

AddedToken parse_added_token(const JsonView& view) {
  AddedToken token;
  token.content = view.string("content");
  token.special = view.boolean_or("special", false);
  token.single_word = view.boolean_or("single_word", false);
  token.lstrip = view.boolean_or("lstrip", false);
  token.rstrip = view.boolean_or("rstrip", false);
  token.normalized = view.boolean_or("normalized", !token.special);
  return token;
}

TokenizerConfig read_tokenizer_config(const TokenizerFileSource& files) {
  TokenizerConfig config;
  const auto with = [&](const char* name, auto&& read) {
    if (!files.has(name)) return;
    const std::string path = files.path_of(name);
    const Json json = parse_json(files.read(name), path);
    read(JsonView(json, path), config);
  };
  with("tokenizer_config.json", [&](const JsonView& view, TokenizerConfig& into) {
    into.text = dump_json(view.json());
    read_special_tokens(view, into);
    read_added_tokens_decoder(view, into);
    read_chat_template(view, into);
    into.tokenizer_class = view.string_or("tokenizer_class", "");
    into.do_lower_case = view.boolean_or("do_lower_case", true);
    into.legacy = view.boolean_or("legacy", true);
    if (view.has("add_bos_token")) into.add_bos = view.boolean_or("add_bos_token", false);
    if (view.has("add_eos_token")) into.add_eos = view.boolean_or("add_eos_token", false);
  });
  with("special_tokens_map.json", &read_special_tokens);
  with("added_tokens.json", &read_added_tokens);
  with("generation_config.json", &read_generation_config);
  if (files.has("chat_template.jinja")) config.chat_template = files.read("chat_template.jinja");
  const std::filesystem::path more = "additional_chat_templates";
  for (const std::string& name : files.names()) {
    const std::filesystem::path path = name;
    if (path.parent_path() == more && path.extension() == ".jinja")
      config.named_templates[path.stem().string()] = files.read(name);
  }
  return config;
}

}  // namespace qkv
