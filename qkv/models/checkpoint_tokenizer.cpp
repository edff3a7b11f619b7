#include "qkv/models/checkpoint_tokenizer.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/models/tokenizer_source.h"
#include "qkv/text/gguf_vocabulary.h"
#include "qkv/text/tokenizer_files.h"

namespace qkv {

std::unique_ptr<Tokenizer> checkpoint_tokenizer(const Checkpoint& checkpoint, std::string& problem) {
  try {
    const HfFiles kept = hf_files(checkpoint);
    if (const MemoryFiles files(kept, checkpoint.path()); has_tokenizer(files)) return load_tokenizer(files);
    auto tokenizer = tokenizer_of(checkpoint);
    if (tokenizer == nullptr) {
      problem = fmt::format("{}: expected a tokenizer in it or beside it, found none", checkpoint.path());
    }
    return tokenizer;
  } catch (const Error& error) {
    problem = error.what();
    return nullptr;
  }
}

void require_rows_for(const Tokenizer& tokenizer, int64_t rows, const std::string& where) {
  require(tokenizer.vocab_size() <= rows, "{}: the tokenizer has {} ids but the embedding only {} rows",
          where, tokenizer.vocab_size(), rows);
}

void set_token_ids(Json& config, const Tokenizer& tokenizer) {
  const auto id = [](std::optional<int32_t> id) { return id ? Json(*id) : Json(nullptr); };
  config["bos_token_id"] = id(tokenizer.bos_id());
  config["eos_token_id"] =
      tokenizer.stop_ids().size() > 1 ? Json(tokenizer.stop_ids()) : id(tokenizer.eos_id());
}

bool add_tokenizer_files(const Checkpoint& checkpoint, HfFiles& files, std::string& problem) {
  if (has_tokenizer(MemoryFiles(files, checkpoint.path()))) return true;
  const auto tokenizer = checkpoint_tokenizer(checkpoint, problem);
  if (tokenizer == nullptr) return false;
  for (const auto& [name, text] : tokenizer->files())
    files.emplace(name, text);  // what the model came with stays
  return true;
}

bool write_vocabulary(const Tokenizer* tokenizer, int64_t vocabulary_size, Metadata& metadata) {
  if (tokenizer == nullptr) {
    metadata.set("tokenizer.ggml.model", std::string("no_vocab"));
    return false;
  }
  write_gguf_vocabulary(*tokenizer, vocabulary_size, metadata);
  return true;
}

}  // namespace qkv
