// One table per thread, joined and sorted at the end.
#include "qkv/text/word_counts.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/mapped_file.h"
#include "qkv/core/parallel.h"
#include "qkv/core/progress.h"
#include "qkv/core/utf8.h"
#include "qkv/text/word_model.h"

namespace qkv {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;
constexpr size_t kCutWindow = size_t{1} << 16;
constexpr size_t kBatchBytes = size_t{16} << 20;

using CountTable = std::unordered_map<std::string, int64_t, StringHash, std::equal_to<>>;

struct ThreadState {
  CountTable table;
  Regex::Scratch scratch;
};

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_space(char c) {
  return c == ' ' || (c >= 9 && c <= 13);
}

// Where the chunk that begins at `begin` ends: preferably between two words, where every pattern cuts anyway.
size_t chunk_end(std::string_view text, size_t begin) {
  const size_t target = begin + kChunkBytes;
  if (target + kCutWindow >= text.size()) return text.size();
  for (size_t i = target; i < target + kCutWindow; ++i) {
    if (text[i] == ' ' && is_letter(text[i - 1]) && is_letter(text[i + 1])) return i;
  }
  for (size_t i = target; i < target + kCutWindow; ++i) {
    if (text[i - 1] == '\n' && !is_space(text[i - 2]) && !is_space(text[i])) return i;
  }
  size_t end = target;
  while ((static_cast<uint8_t>(text[end]) & 0xC0) == 0x80 && end < target + 4) ++end;
  return end;
}

// Offset of the first invalid byte, if there is one; then nothing is counted.
std::optional<size_t> count_text(std::string_view text, const WordCounter& counter, ThreadState& state) {
  if (const auto invalid = first_invalid_utf8(text)) return invalid;
  counter.special.split(text, {}, [&](std::string_view part, std::optional<int32_t> id) {
    if (id) return;
    counter.pretokenizer.split(part, false, state.scratch, [&](std::string_view word) {
      const auto found = state.table.find(word);
      if (found != state.table.end()) {
        ++found->second;
      } else {
        state.table.emplace(word, 1);
      }
    });
  });
  return std::nullopt;
}

std::vector<std::unique_ptr<ThreadState>> make_states() {
  std::vector<std::unique_ptr<ThreadState>> states;
  for (int i = 0; i < num_threads(); ++i) states.push_back(std::make_unique<ThreadState>());
  return states;
}

std::vector<WordCount> join(std::vector<std::unique_ptr<ThreadState>> states) {
  CountTable total = std::move(states.front()->table);
  for (size_t i = 1; i < states.size(); ++i) {
    for (auto& [word, count] : states[i]->table) total[word] += count;
    states[i]->table.clear();
  }
  std::vector<WordCount> words;
  words.reserve(total.size());
  while (!total.empty()) {
    auto node = total.extract(total.begin());
    words.push_back({std::move(node.key()), node.mapped()});
  }
  std::sort(words.begin(), words.end(),
            [](const WordCount& a, const WordCount& b) { return a.word < b.word; });
  return words;
}

}  // namespace

std::vector<WordCount> WordCounter::count_files(std::span<const std::string> paths) const {
  auto states = make_states();
  std::vector<std::shared_ptr<const MappedFile>> files;
  uint64_t total = 0, done = 0;
  for (const auto& path : paths) {
    files.push_back(MappedFile::open(path));
    total += files.back()->bytes().size();
  }
  Progress progress("counting words", total, "B");
  for (auto& file : files) {
    const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
    std::vector<size_t> ends;
    for (size_t begin = 0; begin < text.size(); begin = ends.back()) ends.push_back(chunk_end(text, begin));
    std::vector<std::optional<size_t>> invalid(ends.size());
    parallel_items(static_cast<int64_t>(ends.size()), [&](int64_t i, int thread) {
      stop_if_interrupted();
      const size_t begin = i > 0 ? ends[i - 1] : 0;
      invalid[i] = count_text(text.substr(begin, ends[i] - begin), *this, *states[thread]);
      if (invalid[i]) *invalid[i] += begin;
      file->drop_pages(begin, ends[i] - begin);
      if (thread == 0) progress.update(done + ends[i]);
    });
    for (const auto& offset : invalid) {
      require(!offset, "{}: expected UTF-8 text, found an invalid byte at offset {}", file->path(),
              offset.value_or(0));
    }
    done += text.size();
    file.reset();
  }
  return join(std::move(states));
}

std::vector<WordCount> WordCounter::count_documents(const DocumentSource& next) const {
  auto states = make_states();
  std::vector<std::string> batch;
  size_t batch_bytes = 0;
  uint64_t first = 0, done = 0;
  Progress progress("counting words", 0, "B");
  const auto count_batch = [&] {
    std::vector<std::optional<size_t>> invalid(batch.size());
    parallel_items(static_cast<int64_t>(batch.size()), [&](int64_t i, int thread) {
      stop_if_interrupted();
      invalid[i] = count_text(batch[i], *this, *states[thread]);
    });
    for (size_t i = 0; i < batch.size(); ++i) {
      require(!invalid[i], "document {}: expected UTF-8 text, found an invalid byte at offset {}", first + i,
              invalid[i].value_or(0));
    }
    first += batch.size();
    progress.update(done += batch_bytes);
    batch.clear();
    batch_bytes = 0;
  };
  for (std::string document; next(document); document.clear()) {
    batch_bytes += document.size();
    batch.push_back(std::move(document));
    if (batch_bytes >= kBatchBytes) count_batch();
  }
  count_batch();
  return join(std::move(states));
}

}  // namespace qkv
