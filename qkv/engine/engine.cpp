#include "qkv/engine/engine.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "qkv/core/error.h"
#include "qkv/core/progress.h"
#include "qkv/engine/engine_sequence.h"
#include "qkv/nn/kv_state.h"
#include "qkv/tensor/autograd.h"
#include "qkv/tensor/batch_invariance.h"

namespace qkv {

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::eos:
      return "eos";
    case FinishReason::cancelled:
      return "cancelled";
    case FinishReason::context:
      return "context";
    case FinishReason::failed:
      return "failed";
  }
  return "";
}

Engine::Engine(const Model& model, const Tokenizer* tokenizer, const EngineOptions& options)
    : model_(model), tokenizer_(tokenizer), options_(options) {
  const int64_t trained = model.info().max_positions;
  if (options_.max_context == 0) options_.max_context = trained;
  // With attention sinks positions are those within the cache, however long the text becomes.
  const CacheOptions& cache = options_.cache;
  const bool endless = cache.sinks > 0 && cache.window + cache.sinks <= trained;
  require(options_.max_context >= 2 && (options_.max_context <= trained || endless),
          "context: expected 2 to {} tokens, the positions of this model, found {}", trained,
          options_.max_context);
  require(options_.compute_type == DType::f32 || options_.compute_type == DType::bf16,
          "compute type: expected f32 or bf16, found {}", name(options_.compute_type));
  require(options_.max_sequences >= 1, "sequences at a time: expected at least 1, found {}",
          options_.max_sequences);
  require(options_.prefill_chunk >= 1, "prefill chunk: expected at least 1 token, found {}",
          options_.prefill_chunk);
  require(options_.kept_sequences >= 0, "kept sequences: expected 0 or more, found {}",
          options_.kept_sequences);
  require(options_.max_draft >= 1, "draft tokens: expected at least 1, found {}", options_.max_draft);
  require(options_.drafter == nullptr || model_.make_state(options_.cache).can_truncate(),
          "speculative decoding: expected a model whose state can be shortened, found {}, a recurrent one",
          model_.info().architecture);
  if (options_.cache.pool == nullptr) options_.cache.pool = PagePool::make();
}

Engine::~Engine() = default;

RequestId Engine::submit(Request request) {
  require(!request.prompt.empty() || request.resume != nullptr,
          "prompt: expected at least one token, found none");
  const int64_t vocabulary = model_.info().vocabulary;
  for (const int32_t id : request.prompt) {
    require(id >= 0 && id < vocabulary, "prompt: expected token ids below {}, found {}", vocabulary, id);
  }
  auto length = static_cast<int64_t>(request.prompt.size());
  if (request.resume != nullptr) length += static_cast<int64_t>(request.resume->tokens.size());
  require(length < options_.max_context, "prompt: {} tokens leave no room for an answer in a context of {}",
          length, options_.max_context);
  const uint64_t limit = options_.cache.pool->limit();
  const uint64_t needed = model_.state_bytes(options_.cache, length + 1, options_.prefill_chunk);
  require(limit == 0 || needed <= limit, "prompt: {} tokens need {} of cache, and there are {}", length,
          format_bytes(needed), format_bytes(limit));
  require(request.max_new_tokens >= 1, "tokens to generate: expected at least 1, found {}",
          request.max_new_tokens);
  require(tokenizer_ != nullptr || request.stop.empty(),
          "stop strings: need a tokenizer, and this model came without one");
  require(tokenizer_ != nullptr || request.banned_strings.empty(),
          "banned strings: need a tokenizer, and this model came without one");
  for (const std::string& text : request.banned_strings) {
    require(!text.empty(), "banned strings: expected text, found an empty string");
  }
  require(request.min_new_tokens <= request.max_new_tokens,
          "tokens to generate: expected the least, {}, to be no more than the most, {}",
          request.min_new_tokens, request.max_new_tokens);
  require(request.top_logprobs >= 0 && request.top_logprobs <= vocabulary,
          "log-probabilities: expected 0 to {} of the likeliest tokens, found {}", vocabulary,
          request.top_logprobs);
  require(tokenizer_ != nullptr || request.grammar == nullptr,
          "grammar: needs a tokenizer, and this model came without one");
  auto sequence = std::make_unique<Sequence>(next_id_, std::move(request), tokenizer_, options_.max_draft);
  if (sequence->request.grammar != nullptr) set_grammar(*sequence);
  sequence->replay(tokenizer_);
  waiting_.push_back(std::move(sequence));
  return next_id_++;
}

