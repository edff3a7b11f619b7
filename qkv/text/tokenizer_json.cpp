// Reading and writing Hugging Face's tokenizer.json. The vocabulary and the merges (hundreds of thousands of
// entries) are taken from the parser's events; the rest becomes a small document.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "qkv/core/error.h"
#include "qkv/text/pipeline_tokenizer.h"

namespace qkv {
namespace {

constexpr size_t kMaximumDepth = 64;

// nlohmann's events into: entries of model.vocab, pairs of model.merges, and a document of everything else.
class Events : public nlohmann::json_sax<Json> {
 public:
  explicit Events(const std::string& where) : where_(where) {}

  bool null() override { return value(nullptr); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override {
    if (region_ == Region::vocabulary)
      out_of_range(std::to_string(v));  // the parser gives negative numbers here
    return value(v);
  }
  bool number_unsigned(number_unsigned_t v) override {
    if (region_ != Region::vocabulary) return value(v);
    if (v > static_cast<uint64_t>(kMaximumTokenId)) out_of_range(std::to_string(v));
    vocabulary.push_back({std::move(key_), static_cast<int32_t>(v)});
    return true;
  }
  bool number_float(number_float_t v, const string_t&) override { return value(v); }
  bool string(string_t& v) override {
    if (region_ == Region::merges) {
      const size_t space = v.find(' ');
      require(space != std::string::npos && space > 0 && space + 1 < v.size() &&
                  v.find(' ', space + 1) == std::string::npos,
              "{}: merge {}: expected two tokens with a space between, found '{}'", where_, merges.size(), v);
      merges.emplace_back(v.substr(0, space), v.substr(space + 1));
      return true;
    }
    if (region_ == Region::merge_pair) {
      pair_.push_back(std::move(v));
      return true;
    }
    return value(std::move(v));
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override {
    if (region_ == Region::general && in_model("vocab")) {
      region_ = Region::vocabulary;
      return true;
    }
    return open(Json::object());
  }
  bool key(string_t& v) override {
    key_ = std::move(v);
    return true;
  }
  bool end_object() override {
    if (region_ == Region::vocabulary) {
      region_ = Region::general;
      return true;
    }
    stack_.pop_back();
    return true;
  }
  bool start_array(size_t) override {
    if (region_ == Region::general && in_model("merges")) {
      region_ = Region::merges;
      return true;
    }
    if (region_ == Region::merges) {
      region_ = Region::merge_pair;
      pair_.clear();
      return true;
    }
    return open(Json::array());
  }
  bool end_array() override {
    if (region_ == Region::merge_pair) {
      require(pair_.size() == 2, "{}: merge {}: expected two tokens, found {}", where_, merges.size(),
              pair_.size());
      merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
      region_ = Region::merges;
    } else if (region_ == Region::merges) {
      region_ = Region::general;
    } else {
      stack_.pop_back();
    }
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    const std::string_view what = error.what();
    const size_t begin = what.find("] ");
    fail("{}: not valid JSON at byte {}: {}", where_, position,
         begin == std::string_view::npos ? what : what.substr(begin + 2));
  }

  Json document;
  std::vector<VocabularyEntry> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;

 private:
  enum class Region { general, vocabulary, merges, merge_pair };

  bool in_model(std::string_view key) const { return stack_.size() == 2 && model_open_ && key_ == key; }
  [[noreturn]] void out_of_range(const std::string& found) const {
    fail("{}: token '{}': expected an id from 0 to {}, found {}", where_, key_, kMaximumTokenId, found);
  }
  // Puts a value under the open container and returns it.
  Json* put(Json v) {
    switch (region_) {
      case Region::vocabulary:
        fail("{}: token '{}': expected an integer id, found {}", where_, key_, dump_json(v).substr(0, 80));
      case Region::merges:
      case Region::merge_pair:
        fail("{}: merge {}: expected two tokens, found {}", where_, merges.size(),
             dump_json(v).substr(0, 80));
      case Region::general:
        break;
    }
    if (stack_.empty()) {
      document = std::move(v);
      return &document;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(v));
      return &parent.back();
    }
    // Straight into the underlying list: the map's own insertion searches it.
    auto& members = parent.get_ref<Json::object_t&>();
    static_cast<Json::object_t::Container&>(members).emplace_back(key_, std::move(v));
    return &members.back().second;
  }
  bool value(Json v) {
    put(std::move(v));
    return true;
  }
  bool open(Json container) {
    require(stack_.size() < kMaximumDepth, "{}: JSON nested deeper than {} levels", where_, kMaximumDepth);
    if (stack_.size() == 1) model_open_ = key_ == "model";
    stack_.push_back(put(std::move(container)));
    return true;
  }

  const std::string& where_;
  std::vector<Json*> stack_;
  std::string key_;
  bool model_open_ = false;
  Region region_ = Region::general;
  std::vector<std::string> pair_;
};

std::string text_of(const JsonView& root, const char* key) {
  const Json* value = root.find(key);
  return value ? dump_json(*value) : "null";
}

void resolve_merges(const std::vector<std::pair<std::string, std::string>>& pairs, const Vocabulary& ids,
                    TokenizerParts& parts) {
  const size_t prefix = parts.bpe.continuing_subword_prefix.size();
  parts.merges.reserve(pairs.size());
  std::string joined;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const std::string &left = pairs[i].first, &right = pairs[i].second;
    joined.assign(left);
    joined += std::string_view(right).substr(std::min(prefix, right.size()));
    const auto id_of = [&](const std::string& token) {
      const auto found = ids.find(token);
      require(found != ids.end(), "{}: merge {} ('{}' + '{}'): token '{}' is not in the vocabulary",
              parts.where, i, left, right, token);
      return found->second;
    };
    parts.merges.push_back({id_of(left), id_of(right), id_of(joined), static_cast<uint32_t>(i)});
  }
}

int32_t unk_id(const Vocabulary& ids, const std::string& token, const std::string& where) {
  const auto found = ids.find(token);
  require(found != ids.end(), "{}: model: unk_token '{}' is not in the vocabulary", where, token);
  return found->second;
}

}  // namespace

TokenizerParts parse_tokenizer_json(std::string_view text, const std::string& where) {
  Events events(where);
  Json::sax_parse(text.begin(), text.end(), &events);
  const JsonView root(events.document, where);
  TokenizerParts parts;
  parts.where = where;
  parts.truncation = text_of(root, "truncation");
  parts.padding = text_of(root, "padding");
  parts.normalizer = text_of(root, "normalizer");
  parts.pre_tokenizer = text_of(root, "pre_tokenizer");
  parts.post_processor = text_of(root, "post_processor");
  parts.decoder = text_of(root, "decoder");

  if (const Json* added = root.find("added_tokens")) {
    require(added->is_array(), "{}: key 'added_tokens': expected a list", where);
    for (const auto& item : *added) {
      const JsonView view(item, fmt::format("{}: added_tokens {}", where, parts.added.size()));
      AddedToken token = parse_added_token(view);
      const int64_t id = view.integer("id");
      require(id >= 0 && id <= kMaximumTokenId, "{}: added token '{}': expected an id from 0 to {}, found {}",
              where, token.content, kMaximumTokenId, id);
      token.id = static_cast<int32_t>(id);
      parts.added.push_back(std::move(token));
    }
  }

  const JsonView model = root.object("model");
  // Files of 2019 and 2020 leave the type out.
  const std::string type =
      model.string_or("type", model.has("max_input_chars_per_word") ? "WordPiece" : "BPE");
  require(type == "BPE" || type == "WordPiece",
          "{}: model: type: expected BPE or WordPiece, found '{}'; load its tokenizer.model instead if it "
          "has one",
          where, type);
  require(!events.vocabulary.empty(), "{}: model: expected an object 'vocab' of tokens and ids, found none",
          where);
  parts.vocabulary = std::move(events.vocabulary);
  Vocabulary ids;
  ids.reserve(parts.vocabulary.size());
  for (const auto& entry : parts.vocabulary) ids.emplace(entry.token, entry.id);
  if (type == "WordPiece") {
    parts.model = TokenizerParts::Model::wordpiece;
    parts.wordpiece.unk = unk_id(ids, model.string_or("unk_token", "[UNK]"), where);
    parts.wordpiece.continuing_subword_prefix = model.string_or("continuing_subword_prefix", "##");
    parts.wordpiece.max_input_chars_per_word = model.integer_or("max_input_chars_per_word", 100);
    return parts;
  }
  parts.bpe.byte_fallback = model.boolean_or("byte_fallback", false);
  parts.bpe.ignore_merges = model.boolean_or("ignore_merges", false);
  parts.bpe.fuse_unk = model.boolean_or("fuse_unk", false);
  parts.bpe.continuing_subword_prefix = model.string_or("continuing_subword_prefix", "");
  parts.bpe.end_of_word_suffix = model.string_or("end_of_word_suffix", "");
  if (model.has("unk_token")) {
    const std::string unk = model.string("unk_token");
    // Some files name an unknown token that only the added tokens have, or none at all.
    if (ids.contains(unk)) parts.bpe.unk = unk_id(ids, unk, where);
  }
  resolve_merges(events.merges, ids, parts);
  return parts;
}

std::string write_tokenizer_json(const TokenizerParts& parts) {
  const auto parsed = [&](const std::string& text) { return parse_json(text, parts.where); };
  Json root = Json::object();
  root["version"] = "1.0";
  root["truncation"] = parsed(parts.truncation);
  root["padding"] = parsed(parts.padding);
  auto added = parts.added;
  std::sort(added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  root["added_tokens"] = Json::array();
  for (const auto& token : added) {
    root["added_tokens"].push_back({{"id", token.id},
                                    {"content", token.content},
                                    {"single_word", token.single_word},
                                    {"lstrip", token.lstrip},
                                    {"rstrip", token.rstrip},
                                    {"normalized", token.normalized},
                                    {"special", token.special}});
  }
  root["normalizer"] = parsed(parts.normalizer);
  root["pre_tokenizer"] = parsed(parts.pre_tokenizer);
  root["post_processor"] = parsed(parts.post_processor);
  root["decoder"] = parsed(parts.decoder);

  auto vocabulary = parts.vocabulary;
  std::sort(vocabulary.begin(), vocabulary.end(),
            [](const VocabularyEntry& a, const VocabularyEntry& b) { return a.id < b.id; });
  std::vector<const std::string*> spelling(vocabulary.empty() ? 0 : vocabulary.back().id + 1, nullptr);
  for (const auto& entry : vocabulary) spelling[entry.id] = &entry.token;
  Json list = Json::object();
  auto& members = static_cast<Json::object_t::Container&>(list.get_ref<Json::object_t&>());
  members.reserve(vocabulary.size());
  for (const auto& entry : vocabulary) members.emplace_back(entry.token, entry.id);

  Json model = Json::object();
  if (parts.model == TokenizerParts::Model::wordpiece) {
    model["type"] = "WordPiece";
    model["unk_token"] = *spelling[parts.wordpiece.unk];
    model["continuing_subword_prefix"] = parts.wordpiece.continuing_subword_prefix;
    model["max_input_chars_per_word"] = parts.wordpiece.max_input_chars_per_word;
    model["vocab"] = std::move(list);
  } else {
    const auto or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
    model["type"] = "BPE";
    model["dropout"] = nullptr;
    model["unk_token"] = parts.bpe.unk ? Json(*spelling[*parts.bpe.unk]) : Json(nullptr);
    model["continuing_subword_prefix"] = or_null(parts.bpe.continuing_subword_prefix);
    model["end_of_word_suffix"] = or_null(parts.bpe.end_of_word_suffix);
    model["fuse_unk"] = parts.bpe.fuse_unk;
    model["byte_fallback"] = parts.bpe.byte_fallback;
    model["ignore_merges"] = parts.bpe.ignore_merges;
    model["vocab"] = std::move(list);
    // The older form, "a b", is read by every version; it cannot express a token that holds a space.
    const bool spaces = std::any_of(vocabulary.begin(), vocabulary.end(), [](const VocabularyEntry& entry) {
      return entry.token.find(' ') != std::string::npos;
    });
    Json merges = Json::array();
    auto& items = merges.get_ref<Json::array_t&>();
    items.reserve(parts.merges.size());
    for (const auto& merge : parts.merges) {
      const std::string &left = *spelling[merge.left], &right = *spelling[merge.right];
      items.push_back(spaces ? Json::array({left, right}) : Json(left + " " + right));
    }
    model["merges"] = std::move(merges);
  }
  root["model"] = std::move(model);
  return dump_json(root, 2) + "\n";
}

}  // namespace qkv
