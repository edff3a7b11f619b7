// A request under way, as the engine's own files see it.
#pragma once

#include <algorithm>
#include <utility>

#include "qkv/engine/engine.h"
#include "qkv/engine/grammar/grammar.h"
#include "qkv/engine/stop_matcher.h"

namespace qkv {

struct Engine::Sequence {
  Sequence(RequestId number, Request wanted, const Tokenizer* tokenizer, int64_t max_draft)
      : id(number),
        request(std::move(wanted)),
        tokens(request.prompt),
        sampler(request.sampler),
        stops(request.stop),
        draft_length(max_draft) {
    if (tokenizer != nullptr) {
      // A text that has begun keeps the space its next token starts with.
      begun = std::any_of(request.prompt.begin(), request.prompt.end(),
                          [&](int32_t token) { return !tokenizer->is_special(token); });
      decoder.emplace(*tokenizer, true, begun);
    }
  }

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  int64_t generated() const { return length() - static_cast<int64_t>(request.prompt.size()); }
  int64_t pending() const { return length() - state.length; }

  RequestId id;
  Request request;
  std::vector<int32_t> tokens;  // prompt and answer; the state holds the first state.length of them
  SequenceState state;
  Sampler sampler;
  StopMatcher stops;
  std::optional<StreamDecoder> decoder;
  std::optional<GrammarMatcher> grammar;
  bool begun = false;        // the prompt has text
  std::string recent_bytes;  // the end of the answer, as long as the longest banned string
  std::vector<float> prompt_logprobs;
  DraftLength draft_length;
  std::vector<int32_t> drafted;  // proposed to follow `tokens` in this step
  bool finished = false;
  bool failed = false;  // nobody knows what the state holds
};

}  // namespace qkv
