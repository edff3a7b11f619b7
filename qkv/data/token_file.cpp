#include "qkv/data/token_file.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "qkv/core/utf8.h"

namespace qkv {
namespace {

constexpr char kMagic[8] = {'Q', 'K', 'V', 'T', 'O', 'K', 'S', '1'};

struct Header {
  char magic[8];
  uint32_t width, vocabulary;
  uint64_t documents, tokens, source_hash;
};
static_assert(sizeof(Header) == 40);

// The documents of a text: split at lines that are exactly the separator.
std::vector<std::string_view> split_documents(std::string_view text, const std::string& separator) {
  std::vector<std::string_view> documents;
  const auto keep = [&](std::string_view document) {
    const size_t first = document.find_first_not_of(" \t\r\n");
    if (first != std::string_view::npos) documents.push_back(document);
  };
  size_t begin = 0, search = 0;
  while (!separator.empty()) {
    const size_t at = text.find(separator, search);
    if (at == std::string_view::npos) break;
    const size_t after = at + separator.size();
    const bool whole_line = (at == 0 || text[at - 1] == '\n') && (after == text.size() || text[after] == '\n');
    if (whole_line) {
      keep(text.substr(begin, at == begin ? 0 : at - 1 - begin));
      begin = std::min(text.size(), after + 1);
    }
    search = after;
  }
  if (begin < text.size()) keep(text.substr(begin));
  return documents;
}

struct Sources {
  std::vector<std::shared_ptr<const MappedFile>> files;  // own the text
  std::vector<std::string_view> documents;
  uint64_t bytes = 0;
};

std::string_view text_of(const MappedFile& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Sources open_sources(const std::vector<std::string>& paths, const std::string& separator) {
  Sources sources;
  for (const auto& path : paths) {
    auto file = MappedFile::open(path);
    const std::string_view text = text_of(*file);
    if (const auto bad = first_invalid_utf8(text)) fail("{}: byte {}: expected UTF-8 text, found 0x{:02X}", path, *bad, static_cast<uint8_t>(text[*bad]));
    for (std::string_view document : split_documents(text, separator)) sources.documents.push_back(document);
    sources.bytes += text.size();
    sources.files.push_back(std::move(file));
  }
  require(!sources.documents.empty(), "data: {}: expected text, found none", fmt::join(paths, ", "));
  return sources;
}

// Takes the last `fraction` of the text as validation documents; a document that straddles the cut is split at a line end.
std::vector<std::string_view> take_validation(std::vector<std::string_view>& documents, double fraction) {
  uint64_t total = 0;
  for (auto document : documents) total += document.size();
  const auto wanted = static_cast<uint64_t>(static_cast<double>(total) * fraction);
  std::vector<std::string_view> valid;
  uint64_t taken = 0;
  while (!documents.empty() && taken < wanted) {
    const std::string_view last = documents.back();
    if (taken + last.size() <= wanted + wanted / 4 && documents.size() > 1) {
      valid.push_back(last);
      taken += last.size();
      documents.pop_back();
      continue;
    }
    const size_t cut = last.find('\n', last.size() - std::min<size_t>(last.size(), wanted - taken));
    if (cut == std::string_view::npos || cut + 1 >= last.size() || cut == 0) break;
    valid.push_back(last.substr(cut + 1));
    documents.back() = last.substr(0, cut);
    break;
  }
  std::reverse(valid.begin(), valid.end());
  return valid;
}

uint64_t fingerprint(const std::vector<std::string_view>& documents, const Tokenizer& tokenizer) {
  XXH64_state_t* state = XXH64_createState();
  XXH64_reset(state, 0);
  for (auto document : documents) {
    const uint64_t size = document.size();
    XXH64_update(state, &size, sizeof(size));
    XXH64_update(state, document.data(), document.size());
  }
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string& token = tokenizer.id_to_token(id);
    XXH64_update(state, token.data(), token.size() + 1);
  }
  const uint64_t hash = XXH64_digest(state);
  XXH64_freeState(state);
  return hash;
}

// Encodes in batches, so that memory stays bounded and all threads work.
void write_tokens(const std::string& path, const std::vector<std::string_view>& documents, const Tokenizer& tokenizer, uint64_t hash) {
  const int32_t vocabulary = tokenizer.vocab_size();
  const uint32_t width = vocabulary <= 65536 ? 2 : 4;
  const auto begin_id = tokenizer.bos_id() ? tokenizer.bos_id() : tokenizer.eos_id();
  const auto end_id = tokenizer.eos_id();
  EncodeOptions encode;
  encode.add_special = false;
  encode.parse_special = false;

  std::vector<uint64_t> offsets = {0};
  std::string packed;
  const auto put = [&](int32_t id) {
    for (uint32_t b = 0; b < width; ++b) packed += static_cast<char>((static_cast<uint32_t>(id) >> (8 * b)) & 0xFF);
  };
  uint64_t bytes = 0, done = 0;
  for (auto document : documents) bytes += document.size();
  Progress progress("tokenizing", bytes >> 10, "KiB");
  for (size_t next = 0; next < documents.size();) {
    std::vector<std::string> batch;
    uint64_t batch_bytes = 0;
    while (next < documents.size() && batch_bytes < (4u << 20)) {
      batch.emplace_back(documents[next]);
      batch_bytes += documents[next++].size();
    }
    for (const auto& ids : tokenizer.encode_batch(batch, encode)) {
      if (begin_id) put(*begin_id);
      for (int32_t id : ids) put(id);
      if (end_id) put(*end_id);
      offsets.push_back(packed.size() / width);
    }
    done += batch_bytes;
    progress.update(done >> 10);
  }
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.width = width;
  header.vocabulary = static_cast<uint32_t>(vocabulary);
  header.documents = documents.size();
  header.tokens = offsets.back();
  header.source_hash = hash;
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&header, 1)));
  file.write(std::as_bytes(std::span(offsets)));
  file.write(packed);
  file.commit();
}

