// One look-up per word.
#include "qkv/text/word_level.h"

#include "qkv/core/error.h"
#include "qkv/core/utf8.h"

namespace qkv {

void WordLevelModel::encode_word(std::string_view word, WordScratch&, std::vector<int32_t>& ids) const {
  const auto found = words_.find(word);
  const auto id = found != words_.end() ? std::optional(found->second) : unk_;
  require(id.has_value(), "{}: word '{}' is not in the vocabulary, which has no unknown token", where_,
          replace_invalid_utf8(word.substr(0, 80)));
  ids.push_back(*id);
}

}  // namespace qkv
