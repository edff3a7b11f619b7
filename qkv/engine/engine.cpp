#include "qkv/engine/engine.h"

#include <algorithm>
#include <chrono>
#include <unordered_map>
#include <utility>

#include "qkv/core/error.h"
#include "qkv/engine/engine_sequence.h"
#include "qkv/tensor/autograd.h"
#include "qkv/tensor/batch_invariance.h"

namespace qkv {
namespace {

int64_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const auto end = a.begin() + static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  return std::mismatch(a.begin(), end, b.begin()).first - a.begin();
}

}  // namespace

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
  require(options_.max_context >= 2 && options_.max_context <= trained,
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
}

Engine::~Engine() = default;

RequestId Engine::submit(Request request) {
  require(!request.prompt.empty(), "prompt: expected at least one token, found none");
  const int64_t vocabulary = model_.info().vocabulary;
  for (const int32_t id : request.prompt) {
    require(id >= 0 && id < vocabulary, "prompt: expected token ids below {}, found {}", vocabulary, id);
  }
  const auto length = static_cast<int64_t>(request.prompt.size());
  require(length < options_.max_context, "prompt: {} tokens leave no room for an answer in a context of {}",
          length, options_.max_context);
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
  const std::vector<Part> parts = plan();
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
    remove_finished();
  }
  return !idle();
}

void Engine::admit() {
  while (!waiting_.empty() && static_cast<int64_t>(active_.size()) < options_.max_sequences) {
    active_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    Sequence& sequence = *active_.back();
    // What was computed before has no log-probabilities any more.
    sequence.state =
        sequence.request.prompt_logprobs ? model_.make_state(options_.cache) : begin_state(sequence.request.prompt);
    stats_.reused_tokens += sequence.state.length;
  }
}

SequenceState Engine::begin_state(const std::vector<int32_t>& prompt) {
  // The last prompt token is computed in any case: its logits choose the first token of the answer.
  const auto reusable = static_cast<int64_t>(prompt.size()) - 1;
  int64_t longest = 0;
  size_t best = 0;
  for (size_t i = 0; i < kept_.size(); ++i) {
    const int64_t length = std::min(common_prefix(kept_[i].tokens, prompt), reusable);
    if (length > longest) {
      longest = length;
      best = i;
    }
  }
  if (longest == 0) return model_.make_state(options_.cache);
  SequenceState state = std::move(kept_[best].state);
  kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(best));
  if (longest < state.length) {
    try {
      state.truncate(longest);
    } catch (const Error&) {
      return model_.make_state(options_.cache);  // a recurrent state has no way back
    }
  }
  return state;
}

void Engine::draft() {
  if (options_.drafter == nullptr) return;
  std::vector<DraftJob> jobs;
  std::vector<Sequence*> owners;
  for (const auto& sequence : active_) {
    sequence->drafted.clear();
    if (sequence->generated() == 0) continue;
    // The pass itself yields one token more than were drafted.
    const int64_t room = std::min(sequence->request.max_new_tokens - sequence->generated(),
                                  options_.max_context - sequence->length()) -
                         1;
    const int64_t limit = std::min(sequence->draft_length.next(), room);
    if (limit <= 0) continue;
    jobs.push_back({sequence->id, sequence->tokens, limit, {}});
    owners.push_back(sequence.get());
  }
  if (jobs.empty()) return;
  options_.drafter->propose(jobs);
  for (size_t i = 0; i < jobs.size(); ++i) {
    std::vector<int32_t>& draft = jobs[i].draft;
    const auto outside = std::find_if(draft.begin(), draft.end(),
                                      [&](int32_t id) { return id < 0 || id >= model_.info().vocabulary; });
    draft.erase(outside, draft.end());
    stats_.drafted_tokens += static_cast<int64_t>(draft.size());
    owners[i]->drafted = std::move(draft);
  }
}

