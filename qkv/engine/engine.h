// Generation: requests in, tokens and text out, step by step. Every sequence that is being generated shares
// one forward pass per step (continuous batching, Yu et al., "Orca", OSDI 2022): its next token, or the next
// chunk of its prompt.
//
//   Engine engine(model, tokenizer);
//   engine.submit({.prompt = ids});
//   while (engine.step()) for (const Event& event : engine.take_events()) show(event.text);
//
// An engine is used from one thread at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/engine/prefix_tree.h"
#include "qkv/engine/sampler.h"
#include "qkv/engine/speculation.h"
#include "qkv/models/model.h"
#include "qkv/text/tokenizer.h"

namespace qkv {

class Grammar;
class TokenTrie;
struct Session;

struct EngineOptions {
  int64_t max_context = 0;          // tokens of prompt and answer together; 0: what the model was trained for
  DType compute_type = DType::f32;  // of activations: f32 or bf16
  // How states are kept. A pool with a limit bounds the memory of all of them: when it is full, what is kept
  // for later requests goes first, then the latest requests wait and are computed again.
  CacheOptions cache = {};
  // Of products with weights of blocks: rounded to bytes, or exact.
  Activations activations = Activations::int8;
  int64_t max_sequences = 8;    // generated at the same time; the others wait
  int64_t prefill_chunk = 512;  // prompt tokens per step at most, over all sequences
  // States that are kept for requests which begin alike (prefix_tree.h): of prompts as soon as they are read,
  // and of finished sequences, such as the turns of a chat. The oldest goes when there are more.
  int64_t kept_sequences = 0;
  // Speculative decoding: proposes tokens that one pass checks together (see speculation.h). What is
  // generated is the same with and without, to the rounding of a pass of several tokens. Null: none.
  std::shared_ptr<Drafter> drafter = nullptr;
  int64_t max_draft = 16;  // proposed tokens per sequence and pass at most
  // The logits of a sequence have the same bits whatever else is in its passes and however its prompt is cut:
  // rows are computed one by one (tensor/batch_invariance.h), which costs most where many are computed
  // together. Without, they are the same to rounding.
  bool deterministic = false;
};

struct Request {
  std::vector<int32_t> prompt;  // at least one token
  SamplerOptions sampler;
  int64_t max_new_tokens = 256;
  std::vector<std::string> stop;  // end the text; never part of it
  std::vector<int32_t> stop_ids;  // end the text, beside the tokenizer's stop_ids()
  bool ignore_eos = false;        // the tokenizer's stop_ids() are tokens like any other
  int64_t min_new_tokens = 0;     // before them neither the tokenizer's stop_ids() nor stop_ids are chosen
  // Texts that the answer never contains: a token that would complete one is not chosen.
  std::vector<std::string> banned_strings;
  // The answer is a text of this grammar, and over when nothing more can follow in it. Needs a tokenizer.
  std::shared_ptr<const Grammar> grammar = nullptr;
  bool logprobs = false;         // fill Event::logprob
  int top_logprobs = 0;          // fill Event::top_logprobs with so many
  bool prompt_logprobs = false;  // fill Event::prompt_logprobs of the first event
  // Goes on where a session ended (session.h), with `prompt` after its tokens; without a prompt (it may be empty
  // then) with the session's answer: the tokens are those that an answer never interrupted would have had. The
  // counts of new tokens are without the session's.
  std::shared_ptr<const Session> resume = nullptr;
  bool keep_session = false;  // Engine::take_session() will give what it takes to go on
};

enum class FinishReason {
  stop,    // a stop string, one of the request's stop ids, or the end of its grammar
  length,  // max_new_tokens
  eos,     // one of the tokenizer's stop_ids()
  cancelled,
  context,  // max_context
  failed,   // Event::error says why
};
// "stop", "length", ...
std::string_view finish_reason_name(FinishReason reason);

struct Event {
  RequestId request = 0;
  std::optional<int32_t> token;  // every generated token once, the one that ended the answer too
  std::string text;  // to be appended to the answer: valid UTF-8, often empty in the middle of a character
  std::optional<float> logprob;  // of the token, by the model's own distribution (before the sampler)
  std::vector<TokenLogprob> top_logprobs;  // the likeliest tokens in its place, by the same distribution
  std::vector<float> prompt_logprobs;      // of each prompt token but the first, given those before it
  std::optional<FinishReason> finish;      // the request's last event
  std::string error;
};

struct EngineStats {
  int64_t prefill_tokens = 0;   // prompt tokens computed
  int64_t reused_tokens = 0;    // prompt tokens found in kept states
  int64_t decode_tokens = 0;    // tokens generated, but for the first of each answer
  int64_t drafted_tokens = 0;   // proposed by the drafter
  int64_t accepted_drafts = 0;  // of those
  int64_t preemptions = 0;      // sequences that had to give their memory to earlier ones
  double prefill_seconds = 0;   // a step that does both is split by tokens
  double decode_seconds = 0;
  double prefill_rate() const {
    return prefill_seconds > 0 ? static_cast<double>(prefill_tokens) / prefill_seconds : 0;
  }
  double decode_rate() const {
    return decode_seconds > 0 ? static_cast<double>(decode_tokens) / decode_seconds : 0;
  }
};

class Engine {
 public:
  // `model` and `tokenizer` must outlive the engine. Without a tokenizer (null) events carry tokens and no
  // text. Error for impossible options.
  explicit Engine(const Model& model, const Tokenizer* tokenizer = nullptr,
                  const EngineOptions& options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Queues a request. Error if it cannot be served: an empty prompt, an id outside the vocabulary, a prompt
  // that leaves no room in the context, impossible sampler options.
  RequestId submit(Request request);
  // One forward pass: the next token of every sequence that is generating, and up to prefill_chunk tokens of
  // waiting prompts. False when nothing is left to do.
  bool step();
  // What happened since the last call, in order.
  std::vector<Event> take_events();
  // Knows `tokens`, which `state` holds, as the beginning of requests to come.
  void keep_prefix(std::vector<int32_t> tokens, SequenceState state);
  // What a finished request with keep_session leaves, once; null for others.
  std::shared_ptr<Session> take_session(RequestId id);
  // Ends a request with FinishReason::cancelled. A request that is over, or none at all, is no error.
  void cancel(RequestId id);

  bool idle() const { return active_.empty() && waiting_.empty(); }
  int64_t max_context() const { return options_.max_context; }
  // Bytes of the states of active and kept sequences; what several share counts once.
  uint64_t state_bytes() const;
  const EngineStats& stats() const { return stats_; }

 private:
  struct Sequence;
  // What a sequence gives to a pass: its next tokens, and drafted ones after them.
  struct Part {
    Sequence* sequence;
    int64_t tokens;
  };

  void set_grammar(Sequence& sequence);
  // engine_schedule.cpp
  void admit();
  bool has_room_for(const Sequence& sequence);
  bool is_worth_waiting(const Sequence& sequence) const;
  void begin(Sequence& sequence);
  void draft();
  std::vector<Part> plan();
  std::vector<Part> make_room(std::vector<Part> parts);
  bool make_room(Part& part);
  void preempt(Sequence& sequence);
  void keep(Sequence& sequence);
  void limit_kept();
  void remove_finished();
  // engine_pass.cpp
  void run(const std::vector<Part>& parts);
  void score_prompt(Sequence& sequence, const Tensor& hidden, int64_t first_row, int64_t rows);
  // engine_answer.cpp
  int64_t choose(Sequence& sequence, float* logits, int64_t vocabulary);
  std::optional<int32_t> sample(Sequence& sequence, std::span<float> logits) const;
  void accept(Sequence& sequence, std::span<float> logits);
  void forbid_ends(const Sequence& sequence, std::span<float> logits) const;
  void finish(Sequence& sequence, FinishReason reason, Event event);

  const Model& model_;
  const Tokenizer* tokenizer_;
  EngineOptions options_;
  RequestId next_id_ = 1;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> active_;  // in order of arrival
  PrefixTree kept_;
  std::map<RequestId, std::shared_ptr<Session>> sessions_;  // finished, to be taken
  std::vector<Event> events_;
  EngineStats stats_;
  std::shared_ptr<const TokenTrie> token_trie_;  // made for the first request with a grammar
};

struct Completion {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;                          // one per token, if asked for
  std::vector<std::vector<TokenLogprob>> top_logprobs;  // the same
  std::vector<float> prompt_logprobs;                   // see Event
  std::string text;
  FinishReason finish = FinishReason::failed;

  // Adds what happened; errors are the caller's.
  void append(Event event);
};
// Submits all requests, steps until they are done, and gives their answers in the order of the requests.
// Error if one failed, or if the engine was not idle.
std::vector<Completion> complete(Engine& engine, std::vector<Request> requests);

}  // namespace qkv
