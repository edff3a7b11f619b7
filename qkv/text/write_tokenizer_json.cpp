// Writing Hugging Face's tokenizer.json.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/text/pipeline_tokenizer.h"

namespace qkv {
namespace {

// The vocabulary in the order of its ids, and spellings by id.
struct SortedVocabulary {
  explicit SortedVocabulary(const std::vector<VocabularyEntry>& entries) {
    by_id.reserve(entries.size());
    for (const auto& entry : entries) by_id.push_back(&entry);
    std::sort(by_id.begin(), by_id.end(),
              [](const VocabularyEntry* a, const VocabularyEntry* b) { return a->id < b->id; });
    spelling.resize(by_id.empty() ? 0 : static_cast<size_t>(by_id.back()->id) + 1, nullptr);
    for (const auto* entry : by_id) spelling[entry->id] = &entry->token;
  }
  Json to_object() const {
    Json list = Json::object();
    auto& members = static_cast<Json::object_t::Container&>(list.get_ref<Json::object_t&>());
    members.reserve(by_id.size());
    for (const auto* entry : by_id) members.emplace_back(entry->token, entry->id);
    return list;
  }
  std::vector<const VocabularyEntry*> by_id;
  std::vector<const std::string*> spelling;
};

Json bpe(const TokenizerParts& parts, const SortedVocabulary& vocabulary) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
  Json model = Json::object();
  model["type"] = "BPE";
  model["dropout"] = nullptr;
  model["unk_token"] = parts.bpe.unk ? Json(*vocabulary.spelling[*parts.bpe.unk]) : Json(nullptr);
  model["continuing_subword_prefix"] = or_null(parts.bpe.continuing_subword_prefix);
  model["end_of_word_suffix"] = or_null(parts.bpe.end_of_word_suffix);
  model["fuse_unk"] = parts.bpe.fuse_unk;
  model["byte_fallback"] = parts.bpe.byte_fallback;
  model["ignore_merges"] = parts.bpe.ignore_merges;
  model["vocab"] = vocabulary.to_object();
  // The older form, "a b", is read by every version; it cannot express a token that holds a space.
  const bool spaces =
      std::any_of(parts.vocabulary.begin(), parts.vocabulary.end(),
                  [](const VocabularyEntry& entry) { return entry.token.find(' ') != std::string::npos; });
  Json merges = Json::array();
  auto& items = merges.get_ref<Json::array_t&>();
  items.reserve(parts.merges.size());
  for (const auto& merge : parts.merges) {
    const std::string &left = *vocabulary.spelling[merge.left], &right = *vocabulary.spelling[merge.right];
    items.push_back(spaces ? Json::array({left, right}) : Json(left + " " + right));
  }
  model["merges"] = std::move(merges);
  return model;
}

Json wordpiece(const TokenizerParts& parts, const SortedVocabulary& vocabulary) {
  Json model = Json::object();
  model["type"] = "WordPiece";
  model["unk_token"] = *vocabulary.spelling[parts.wordpiece.unk];
  model["continuing_subword_prefix"] = parts.wordpiece.continuing_subword_prefix;
  model["max_input_chars_per_word"] = parts.wordpiece.max_input_chars_per_word;
  model["vocab"] = vocabulary.to_object();
  return model;
}

Json unigram(const TokenizerParts& parts) {
  Json list = Json::array();
  auto& items = list.get_ref<Json::array_t&>();
  items.reserve(parts.vocabulary.size());
  for (size_t i = 0; i < parts.vocabulary.size(); ++i) {
    items.push_back(Json::array({parts.vocabulary[i].token, parts.unigram.scores[i]}));
  }
  Json model = Json::object();
  model["type"] = "Unigram";
  model["unk_id"] = parts.unigram.unk ? Json(*parts.unigram.unk) : Json(nullptr);
  model["vocab"] = std::move(list);
  model["byte_fallback"] = parts.unigram.byte_fallback;
  return model;
}

Json model_of(const TokenizerParts& parts) {
  const SortedVocabulary vocabulary(parts.vocabulary);
  switch (parts.model) {
    case TokenizerParts::Model::bpe:
      return bpe(parts, vocabulary);
    case TokenizerParts::Model::wordpiece:
      return wordpiece(parts, vocabulary);
    case TokenizerParts::Model::unigram:
      return unigram(parts);
    case TokenizerParts::Model::wordlevel:
      break;
  }
  return {{"type", "WordLevel"}, {"vocab", vocabulary.to_object()}, {"unk_token", parts.wordlevel_unk_token}};
}

}  // namespace

Json added_tokens_json(const std::vector<AddedToken>& added) {
  Json list = Json::array();
  for (const auto& token : added) {
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", token.single_word},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  }
  return list;
}

std::string write_tokenizer_json(const TokenizerParts& parts) {
  const auto parsed = [&](const std::string& text) { return parse_json(text, parts.where); };
  Json root = Json::object();
  root["version"] = "1.0";
  root["truncation"] = parsed(parts.truncation);
  root["padding"] = parsed(parts.padding);
  std::vector<AddedToken> added = parts.added;
  std::sort(added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  root["added_tokens"] = added_tokens_json(added);
  root["normalizer"] = parsed(parts.normalizer);
  root["pre_tokenizer"] = parsed(parts.pre_tokenizer);
  root["post_processor"] = parsed(parts.post_processor);
  root["decoder"] = parsed(parts.decoder);
  root["model"] = model_of(parts);
  return dump_json(root, 2) + "\n";
}

}  // namespace qkv
