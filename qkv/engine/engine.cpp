#include "qkv/engine/engine.h"

#include <algorithm>
#include <chrono>
#include <unordered_map>
#include <utility>

#include "qkv/core/error.h"
#include "qkv/engine/stop_matcher.h"
#include "qkv/tensor/autograd.h"

namespace qkv {
namespace {

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// A text that has begun keeps the space its next token starts with.
bool has_text(const std::vector<int32_t>& ids, const Tokenizer& tokenizer) {
  return std::any_of(ids.begin(), ids.end(), [&](int32_t id) { return !tokenizer.is_special(id); });
}

int64_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const auto end = a.begin() + static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  return std::mismatch(a.begin(), end, b.begin()).first - a.begin();
}

}  // namespace

struct Engine::Sequence {
  Sequence(RequestId number, Request wanted, const Tokenizer* tokenizer)
      : id(number),
        request(std::move(wanted)),
        tokens(request.prompt),
        sampler(request.sampler),
        stops(request.stop) {
    if (tokenizer != nullptr) decoder.emplace(*tokenizer, true, has_text(request.prompt, *tokenizer));
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
  bool finished = false;
};

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
  auto sequence = std::make_unique<Sequence>(next_id_, std::move(request), tokenizer_);
  waiting_.push_back(std::move(sequence));
  return next_id_++;
}

bool Engine::step() {
  admit();
  const std::vector<Part> parts = plan();
  if (!parts.empty()) {
    const NoGrad no_grad;
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
    sequence.state = begin_state(sequence.request.prompt);
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
  if (longest == 0) return model_.make_state();
  SequenceState state = std::move(kept_[best].state);
  kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(best));
  if (longest < state.length) {
    try {
      state.truncate(longest);
    } catch (const Error&) {
      return model_.make_state();  // a recurrent state has no way back
    }
  }
  return state;
}

std::vector<Engine::Part> Engine::plan() const {
  std::vector<Part> parts;
  int64_t budget = options_.prefill_chunk;
  for (const auto& sequence : active_) {
    if (sequence->generated() > 0) {
      parts.push_back({sequence.get(), sequence->pending()});
    } else if (budget > 0) {
      const int64_t chunk = std::min(sequence->pending(), budget);
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
  pass.sequences.offsets = {0};
  std::vector<int32_t> tokens;
  std::vector<int64_t> last_rows;  // of the sequences that choose a token in this step
  std::vector<Sequence*> choosing;
  int64_t prefill = 0, decode = 0;
  for (const auto& [sequence, n] : parts) {
    (sequence->generated() > 0 ? decode : prefill) += n;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t position = sequence->state.length + i;
      tokens.push_back(sequence->tokens[static_cast<size_t>(position)]);
      pass.positions.push_back(static_cast<int32_t>(position));
    }
    pass.sequences.offsets.push_back(static_cast<int64_t>(tokens.size()));
    pass.states.push_back(&sequence->state);
    if (n == sequence->pending()) {
      last_rows.push_back(static_cast<int64_t>(tokens.size()) - 1);
      choosing.push_back(sequence);
    }
  }

  const Tensor hidden = model_.forward(tokens, pass);  // (T, C)
  if (!choosing.empty()) {
    Tensor logits = model_.logits(ops::select_rows(hidden, last_rows));  // (sequences that choose, V)
    const auto vocabulary = static_cast<size_t>(logits.cols());
    float* row = logits.data<float>();
    for (size_t i = 0; i < choosing.size(); ++i) accept(*choosing[i], {row + i * vocabulary, vocabulary});
  }

  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  const double share = static_cast<double>(decode) / static_cast<double>(decode + prefill);
  stats_.prefill_tokens += prefill;
  stats_.decode_tokens += decode;
  stats_.prefill_seconds += seconds * (1 - share);
  stats_.decode_seconds += seconds * share;
}

void Engine::accept(Sequence& sequence, std::span<float> logits) {
  const Request& request = sequence.request;
  Event event;
  event.request = sequence.id;
  std::vector<float> own;  // the model's distribution, which the sampler overwrites
  if (request.logprobs) own.assign(logits.begin(), logits.end());
  const std::optional<int32_t> token =
      sequence.sampler.sample(logits, sequence.tokens, static_cast<uint64_t>(sequence.generated()));
  if (!token) {
    event.error = fmt::format(
        "the model gave no number for the token at position {}: its weights or its input overflow",
        sequence.length());
    finish(sequence, FinishReason::failed, std::move(event));
    return;
  }
  sequence.tokens.push_back(*token);
  event.token = *token;
  if (request.logprobs) event.logprob = log_probability(own, *token);

  if (!request.ignore_eos && tokenizer_ != nullptr && contains(tokenizer_->stop_ids(), *token)) {
    finish(sequence, FinishReason::eos, std::move(event));
    return;
  }
  if (contains(request.stop_ids, *token)) {
    finish(sequence, FinishReason::stop, std::move(event));
    return;
  }
  if (sequence.decoder) event.text = sequence.stops.push(sequence.decoder->push(*token));
  if (sequence.stops.matched()) {
    finish(sequence, FinishReason::stop, std::move(event));
  } else if (sequence.generated() >= request.max_new_tokens) {
    finish(sequence, FinishReason::length, std::move(event));
  } else if (sequence.length() >= options_.max_context) {
    finish(sequence, FinishReason::context, std::move(event));
  } else {
    events_.push_back(std::move(event));
  }
}

void Engine::finish(Sequence& sequence, FinishReason reason, Event event) {
  if (sequence.decoder) {
    event.text += sequence.stops.push(sequence.decoder->finish());
    event.text += sequence.stops.finish();
  }
  event.request = sequence.id;
  event.finish = reason;
  events_.push_back(std::move(event));
  sequence.finished = true;
  if (reason != FinishReason::failed) keep(sequence);
}

void Engine::keep(Sequence& sequence) {
  if (options_.kept_sequences == 0 || sequence.state.length == 0) return;
  sequence.tokens.resize(static_cast<size_t>(sequence.state.length));
  kept_.push_back({std::move(sequence.tokens), std::move(sequence.state)});
  while (static_cast<int64_t>(kept_.size()) > options_.kept_sequences) kept_.pop_front();
}

void Engine::remove_finished() {
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

std::vector<Completion> complete(Engine& engine, std::vector<Request> requests) {
  require(engine.idle(), "engine: expected an idle engine, found requests under way");
  engine.take_events();
  std::vector<Completion> completions(requests.size());
  std::vector<bool> with_logprobs;
  std::unordered_map<RequestId, size_t> places;
  for (Request& request : requests) {
    with_logprobs.push_back(request.logprobs);
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
      const size_t place = places.at(event.request);
      Completion& completion = completions[place];
      completion.text += event.text;
      if (event.token) {
        completion.tokens.push_back(*event.token);
        if (with_logprobs[place]) completion.logprobs.push_back(event.logprob);
      }
      if (event.finish) completion.finish = *event.finish;
      if (!event.error.empty()) error = event.error;
    }
  }
  require(error.empty(), "{}", error);
  return completions;
}

}  // namespace qkv
