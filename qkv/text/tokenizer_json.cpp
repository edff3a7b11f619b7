// Reading Hugging Face's tokenizer.json. The vocabulary and the merges (hundreds of thousands of
// entries) are taken from the parser's events; the rest becomes a small document.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "qkv/core/error.h"
#include "qkv/text/pipeline_tokenizer.h"

namespace qkv {
namespace {

constexpr size_t kMaximumDepth = 64;

// nlohmann's events into: entries of model.vocab (an object of ids, or a list of tokens and scores), pairs of
// model.merges, and a document of everything else.
class Events : public nlohmann::json_sax<Json> {
 public:
  explicit Events(const std::string& where) : where_(where) {}

  bool null() override { return value(nullptr); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override {
    if (region_ == Region::vocabulary)
      out_of_range(std::to_string(v));  // the parser gives negative numbers here
    if (region_ == Region::scored_token) return score(static_cast<double>(v));
    return value(v);
  }
  bool number_unsigned(number_unsigned_t v) override {
    if (region_ == Region::scored_token) return score(static_cast<double>(v));
    if (region_ != Region::vocabulary) return value(v);
    if (v > static_cast<uint64_t>(kMaximumTokenId)) out_of_range(std::to_string(v));
    vocabulary.push_back({std::move(key_), static_cast<int32_t>(v)});
    return true;
  }
  bool number_float(number_float_t v, const string_t&) override {
    return region_ == Region::scored_token ? score(v) : value(v);
  }
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
    if (region_ == Region::scored_token && pair_.empty()) {
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
    if (region_ == Region::general && in_model("vocab")) {
      region_ = Region::scored_vocabulary;
      return true;
    }
    if (region_ == Region::merges || region_ == Region::scored_vocabulary) {
      region_ = region_ == Region::merges ? Region::merge_pair : Region::scored_token;
      pair_.clear();
      score_.reset();
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
    } else if (region_ == Region::scored_token) {
      if (pair_.empty() || !score_) not_scored("fewer values");
      scored.emplace_back(std::move(pair_[0]), *score_);
      region_ = Region::scored_vocabulary;
    } else if (region_ == Region::merges || region_ == Region::scored_vocabulary) {
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
  std::vector<std::pair<std::string, double>> scored;
  std::vector<std::pair<std::string, std::string>> merges;

 private:
  enum class Region { general, vocabulary, scored_vocabulary, scored_token, merges, merge_pair };

  bool in_model(std::string_view key) const { return stack_.size() == 2 && model_open_ && key_ == key; }
  [[noreturn]] void out_of_range(const std::string& found) const {
    fail("{}: token '{}': expected an id from 0 to {}, found {}", where_, key_, kMaximumTokenId, found);
  }
  [[noreturn]] void not_scored(const std::string& found) const {
    fail("{}: model: vocab {}: expected [token, score], found {}", where_, scored.size(), found);
  }
  bool score(double v) {
    if (pair_.empty() || score_ || !std::isfinite(v)) not_scored(fmt::format("the number {}", v));
    score_ = v;
    return true;
  }
  // Puts a value under the open container and returns it.
  Json* put(Json v) {
    switch (region_) {
      case Region::vocabulary:
        fail("{}: token '{}': expected an integer id, found {}", where_, key_, dump_json(v).substr(0, 80));
      case Region::scored_vocabulary:
      case Region::scored_token:
        not_scored(dump_json(v).substr(0, 80));
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
  std::optional<double> score_;
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

void read_bpe(const JsonView& model, const std::vector<std::pair<std::string, std::string>>& merges,
              const Vocabulary& ids, TokenizerParts& parts) {
  const double dropout = model.number_or("dropout", 0);
  require(dropout == 0,
          "{}: model: dropout: expected null or 0 (encoding at random is not supported), found {}",
          parts.where, dropout);
  parts.bpe.byte_fallback = model.boolean_or("byte_fallback", false);
  parts.bpe.ignore_merges = model.boolean_or("ignore_merges", false);
  parts.bpe.fuse_unk = model.boolean_or("fuse_unk", false);
  parts.bpe.continuing_subword_prefix = model.string_or("continuing_subword_prefix", "");
  parts.bpe.end_of_word_suffix = model.string_or("end_of_word_suffix", "");
  if (model.has("unk_token")) {
    const std::string unk = model.string("unk_token");
    // Some files name an unknown token that only the added tokens have, or none at all.
    if (ids.contains(unk)) parts.bpe.unk = unk_id(ids, unk, parts.where);
  }
  resolve_merges(merges, ids, parts);
}

void read_wordpiece(const JsonView& model, const Vocabulary& ids, TokenizerParts& parts) {
  parts.wordpiece.unk = unk_id(ids, model.string_or("unk_token", "[UNK]"), parts.where);
  parts.wordpiece.continuing_subword_prefix = model.string_or("continuing_subword_prefix", "##");
  parts.wordpiece.max_input_chars_per_word = model.integer_or("max_input_chars_per_word", 100);
}

void read_unigram(const JsonView& model, std::vector<std::pair<std::string, double>> scored,
                  TokenizerParts& parts) {
  require(!scored.empty(), "{}: model: expected a list 'vocab' of tokens and scores, found none",
          parts.where);
  require(scored.size() <= static_cast<size_t>(kMaximumTokenId) + 1,
          "{}: model: expected at most {} tokens, found {}", parts.where, kMaximumTokenId + 1, scored.size());
  parts.vocabulary.reserve(scored.size());
  for (auto& [token, score] : scored) {
    parts.vocabulary.push_back({std::move(token), static_cast<int32_t>(parts.vocabulary.size())});
    parts.unigram.scores.push_back(score);
  }
  parts.unigram.byte_fallback = model.boolean_or("byte_fallback", false);
  if (!model.has("unk_id")) return;
  const int64_t unk = model.integer("unk_id");
  require(unk >= 0 && unk < static_cast<int64_t>(scored.size()),
          "{}: model: unk_id: expected 0 to {}, found {}", parts.where, scored.size() - 1, unk);
  parts.unigram.unk = static_cast<int32_t>(unk);
}

// Files of 2019 and 2020 leave the type out.
TokenizerParts::Model model_of(const JsonView& model, bool scored, const std::string& where) {
  using Model = TokenizerParts::Model;
  const std::string type = model.string_or("type", model.has("max_input_chars_per_word") ? "WordPiece"
                                                   : scored                              ? "Unigram"
                                                                                         : "BPE");
  if (type == "BPE") return Model::bpe;
  if (type == "WordPiece") return Model::wordpiece;
  if (type == "Unigram") return Model::unigram;
  if (type == "WordLevel") return Model::wordlevel;
  fail("{}: model: type: expected BPE, WordPiece, Unigram or WordLevel, found '{}'", where, type);
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
  parts.model = model_of(model, !events.scored.empty(), where);
  if (parts.model == TokenizerParts::Model::unigram) {
    read_unigram(model, std::move(events.scored), parts);
    return parts;
  }
  require(!events.vocabulary.empty(), "{}: model: expected an object 'vocab' of tokens and ids, found none",
          where);
  parts.vocabulary = std::move(events.vocabulary);
  Vocabulary ids;
  ids.reserve(parts.vocabulary.size());
  for (const auto& entry : parts.vocabulary) ids.emplace(entry.token, entry.id);
  if (parts.model == TokenizerParts::Model::bpe) read_bpe(model, events.merges, ids, parts);
  if (parts.model == TokenizerParts::Model::wordpiece) read_wordpiece(model, ids, parts);
  if (parts.model == TokenizerParts::Model::wordlevel) {
    parts.wordlevel_unk_token = model.string_or("unk_token", "<unk>");
  }
  return parts;
}

}  // namespace qkv
