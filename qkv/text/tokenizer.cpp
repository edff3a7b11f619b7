// What all tokenizers share: the table of tokens, decoding, special ids, the files beside the vocabulary.
#include "qkv/text/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/parallel.h"

namespace qkv {
namespace {

const std::string kNothing;

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 4);
  if (options.add_special) ids.insert(ids.end(), prefix_.begin(), prefix_.end());
  if (!text.empty()) encode_text(text, options, ids);
  if (options.add_special) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  return ids;
}

std::vector<std::vector<int32_t>> Tokenizer::encode_batch(std::span<const std::string> texts,
                                                          const EncodeOptions& options) const {
  std::vector<std::vector<int32_t>> results(texts.size());
  parallel_items(static_cast<int64_t>(texts.size()),
                 [&](int64_t i, int) { results[i] = encode(texts[i], options); });
  return results;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string text;
  bool at_start = true;
  std::optional<int32_t> previous;
  for (const int32_t id : ids) {
    std::string_view bytes = token_bytes(id);
    if (skip_special && is_special(id)) continue;
    if (join_.collapses_repeats && std::exchange(previous, id) == id) continue;
    if (bytes.empty()) continue;
    if (at_start && join_.strips_leading_space && bytes.starts_with(' ')) bytes.remove_prefix(1);
    at_start = false;
    text += bytes;
  }
  if (join_.strips_trailing_space && text.ends_with(' ')) text.pop_back();
  return text;
}

const std::string& Tokenizer::token_bytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? entries_[id].bytes : kNothing;
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const std::string& Tokenizer::id_to_token(int32_t id) const {
  return id >= 0 && id < vocab_size() ? entries_[id].surface : kNothing;
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && entries_[id].special;
}

void Tokenizer::require_in_vocabulary(std::optional<int32_t> id, std::string_view what) const {
  require(!id || (*id >= 0 && *id < vocab_size() && entries_[*id].used),
          "{} id: expected an id of the vocabulary (below {}), found {}", what, vocab_size(), id.value_or(0));
}

void Tokenizer::set_bos_id(std::optional<int32_t> id) {
  require_in_vocabulary(id, "BOS");
  bos_ = id;
}

void Tokenizer::set_eos_id(std::optional<int32_t> id) {
  require_in_vocabulary(id, "EOS");
  if (eos_) std::erase(stop_, *eos_);
  eos_ = id;
  if (id) {
    std::erase(stop_, *id);
    stop_.insert(stop_.begin(), *id);
  }
}

void Tokenizer::set_pad_id(std::optional<int32_t> id) {
  require_in_vocabulary(id, "padding");
  pad_ = id;
}

void Tokenizer::set_stop_ids(std::vector<int32_t> ids) {
  for (const int32_t id : ids) require_in_vocabulary(id, "stop");
  stop_ = std::move(ids);
}

void Tokenizer::require_dense(int32_t largest, size_t count, const std::string& where) {
  constexpr size_t kGap = 1 << 16;
  require(static_cast<size_t>(largest) <= 2 * count + kGap,
          "{}: expected ids without large gaps, found {} for {} tokens", where, largest, count);
}

Tokenizer::Entry& Tokenizer::entry(int32_t id) {
  if (id >= vocab_size()) entries_.resize(static_cast<size_t>(id) + 1);
  entries_[id].used = true;
  return entries_[id];
}

void Tokenizer::index_entries() {
  ids_.clear();
  ids_.reserve(entries_.size());
  // From the last: of two ids with one spelling the lower is found.
  for (int32_t id = vocab_size() - 1; id >= 0; --id) {
    if (entries_[id].used) ids_[entries_[id].surface] = id;
  }
}

Json Tokenizer::configuration() const {
  Json config = config_text_.empty() ? Json::object() : parse_json(config_text_, "tokenizer_config.json");
  return config.is_object() ? config : Json::object();
}

TokenizerFiles Tokenizer::files() const {
  TokenizerFiles files = model_files();
  Json config = configuration();
  Json special = Json::object();
  const auto put = [&](const char* key, std::optional<int32_t> id) {
    if (id) {
      config[key] = special[key] = entries_[*id].surface;
    } else {
      config.erase(key);
    }
  };
  put("bos_token", bos_);
  put("eos_token", eos_);
  put("pad_token", pad_);
  put("unk_token", unk_);
  config["add_bos_token"] = bos_ && !prefix_.empty() && prefix_.front() == *bos_;
  config["add_eos_token"] = eos_ && !suffix_.empty() && suffix_.back() == *eos_;
  if (chat_template_ && !named_templates_.empty()) {
    Json list = Json::array({{{"name", "default"}, {"template", *chat_template_}}});
    for (const auto& [name, source] : named_templates_)
      list.push_back({{"name", name}, {"template", source}});
    config["chat_template"] = std::move(list);
  } else if (chat_template_) {
    config["chat_template"] = *chat_template_;
  } else {
    config.erase("chat_template");
  }
  Json added = Json::object();
  for (int32_t id = 0; id < vocab_size(); ++id) {
    if (!entries_[id].special) continue;
    added[std::to_string(id)] = {{"content", entries_[id].surface},
                                 {"lstrip", false},
                                 {"normalized", false},
                                 {"rstrip", false},
                                 {"single_word", false},
                                 {"special", true}};
  }
  if (!config.contains("added_tokens_decoder")) config["added_tokens_decoder"] = std::move(added);
  if (!config.contains("clean_up_tokenization_spaces")) config["clean_up_tokenization_spaces"] = false;
  if (!config.contains("tokenizer_class")) config["tokenizer_class"] = tokenizer_class();
  files["tokenizer_config.json"] = dump_json(config, 2) + "\n";
  files["special_tokens_map.json"] = dump_json(special, 2) + "\n";
  if (stop_.size() > 1) files["generation_config.json"] = dump_json(stop_keys(Json::object()), 2) + "\n";
  return files;
}

// The stop ids beyond EOS live in generation_config.json, whose other keys belong to the model.
Json Tokenizer::stop_keys(Json generation) const {
  if (!generation.is_object()) generation = Json::object();
  generation["eos_token_id"] = stop_.size() == 1 ? Json(stop_[0]) : Json(stop_);
  if (bos_) generation["bos_token_id"] = *bos_;
  if (pad_) generation["pad_token_id"] = *pad_;
  return generation;
}

void Tokenizer::save(const std::string& directory) const {
  std::error_code code;
  std::filesystem::create_directories(directory, code);
  require(!code, "{}: cannot create directory: {}", directory, code.message());
  TokenizerFiles files = this->files();
  if (!files.contains("tokenizer.json") && has_json()) files["tokenizer.json"] = to_json();
  const std::string generation = directory + "/generation_config.json";
  if (!stop_.empty() && std::filesystem::exists(generation)) {
    files["generation_config.json"] = dump_json(stop_keys(load_json(generation)), 2) + "\n";
  }
  for (const auto& [name, bytes] : files) write_file(directory + "/" + name, bytes);
}

}  // namespace qkv
