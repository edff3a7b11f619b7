#include "qkv/eval/scoring.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/parallel.h"
#include "qkv/tensor/autograd.h"

namespace qkv {
namespace {

// One sequence as it is run: all tokens but the last are inputs, the last `scored` rows predict.
struct Run {
  size_t item = 0;
  std::vector<int32_t> inputs, targets;
};

Run make_run(const Continuation& item, size_t index, int64_t max_context) {
  const auto n = static_cast<int64_t>(item.tokens.size());
  require(0 < item.scored && item.scored < n, "scoring: expected a continuation of 1 to {} tokens, found {}",
          n - 1, item.scored);
  // The window ends with the continuation; a continuation longer than the context keeps its last tokens.
  const int64_t begin = std::max<int64_t>(0, n - (max_context + 1));
  const int64_t scored = std::min(item.scored, n - begin - 1);
  Run run;
  run.item = index;
  run.inputs.assign(item.tokens.begin() + begin, item.tokens.end() - 1);
  run.targets.assign(item.tokens.end() - scored, item.tokens.end());
  return run;
}

void score_batch(const Model& model, const std::vector<Run>& runs, const ScoringOptions& options,
                 std::vector<ContinuationScore>& scores) {
  std::vector<int32_t> tokens, targets;
  std::vector<int64_t> lengths, rows;
  for (const Run& run : runs) {
    const auto length = static_cast<int64_t>(run.inputs.size()),
               scored = static_cast<int64_t>(run.targets.size());
    const auto begin = static_cast<int64_t>(tokens.size());
    for (int64_t r = length - scored; r < length; ++r) rows.push_back(begin + r);
    lengths.push_back(length);
    tokens.insert(tokens.end(), run.inputs.begin(), run.inputs.end());
    targets.insert(targets.end(), run.targets.begin(), run.targets.end());
  }
  Pass pass = Pass::whole(lengths);
  pass.compute_type = options.compute_type;
  const Tensor hidden = model.forward(tokens, pass);  // (T, C)
  const std::vector<TokenScore> rows_scored = score_rows(model, ops::select_rows(hidden, rows), targets);
  size_t at = 0;
  for (const Run& run : runs) {
    ContinuationScore& score = scores[run.item];
    for (size_t i = 0; i < run.targets.size(); ++i, ++at) {
      score.log_likelihood += rows_scored[at].log_prob;
      score.greedy = score.greedy && rows_scored[at].greedy;
    }
  }
}

}  // namespace

std::vector<TokenScore> score_rows(const Model& model, const Tensor& hidden,
                                   const std::vector<int32_t>& targets) {
  const int64_t rows = hidden.rows(), vocabulary = model.info().vocabulary;
  const int64_t chunk = std::max<int64_t>(1, (int64_t{1} << 25) / vocabulary);  // 128 MiB of logits at a time
  std::vector<TokenScore> scores(targets.size());
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    const Tensor logits = model.logits(hidden.row_view(begin, end));  // (rows, V)
    const float* data = logits.data<float>();
    parallel_for(end - begin, 1, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        const float* row = data + r * vocabulary;
        const float largest = *std::max_element(row, row + vocabulary);
        double sum = 0;
        for (int64_t v = 0; v < vocabulary; ++v) sum += std::exp(static_cast<double>(row[v] - largest));
        const auto at = static_cast<size_t>(begin + r);
        const float wanted = row[targets[at]];
        scores[at] = {static_cast<double>(wanted) - static_cast<double>(largest) - std::log(sum),
                      wanted >= largest};
      }
    });
  }
  return scores;
}

Continuation encode_continuation(const Tokenizer& tokenizer, std::string context, std::string continuation,
                                 bool add_special) {
  const size_t kept = context.find_last_not_of(" \t\n\r\f\v");
  const size_t length = kept == std::string::npos ? 0 : kept + 1;
  if (length < context.size()) {
    continuation.insert(0, context.substr(length));
    context.resize(length);
  }
  EncodeOptions options;
  options.add_special = add_special;
  Continuation result;
  if (context.empty()) {
    const std::optional<int32_t> start = tokenizer.bos_id() ? tokenizer.bos_id() : tokenizer.eos_id();
    require(start.has_value(),
            "scoring: a text without context needs a vocabulary with a beginning or end token");
    options.add_special = false;
    result.tokens = {*start};
    const std::vector<int32_t> ids = tokenizer.encode(continuation, options);
    result.tokens.insert(result.tokens.end(), ids.begin(), ids.end());
    result.scored = static_cast<int64_t>(ids.size());
  } else {
    const auto context_length = static_cast<int64_t>(tokenizer.encode(context, options).size());
    result.tokens = tokenizer.encode(context + continuation, options);
    result.scored = static_cast<int64_t>(result.tokens.size()) - context_length;
  }
  require(result.scored > 0, "scoring: the continuation '{}' has no token of its own after '{}'",
          continuation, context);
  return result;
}

std::vector<ContinuationScore> score_continuations(const Model& model, const std::vector<Continuation>& items,
                                                   const ScoringOptions& options,
                                                   const std::function<void(int64_t)>& progress) {
  require(model.info().causal, "scoring: {} is an encoder, which gives texts no likelihood",
          model.info().architecture);
  const NoGrad off;
  const int64_t trained = model.info().max_positions;
  const int64_t max_context = options.max_context > 0 ? options.max_context : trained;
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Sequences of like lengths share a pass; equal ones keep their order, so results do not depend on the
  // sort.
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return items[a].tokens.size() > items[b].tokens.size(); });
  std::vector<ContinuationScore> scores(items.size());
  std::vector<Run> batch;
  int64_t tokens = 0, done = 0;
  const auto flush = [&] {
    if (batch.empty()) return;
    stop_if_interrupted();
    score_batch(model, batch, options, scores);
    done += static_cast<int64_t>(batch.size());
    batch.clear();
    tokens = 0;
    if (progress) progress(done);
  };
  for (const size_t index : order) {
    Run run = make_run(items[index], index, max_context);
    const auto length = static_cast<int64_t>(run.inputs.size());
    if (tokens + length > options.batch_tokens) flush();
    tokens += length;
    batch.push_back(std::move(run));
  }
  flush();
  return scores;
}

MeanEstimate estimate_mean(const std::vector<double>& values) {
  MeanEstimate estimate;
  const auto n = static_cast<double>(values.size());
  if (values.empty()) return estimate;
  for (const double value : values) estimate.mean += value / n;
  if (values.size() < 2) return estimate;
  double squares = 0;
  for (const double value : values) squares += (value - estimate.mean) * (value - estimate.mean);
  estimate.standard_error = std::sqrt(squares / (n - 1) / n);
  return estimate;
}

}  // namespace qkv
