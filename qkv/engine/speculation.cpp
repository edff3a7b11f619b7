#include "qkv/engine/speculation.h"

#include <algorithm>
#include <cmath>

#include "qkv/core/error.h"
#include "qkv/engine/sampler.h"
#include "qkv/tensor/autograd.h"
#include "qkv/tensor/ops.h"

namespace qkv {

PromptLookup::PromptLookup(int min_match, int max_match) : min_match_(min_match), max_match_(max_match) {
  require(1 <= min_match && min_match <= max_match,
          "prompt lookup: expected matches from 1 token up, found {} to {}", min_match, max_match);
}

void PromptLookup::propose(std::span<DraftJob> jobs) {
  for (DraftJob& job : jobs) {
    const auto n = static_cast<int64_t>(job.tokens.size());
    const auto token = [&](int64_t i) { return job.tokens[static_cast<size_t>(i)]; };
    int64_t best = 0, end = 0;
    // `last` is where an earlier occurrence of the last token stands; later ones first.
    for (int64_t last = n - 2; last >= 0 && best < max_match_; --last) {
      int64_t match = 0;
      while (match < max_match_ && match <= last && token(last - match) == token(n - 1 - match)) ++match;
      if (match > best) {
        best = match;
        end = last + 1;
      }
    }
    if (best < min_match_) continue;
    const int64_t count = std::min(job.limit, n - end);
    const auto first = job.tokens.begin() + static_cast<std::ptrdiff_t>(end);
    job.draft.assign(first, first + static_cast<std::ptrdiff_t>(count));
  }
}

ModelDrafter::ModelDrafter(const Model& model, DType compute_type, float min_probability)
    : model_(model), compute_type_(compute_type), min_probability_(min_probability) {
  require(model.make_state().can_truncate(),
          "draft model: expected one whose state can be shortened, found {}, a recurrent one",
          model.info().architecture);
}

std::vector<std::pair<int32_t, bool>> ModelDrafter::next_tokens(std::span<DraftJob* const> jobs) {
  Pass pass;
  pass.compute_type = compute_type_;
  pass.activations = Activations::int8;  // drafts are only proposals
  pass.sequences.offsets = {0};
  std::vector<int32_t> tokens;
  std::vector<int64_t> last_rows;
  for (const DraftJob* job : jobs) {
    Memory& memory = memories_.at(job->request);
    const auto feed = [&](int32_t id) {
      pass.positions.push_back(static_cast<int32_t>(memory.tokens.size()));
      memory.tokens.push_back(id);
      tokens.push_back(id);
    };
    const size_t before = job->tokens.size();
    while (memory.tokens.size() < before) feed(job->tokens[memory.tokens.size()]);
    while (memory.tokens.size() < before + job->draft.size()) feed(job->draft[memory.tokens.size() - before]);
    pass.sequences.offsets.push_back(static_cast<int64_t>(tokens.size()));
    pass.states.push_back(&memory.state);
    last_rows.push_back(static_cast<int64_t>(tokens.size()) - 1);
  }
  const NoGrad no_grad;
  const Tensor hidden = model_.forward(tokens, pass);
  const Tensor logits = model_.logits(ops::select_rows(hidden, last_rows), pass.activations);  // (jobs, V)
  std::vector<std::pair<int32_t, bool>> result;
  const auto vocabulary = static_cast<size_t>(logits.cols());
  for (size_t i = 0; i < jobs.size(); ++i) {
    const std::span<const float> row{logits.data<float>() + i * vocabulary, vocabulary};
    const auto best = likeliest(row);
    result.emplace_back(best.value_or(0), best && log_probability(row, *best) >= std::log(min_probability_));
  }
  return result;
}

void ModelDrafter::propose(std::span<DraftJob> jobs) {
  std::vector<DraftJob*> running;
  for (DraftJob& job : jobs) {
    Memory& memory = memories_.try_emplace(job.request, Memory{{}, model_.make_state()}).first->second;
    // Drafts that were not accepted leave the memory; the last token is computed again if nothing else is
    // left.
    const auto common = static_cast<size_t>(
        std::mismatch(memory.tokens.begin(), memory.tokens.end(), job.tokens.begin(), job.tokens.end())
            .first -
        memory.tokens.begin());
    const size_t keep = std::min(common, job.tokens.size() - 1);
    if (keep < memory.tokens.size()) {
      memory.tokens.resize(keep);
      memory.state.truncate(static_cast<int64_t>(keep));
    }
    const int64_t room = model_.info().max_positions - static_cast<int64_t>(job.tokens.size());
    job.limit = std::min(job.limit, room);
    if (job.limit > 0) running.push_back(&job);
  }
  while (!running.empty()) {
    const auto next = next_tokens(running);
    std::vector<DraftJob*> more;
    for (size_t i = 0; i < running.size(); ++i) {
      const auto [token, sure] = next[i];
      if (!sure) continue;
      running[i]->draft.push_back(token);
      if (static_cast<int64_t>(running[i]->draft.size()) < running[i]->limit) more.push_back(running[i]);
    }
    running = std::move(more);
  }
}

void check_same_vocabulary(const Tokenizer& target, const Tokenizer& draft) {
  const int32_t common = std::min(target.vocab_size(), draft.vocab_size());
  for (int32_t id = 0; id < common; ++id) {
    require(target.token_bytes(id) == draft.token_bytes(id),
            "draft model: expected the vocabulary of the model, but token {} is '{}' there and '{}' here", id,
            draft.id_to_token(id), target.id_to_token(id));
  }
  const Tokenizer& longer = target.vocab_size() > common ? target : draft;
  for (int32_t id = common; id < longer.vocab_size(); ++id) {
    require(longer.id_to_token(id).empty() || longer.is_special(id),
            "draft model: expected the vocabulary of the model, but only one of them has token {}, '{}'", id,
            longer.id_to_token(id));
  }
}

int64_t DraftLength::next() {
  if (pause_ > 0) {
    --pause_;
    return 0;
  }
  return length_;
}

void DraftLength::report(int64_t proposed, int64_t accepted) {
  constexpr int64_t kLongestPause = 16;
  if (proposed == 0) return;
  if (accepted == proposed) {
    length_ = std::min(limit_, std::max(length_, 2 * proposed));
  } else {
    length_ = std::clamp<int64_t>(accepted + 1, 1, limit_);
  }
  last_pause_ = accepted > 0 ? 0 : std::min(kLongestPause, 2 * last_pause_ + 1);
  pause_ = last_pause_ > 1 ? last_pause_ : 0;  // one failure is no pattern
}

}  // namespace qkv
