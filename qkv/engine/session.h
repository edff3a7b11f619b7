// What it takes to go on with a sequence later: its tokens, what the model remembers of them, and where its
// draws stand. In a file it is one whole with a checksum, tied to the model it came from (docs/serving.md).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qkv/models/model.h"
#include "qkv/nn/state.h"

namespace qkv {

struct Session {
  std::vector<int32_t> tokens;  // prompt and answer
  int64_t prompt_tokens = 0;    // of them
  SequenceState state;          // of the first state.length of them: of all but the last in general
  uint64_t seed = 0;            // of the sampler
  uint64_t draws = 0;           // tokens drawn before this answer
  float surprise_limit = 0;     // mirostat's
  std::string note;             // what else its owner wants back, UTF-8

  int64_t answer_tokens() const { return static_cast<int64_t>(tokens.size()) - prompt_tokens; }
};

// Says of two models whether one's sessions are the other's: every parameter's name, shape and type, and
// samples of its values.
uint64_t model_fingerprint(Model& model);

// The file appears whole or not at all. `cache` is how the state is kept.
void save_session(const std::string& path, const Session& session, const CacheOptions& cache, uint64_t model);
// Error naming the file if it is none, damaged, of another version, of another model, or of a cache of
// another kind than `cache`, from whose pool the state's pages come.
Session load_session(const std::string& path, const Model& model, const CacheOptions& cache,
                     uint64_t fingerprint);

}  // namespace qkv
