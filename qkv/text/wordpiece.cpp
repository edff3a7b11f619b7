// Greedy longest match.
#include "qkv/text/wordpiece.h"

#include <algorithm>

#include "qkv/core/utf8.h"
#include "qkv/text/unicode.h"

namespace qkv {

WordPieceModel::WordPieceModel(const Vocabulary& words, WordPieceOptions options)
    : words_(words), options_(std::move(options)) {
  for (const auto& [word, id] : words_) longest_ = std::max(longest_, word.size());
}

void WordPieceModel::encode_word(std::string_view word, WordScratch& scratch,
                                 std::vector<int32_t>& ids) const {
  int64_t characters = 0;
  for (size_t i = 0; i < word.size(); ++characters) next_code_point(word, i);
  const size_t start = ids.size();
  bool covered = characters <= options_.max_input_chars_per_word;
  for (size_t begin = 0; covered && begin < word.size();) {
    const std::string_view prefix =
        begin > 0 ? std::string_view(options_.continuing_subword_prefix) : std::string_view();
    size_t end = std::min(word.size(), begin + longest_);
    while (end < word.size() && end > begin && (static_cast<uint8_t>(word[end]) & 0xC0) == 0x80) --end;
    covered = false;
    while (end > begin) {
      scratch.text.assign(prefix);
      scratch.text += word.substr(begin, end - begin);
      if (const auto found = words_.find(scratch.text); found != words_.end()) {
        ids.push_back(found->second);
        covered = true;
        break;
      }
      end = previous_code_point(word, end);
    }
    begin = end;
  }
  if (!covered) {
    ids.resize(start);
    ids.push_back(options_.unk);
  }
}

}  // namespace qkv