std::vector<Engine::Part> Engine::plan() const {
  std::vector<Part> parts;
  int64_t budget = options_.prefill_chunk;
  for (const auto& sequence : active_) {
    if (sequence->generated() > 0) {
      parts.push_back({sequence.get(), sequence->pending() + static_cast<int64_t>(sequence->drafted.size())});
    } else if (budget > 0) {
      // A scan over several tokens adds in another order than steps do.
      const bool stepwise = options_.deterministic && !sequence->state.can_truncate();
      const int64_t chunk = std::min(sequence->pending(), stepwise ? 1 : budget);
      budget -= chunk;
      parts.push_back({sequence.get(), chunk});
    }
  }
  return parts;
}

void Engine::run(const std::vector<Part>& parts) {
  const auto started = std::chrono::steady_clock::now();
  Pass pass;
  pass.compute_type = options_.compute_type;
  pass.activations = options_.activations;
  pass.sequences.offsets = {0};
  std::vector<int32_t> tokens;
  std::vector<int64_t> rows;  // whose logits choose a token, of one sequence after the other
  std::vector<Sequence*> choosing;
  int64_t prefill = 0, decode = 0;
  for (const auto& [sequence, n] : parts) {
    (sequence->generated() > 0 ? decode : prefill) += n;
    const int64_t pending = sequence->pending();
    for (int64_t i = 0; i < n; ++i) {
      const int64_t position = sequence->state.length + i;
      tokens.push_back(i < pending ? sequence->tokens[static_cast<size_t>(position)]
                                   : sequence->drafted[static_cast<size_t>(i - pending)]);
      pass.positions.push_back(static_cast<int32_t>(position));
    }
    const auto end = static_cast<int64_t>(tokens.size());
    pass.sequences.offsets.push_back(end);
    pass.states.push_back(&sequence->state);
    if (n >= pending) {
      for (int64_t row = end - 1 - (n - pending); row < end; ++row) rows.push_back(row);
      choosing.push_back(sequence);
    }
  }

  const Tensor hidden = model_.forward(tokens, pass);  // (T, C)
  for (size_t i = 0; i < parts.size(); ++i) {
    Sequence& sequence = *parts[i].sequence;
    if (sequence.request.prompt_logprobs && sequence.generated() == 0) {
      score_prompt(sequence, hidden, pass.sequences.offsets[i], parts[i].tokens);
    }
  }
  int64_t generated = 0;
  if (!choosing.empty()) {
    Tensor logits = model_.logits(ops::select_rows(hidden, rows), options_.activations);  // (rows, V)
    float* row = logits.data<float>();
    for (Sequence* sequence : choosing) {
      const auto count = static_cast<int64_t>(sequence->drafted.size()) + 1;
      const bool answering = sequence->generated() > 0;
      const int64_t chosen = choose(*sequence, row, logits.cols());
      if (answering) generated += chosen;
      row += count * logits.cols();
    }
  }

  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  const double share = static_cast<double>(decode) / static_cast<double>(decode + prefill);
  stats_.prefill_tokens += prefill;
  stats_.decode_tokens += generated;
  stats_.prefill_seconds += seconds * (1 - share);
  stats_.decode_seconds += seconds * share;
}

void Engine::keep(Sequence& sequence) {
  if (options_.kept_sequences == 0 || sequence.state.length == 0) return;
  sequence.tokens.resize(static_cast<size_t>(sequence.state.length));
  kept_.push_back({std::move(sequence.tokens), std::move(sequence.state)});
  while (static_cast<int64_t>(kept_.size()) > options_.kept_sequences) kept_.pop_front();
}

void Engine::remove_finished() {
  for (const auto& sequence : active_) {
    if (sequence->finished && !sequence->failed) keep(*sequence);
  }
  std::erase_if(active_, [](const auto& sequence) { return sequence->finished; });
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
  uint64_t total = 0;
  for (const auto& sequence : active_) total += sequence->state.bytes();
  for (const auto& kept : kept_) total += kept.state.bytes();
  return total;
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