// The file at `path` if it was made from exactly these documents.
std::shared_ptr<const TokenFile> reusable(const std::string& path, uint64_t hash) {
  if (!std::filesystem::exists(path)) return nullptr;
  try {
    auto file = TokenFile::open(path);
    return file->source_hash() == hash ? file : nullptr;
  } catch (const Error&) {
    return nullptr;  // damaged or of another version: made again
  }
}

}  // namespace

std::shared_ptr<const TokenFile> TokenFile::open(const std::string& path) {
  std::shared_ptr<TokenFile> result(new TokenFile);
  result->file_ = MappedFile::open(path);
  const auto bytes = result->file_->bytes();
  Header header{};
  require(bytes.size() >= sizeof(header), "[tokens] {}: expected at least {} bytes, found {}", path, sizeof(header), bytes.size());
  std::memcpy(&header, bytes.data(), sizeof(header));
  require(std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0, "[tokens] {}: not a token file", path);
  require(header.width == 2 || header.width == 4, "[tokens] {}: expected 2 or 4 bytes per token, found {}", path, header.width);
  const uint64_t limit = bytes.size();
  require(header.documents < limit && header.tokens <= limit &&
              sizeof(header) + (header.documents + 1) * 8 + header.tokens * header.width == limit,
          "[tokens] {}: {} documents and {} tokens do not fit a file of {} bytes", path, header.documents, header.tokens, limit);
  result->offsets_ = reinterpret_cast<const uint64_t*>(bytes.data() + sizeof(header));
  result->data_ = bytes.data() + sizeof(header) + (header.documents + 1) * 8;
  result->width_ = static_cast<int>(header.width);
  result->documents_ = static_cast<int64_t>(header.documents);
  result->tokens_ = static_cast<int64_t>(header.tokens);
  result->vocabulary_ = header.vocabulary;
  result->source_hash_ = header.source_hash;
  for (uint64_t d = 0; d < header.documents; ++d) {
    require(result->offsets_[d] <= result->offsets_[d + 1], "[tokens] {}: document {} ends before it begins", path, d);
  }
  require(result->offsets_[0] == 0 && result->offsets_[header.documents] == header.tokens, "[tokens] {}: documents do not cover the tokens", path);
  for (int64_t i = 0; i < result->tokens_; ++i) {
    require(static_cast<uint32_t>(result->token(i)) < header.vocabulary, "[tokens] {}: token {}: expected an id below {}, found {}", path, i,
            header.vocabulary, static_cast<uint32_t>(result->token(i)));
  }
  return result;
}

int64_t TokenFile::document_at(int64_t position) const {
  return std::upper_bound(offsets_, offsets_ + documents_ + 1, static_cast<uint64_t>(position)) - offsets_ - 1;
}

TokenizeResult tokenize_files(const std::vector<std::string>& train_files, const std::vector<std::string>& valid_files,
                              const Tokenizer& tokenizer, const std::string& directory, const TokenizeOptions& options) {
  Sources train = open_sources(train_files, options.document_separator);
  Sources valid;
  if (!valid_files.empty()) {
    valid = open_sources(valid_files, options.document_separator);
  } else if (options.valid_fraction > 0) {
    valid.documents = take_validation(train.documents, options.valid_fraction);
  }
  TokenizeResult result;
  result.text_bytes = train.bytes + valid.bytes;
  result.train_path = directory + "/train.tokens";
  result.valid_path = directory + "/valid.tokens";
  std::filesystem::create_directories(directory);
  result.reused = true;
  for (const bool is_train : {true, false}) {
    const auto& documents = is_train ? train.documents : valid.documents;
    const std::string& path = is_train ? result.train_path : result.valid_path;
    const uint64_t hash = fingerprint(documents, tokenizer);
    auto file = reusable(path, hash);
    if (!file) {
      result.reused = false;
      write_tokens(path, documents, tokenizer, hash);
      file = TokenFile::open(path);
    }
    (is_train ? result.train_tokens : result.valid_tokens) = file->tokens();
    (is_train ? result.train_documents : result.valid_documents) = file->documents();
  }
  return result;
}

}  // namespace qkv
