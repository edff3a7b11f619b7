// What turns one word into token ids: BPE, WordPiece, Unigram or a list of words.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace qkv {

// Token spelling -> id, searchable by string_view.
struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using Vocabulary = std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>>;

// Buffers that one thread reuses from word to word.
struct WordScratch {
  std::vector<int32_t> symbols, next, previous;
  std::vector<uint32_t> ranks;
  struct Candidate {
    uint32_t rank;
    int32_t left, left_id, right_id;
  };
  std::vector<Candidate> heap;
  struct Path {  // the best way to cut the text up to a place
    double score;
    int32_t begin, token;  // of its last token
  };
  std::vector<Path> paths;
  std::string text;
};

class WordModel {
 public:
  virtual ~WordModel() = default;
  // Appends the ids of the word. Any bytes are accepted. Without side effects other than on scratch and ids.
  virtual void encode_word(std::string_view word, WordScratch& scratch, std::vector<int32_t>& ids) const = 0;
  virtual std::string_view kind() const = 0;
};

}  // namespace qkv
