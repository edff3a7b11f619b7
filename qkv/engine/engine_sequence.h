// A request under way, as the engine's own files see it.
#pragma once

#include <algorithm>
#include <utility>

#include "qkv/engine/engine.h"
#include "qkv/engine/grammar/grammar.h"
#include "qkv/engine/session.h"
#include "qkv/engine/stop_matcher.h"

namespace qkv {

struct Engine::Sequence {
  Sequence(RequestId number, Request wanted, const Tokenizer* tokenizer, int64_t max_draft)
      : id(number),
        request(std::move(wanted)),
        sampler(request.sampler),
        stops(request.stop),
        draft_length(max_draft) {
    if (request.resume != nullptr) {
      resume(*request.resume);
    } else {
      tokens = request.prompt;
    }
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
  // Only the latest token is to be computed, and drafts after it.
  bool is_decoding() const { return has_state && generated() > 0 && pending() == 1; }
  // The number of the next draw of its seed.
  uint64_t draw() const { return first_draw + static_cast<uint64_t>(generated()); }

  // What follows the answer so far sees it as if it had been generated here.
  void replay(const Tokenizer* tokenizer) {
    for (size_t i = request.prompt.size(); i < tokens.size(); ++i) {
      if (grammar) grammar->accept(tokens[i]);
      if (tokenizer == nullptr) continue;
      remember_bytes(*tokenizer, tokens[i]);
      stops.push(decoder->push(tokens[i]));
    }
    if (stops.matched()) stops = StopMatcher(request.stop);  // it ended the answer so far
  }

  // The end of the answer, as far as a banned string may have begun in it.
  void remember_bytes(const Tokenizer& tokenizer, int32_t token) {
    size_t longest = 1;
    for (const std::string& text : request.banned_strings) longest = std::max(longest, text.size());
    if (!tokenizer.is_special(token)) recent_bytes += tokenizer.token_bytes(token);
    if (recent_bytes.size() >= longest) recent_bytes.erase(0, recent_bytes.size() - (longest - 1));
  }

  RequestId id;
  Request request;
  std::vector<int32_t> tokens;  // prompt and answer; the state holds the first state.length of them
  SequenceState state;
  bool has_state = false;    // false: nothing is computed (yet, or any more)
  bool preempted = false;    // it gave way in this step
  bool prompt_kept = false;  // others can go on from its prompt
  Sampler sampler;
  uint64_t first_draw = 0;  // of the answer
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

 private:
  void resume(const Session& session) {
    first_draw = session.draws;
    sampler.set_surprise_limit(session.surprise_limit);
    tokens = session.tokens;
    if (request.prompt.empty()) {  // its answer goes on
      request.prompt.assign(session.tokens.begin(), session.tokens.begin() + session.prompt_tokens);
      request.max_new_tokens += session.answer_tokens();
      request.min_new_tokens += session.answer_tokens();
    } else {
      first_draw += static_cast<uint64_t>(session.answer_tokens());
      tokens.insert(tokens.end(), request.prompt.begin(), request.prompt.end());
      request.prompt = tokens;
    }
  }
};

}  // namespace qkv
