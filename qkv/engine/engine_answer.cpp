// From a pass's logits to the events of each answer: which token, and whether it was the last.
#include <algorithm>
#include <limits>
#include <utility>

#include "qkv/core/error.h"
#include "qkv/engine/engine_sequence.h"

namespace qkv {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

// Tokens from the logits (1 + drafts, V) of a sequence's last rows, as long as they are what was drafted.
// Returns how many were chosen.
int64_t Engine::choose(Sequence& sequence, float* logits, int64_t vocabulary) {
  const std::vector<int32_t> drafted = std::exchange(sequence.drafted, {});
  const int64_t before = sequence.length();
  size_t agreed = 0;
  for (bool more = true; more; logits += vocabulary) {
    accept(sequence, {logits, static_cast<size_t>(vocabulary)});
    more = !sequence.finished && agreed < drafted.size() && sequence.tokens.back() == drafted[agreed];
    if (more) ++agreed;
  }
  if (!drafted.empty()) {
    stats_.accepted_drafts += static_cast<int64_t>(agreed);
    sequence.draft_length.report(static_cast<int64_t>(drafted.size()), static_cast<int64_t>(agreed));
    const int64_t held = before + static_cast<int64_t>(agreed);
    if (sequence.state.length > held) sequence.state.truncate(held);
  }
  return sequence.length() - before;
}

void Engine::forbid_ends(const Sequence& sequence, std::span<float> logits) const {
  const auto forbid = [&](const std::vector<int32_t>& ids) {
    for (const int32_t id : ids) {
      if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[static_cast<size_t>(id)] = kForbidden;
    }
  };
  if (tokenizer_ != nullptr && !sequence.request.ignore_eos) forbid(tokenizer_->stop_ids());
  forbid(sequence.request.stop_ids);
}

// Draws again while what is drawn would complete a banned string.
std::optional<int32_t> Engine::sample(Sequence& sequence, std::span<float> logits) const {
  const uint64_t step = sequence.draw();
  const std::vector<std::string>& banned = sequence.request.banned_strings;
  if (banned.empty()) return sequence.sampler.sample(logits, sequence.tokens, step);
  std::vector<float> scratch;
  while (true) {
    scratch.assign(logits.begin(), logits.end());
    Sampler trial = sequence.sampler;  // a draw that is taken back leaves no trace
    const std::optional<int32_t> token = trial.sample(scratch, sequence.tokens, step);
    if (!token) return token;
    std::string text = sequence.recent_bytes;
    if (!tokenizer_->is_special(*token)) text += tokenizer_->token_bytes(*token);
    const auto completes = [&](const std::string& word) { return text.find(word) != std::string::npos; };
    if (std::any_of(banned.begin(), banned.end(), completes)) {
      logits[static_cast<size_t>(*token)] = kForbidden;
      continue;
    }
    sequence.remember_bytes(*tokenizer_, *token);
    sequence.sampler = std::move(trial);
    return token;
  }
}

void Engine::accept(Sequence& sequence, std::span<float> logits) {
  const Request& request = sequence.request;
  Event event;
  event.request = sequence.id;
  event.prompt_logprobs = std::exchange(sequence.prompt_logprobs, {});
  std::vector<float> own;  // the model's distribution, which the sampler overwrites
  if (request.logprobs || request.top_logprobs > 0) own.assign(logits.begin(), logits.end());
  if (sequence.generated() < request.min_new_tokens) forbid_ends(sequence, logits);
  const bool numbers = likeliest(logits).has_value();
  std::optional<int32_t> token;
  std::string obstacle = numbers ? "everything the model could say is forbidden"
                                 : "the model gave no number, its weights or its input overflow";
  try {
    if (numbers && sequence.grammar) sequence.grammar->mask(logits);
    if (numbers) token = sample(sequence, logits);
    if (token && sequence.grammar) sequence.grammar->accept(*token);
  } catch (const Error& error) {  // a grammar that is too ambiguous
    obstacle = error.what();
    token.reset();
  }
  if (!token) {
    event.error = fmt::format("the token at position {}: {}", sequence.length(), obstacle);
    finish(sequence, FinishReason::failed, std::move(event));
    return;
  }
  sequence.tokens.push_back(*token);
  event.token = *token;
  if (request.logprobs) event.logprob = log_probability(own, *token);
  if (request.top_logprobs > 0) event.top_logprobs = top_logprobs(own, request.top_logprobs);

  if (!request.ignore_eos && tokenizer_ != nullptr && contains(tokenizer_->stop_ids(), *token)) {
    finish(sequence, FinishReason::eos, std::move(event));
    return;
  }
  if (contains(request.stop_ids, *token)) {
    finish(sequence, FinishReason::stop, std::move(event));
    return;
  }
  if (sequence.decoder) event.text = sequence.stops.push(sequence.decoder->push(*token));
  if (sequence.stops.matched() || (sequence.grammar && sequence.grammar->exhausted())) {
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
  sequence.failed = reason == FinishReason::failed;
  if (options_.drafter != nullptr) options_.drafter->forget(sequence.id);
}

}  // namespace qkv