void Engine::set_grammar(Sequence& sequence) {
  const Request& request = sequence.request;
  if (token_trie_ == nullptr) token_trie_ = std::make_shared<const TokenTrie>(*tokenizer_);
  std::vector<int32_t> ends = request.stop_ids;
  if (!request.ignore_eos)
    ends.insert(ends.end(), tokenizer_->stop_ids().begin(), tokenizer_->stop_ids().end());
  const bool drops_space = tokenizer_->join_rules().strips_leading_space && !sequence.begun;
  sequence.grammar.emplace(request.grammar, token_trie_, ends, drops_space);
}

bool Engine::step() {
  admit();
  draft();
  const std::vector<Part> parts = make_room(plan());
  if (!parts.empty()) {
    const NoGrad no_grad;
    const BatchInvariant rows_alone(options_.deterministic);
    try {
      run(parts);
    } catch (const std::exception& error) {
      // Where the pass broke off the states are unknown: its sequences end, the engine does not.
      for (const Part& part : parts) {
        if (part.sequence->finished) continue;
        Event event;
        event.error = error.what();
        finish(*part.sequence, FinishReason::failed, std::move(event));
      }
    }
  }
  remove_finished();
  return !idle();
}

std::vector<Event> Engine::take_events() {
  return std::exchange(events_, {});
}

void Engine::cancel(RequestId id) {
  const auto has_id = [&](const auto& sequence) { return sequence->id == id; };
  if (const auto found = std::find_if(active_.begin(), active_.end(), has_id); found != active_.end()) {
    finish(**found, FinishReason::cancelled, {});
    remove_finished();
  } else if (const auto queued = std::find_if(waiting_.begin(), waiting_.end(), has_id);
             queued != waiting_.end()) {
    finish(**queued, FinishReason::cancelled, {});
    waiting_.erase(queued);
  }
}

uint64_t Engine::state_bytes() const {
  std::vector<const SequenceState*> states = kept_.states();
  for (const auto& sequence : active_) states.push_back(&sequence->state);
  uint64_t total = options_.cache.pool->bytes();
  for (const SequenceState* state : states) {
    for (const auto& layer : state->layers) {
      if (dynamic_cast<const KvState*>(layer.get()) == nullptr) total += layer->bytes();
    }
  }
  return total;
}

std::shared_ptr<Session> Engine::take_session(RequestId id) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return nullptr;
  std::shared_ptr<Session> session = std::move(found->second);
  sessions_.erase(found);
  return session;
}

void Engine::keep_prefix(std::vector<int32_t> tokens, SequenceState state) {
  kept_.insert(tokens, std::move(state));
  limit_kept();
}

void Completion::append(Event event) {
  text += event.text;
  if (event.token) tokens.push_back(*event.token);
  if (event.logprob) logprobs.push_back(*event.logprob);
  if (!event.top_logprobs.empty()) top_logprobs.push_back(std::move(event.top_logprobs));
  if (!event.prompt_logprobs.empty()) prompt_logprobs = std::move(event.prompt_logprobs);
  if (event.finish) finish = *event.finish;
}

std::vector<Completion> complete(Engine& engine, std::vector<Request> requests) {
  require(engine.idle(), "engine: expected an idle engine, found requests under way");
  engine.take_events();
  std::vector<Completion> completions(requests.size());
  std::unordered_map<RequestId, size_t> places;
  for (Request& request : requests) {
    const size_t place = places.size();
    try {
      places[engine.submit(std::move(request))] = place;
    } catch (...) {  // nothing of a refused batch stays queued
      for (const auto& entry : places) engine.cancel(entry.first);
      engine.take_events();
      throw;
    }
  }
  std::string error;
  for (bool more = true; more;) {
    more = engine.step();
    for (Event& event : engine.take_events()) {
      if (!event.error.empty()) error = event.error;
      completions[places.at(event.request)].append(std::move(event));
    }
  }
  require(error.empty(), "{}", error);
  return completions;
}

}  // namespace qkv
