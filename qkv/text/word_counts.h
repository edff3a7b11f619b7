// How often each word occurs in a corpus, counted by all threads: what a BPE trainer learns from.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/text/added_tokens.h"
#include "qkv/text/pretokenizer.h"

namespace qkv {

struct WordCount {
  std::string word;  // raw bytes
  int64_t count = 0;
};

// Sets `document` to the next one; false at the end.
using DocumentSource = std::function<bool(std::string& document)>;

struct WordCounter {
  const Pretokenizer& pretokenizer;
  const AddedTokenMatcher& special;  // cut out of the text and not counted

  // Sorted by word; the same for any number of threads. Throws Error naming the file and the byte offset (or
  // the number of the document) of invalid UTF-8, and if ctrl-C was pressed.
  std::vector<WordCount> count_files(std::span<const std::string> paths) const;
  std::vector<WordCount> count_documents(const DocumentSource& next) const;
};

}  // namespace qkv
