// Who takes part in the next pass: which requests are under way, how much of their prompts is read, who goes
// on from whose state, and who gives way when the memory of states is full.
#include <algorithm>
#include <utility>

#include "qkv/core/error.h"
#include "qkv/engine/engine_sequence.h"

namespace qkv {
namespace {

// A prompt waits for another one that is being read if so many tokens of it need not be computed then.
constexpr int64_t kWorthWaiting = 32;

}  // namespace

void Engine::admit() {
  while (!waiting_.empty() && static_cast<int64_t>(active_.size()) < options_.max_sequences &&
         has_room_for(*waiting_.front())) {
    active_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

// Beside what is under way; what is kept for later does not count, it can go.
bool Engine::has_room_for(const Sequence& sequence) {
  const uint64_t limit = options_.cache.pool->limit();
  if (limit == 0 || active_.empty()) return true;
  const auto bytes = [&](int64_t tokens) {
    return model_.state_bytes(options_.cache, tokens, options_.prefill_chunk);
  };
  uint64_t held = 0, promised = 0;
  for (const auto& other : active_) {
    held += other->state.bytes();
    const uint64_t whole = bytes(other->length() + 1);
    promised += whole - std::min(whole, other->state.bytes());
  }
  held = std::min(held, options_.cache.pool->bytes());  // shared pages count once there
  const uint64_t shared = bytes(kept_.match(sequence.tokens, sequence.length() - 1));
  const uint64_t needed = bytes(sequence.length() + 1);
  return held + promised + needed - std::min(needed, shared) <= limit;
}

// Whether a sequence before this one is reading what both begin with.
bool Engine::is_worth_waiting(const Sequence& sequence) const {
  if (options_.kept_sequences == 0 || sequence.request.prompt_logprobs) return false;
  const int64_t usable = sequence.length() - 1;
  const int64_t known = kept_.match(sequence.tokens, usable);
  for (const auto& other : active_) {
    if (other.get() == &sequence) break;
    const auto prompt = static_cast<int64_t>(other->request.prompt.size());
    if (!other->has_state || other->state.length >= prompt) continue;
    const int64_t common = std::min(common_prefix(other->request.prompt, sequence.tokens), usable);
    // A state that cannot be shortened helps only if all of it is the beginning.
    const bool whole = common == prompt;
    if (common >= known + kWorthWaiting && (whole || other->state.can_truncate())) return true;
  }
  return false;
}

void Engine::begin(Sequence& sequence) {
  sequence.has_state = true;
  if (sequence.request.resume != nullptr) {
    const SequenceState& state = sequence.request.resume->state;
    sequence.state = state.fork(state.length);
    sequence.request.resume = nullptr;
    return;
  }
  // What was computed before has no log-probabilities any more.
  std::optional<SequenceState> known;
  if (!sequence.request.prompt_logprobs || sequence.generated() > 0) {
    // The last token is computed in any case: its logits choose the next one.
    known = kept_.find(sequence.tokens, sequence.length() - 1);
  }
  sequence.state = known ? std::move(*known) : model_.make_state(options_.cache);
  stats_.reused_tokens += sequence.state.length;
}

void Engine::draft() {
  if (options_.drafter == nullptr) return;
  std::vector<DraftJob> jobs;
  std::vector<Sequence*> owners;
  for (const auto& sequence : active_) {
    sequence->drafted.clear();
    if (!sequence->is_decoding()) continue;
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

std::vector<Engine::Part> Engine::plan() {
  std::vector<Part> parts;
  int64_t budget = options_.prefill_chunk;
  for (const auto& sequence : active_) {
    if (!sequence->has_state) {
      if (budget <= 0 || is_worth_waiting(*sequence)) continue;
      begin(*sequence);
    }
    if (sequence->is_decoding()) {
      parts.push_back({sequence.get(), 1 + static_cast<int64_t>(sequence->drafted.size())});
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

// The parts whose states have room for them, in order of arrival; later sequences make it for earlier ones.
std::vector<Engine::Part> Engine::make_room(std::vector<Part> parts) {
  if (options_.cache.pool->limit() == 0) return parts;
  std::vector<Part> ready;
  for (Part& part : parts) {
    if (part.sequence->has_state && make_room(part)) ready.push_back(part);
  }
  // Whoever gave way waits in front of those who came later.
  for (size_t i = active_.size(); i-- > 0;) {
    if (!active_[i]->preempted) continue;
    active_[i]->preempted = false;
    waiting_.push_front(std::move(active_[i]));
    active_.erase(active_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return ready;
}

bool Engine::make_room(Part& part) {
  Sequence& sequence = *part.sequence;
  while (true) {
    try {
      sequence.state.reserve(part.tokens);
      return true;
    } catch (const CacheFull& full) {
      if (!sequence.drafted.empty()) {
        sequence.drafted.clear();
        part.tokens = 1;
        continue;
      }
      if (kept_.drop_oldest()) continue;
      Sequence *latest = nullptr, *first = nullptr;
      for (const auto& other : active_) {
        if (!other->has_state || other->finished) continue;
        if (first == nullptr) first = other.get();
        latest = other.get();
      }
      if (latest != first) {
        preempt(*latest);
        if (latest == &sequence) return false;
        continue;
      }
      Event event;
      event.error = full.what();
      finish(sequence, FinishReason::failed, std::move(event));
      return false;
    }
  }
}

// Its tokens are computed again when there is room.
void Engine::preempt(Sequence& sequence) {
  sequence.state = {};
  sequence.has_state = sequence.prompt_kept = false;
  sequence.preempted = true;
  sequence.drafted.clear();
  if (sequence.generated() == 0) sequence.prompt_logprobs.clear();
  ++stats_.preemptions;
}

void Engine::keep(Sequence& sequence) {
  if (options_.kept_sequences == 0 || sequence.state.length == 0) return;
  sequence.tokens.resize(static_cast<size_t>(sequence.state.length));
  kept_.insert(sequence.tokens, std::move(sequence.state));
  limit_kept();
}

void Engine::limit_kept() {
  while (kept_.size() > options_.kept_sequences) kept_.drop_oldest();
}

void Engine::remove_finished() {
  for (const auto& sequence : active_) {
    if (!sequence->finished) {
      const auto prompt = static_cast<int64_t>(sequence->request.prompt.size());
      if (options_.kept_sequences == 0 || sequence->prompt_kept || sequence->state.length != prompt) continue;
      sequence->prompt_kept = true;
      kept_.insert(sequence->request.prompt, sequence->state.fork(prompt));
      limit_kept();
      continue;
    }
    if (sequence->failed) continue;
    if (sequence->request.keep_session && sequence->has_state) {
      auto session = std::make_shared<Session>();
      session->tokens = sequence->tokens;
      session->prompt_tokens = static_cast<int64_t>(sequence->request.prompt.size());
      session->state = sequence->state.fork(sequence->state.length);
      session->seed = sequence->request.sampler.seed;
      session->draws = sequence->first_draw;
      session->surprise_limit = sequence->sampler.surprise_limit();
      sessions_[sequence->id] = std::move(session);
    }
    keep(*sequence);
  }
  std::erase_if(active_, [](const auto& sequence) { return sequence->finished; });
}

}  // namespace qkv
