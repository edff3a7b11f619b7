#include "qkv/train/recipes/distill.h"

#include <nlohmann/json.hpp>
#include <numeric>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/train/answers.h"
#include "qkv/train/losses/on_tape.h"
#include "qkv/train/recipes/pretrain.h"

namespace qkv {
namespace {

constexpr int64_t kChunkBytes = int64_t{16} << 20;  // of one model's logits

// A chunk's divergence and its gradient by the student's logits, rows in parallel.
Tensor chunk_loss(const Tensor& logits, const Tensor& teacher, const losses::DistillationOptions& options) {
  const int64_t vocabulary = logits.cols();
  Tensor gradient = Tensor::empty(logits.shape());
  std::vector<double> sums(static_cast<size_t>(logits.rows()));
  const auto row_of = [&](const Tensor& t, int64_t row) {
    return t.span<float>().subspan(static_cast<size_t>(row * vocabulary), static_cast<size_t>(vocabulary));
  };
  parallel_for(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const auto out =
          losses::distillation<float>(row_of(logits, row), row_of(teacher, row), vocabulary, options);
      sums[static_cast<size_t>(row)] = static_cast<double>(out.losses[0]);
      std::copy(out.gradient.begin(), out.gradient.end(), gradient.data<float>() + row * vocabulary);
    }
  });
  return losses::with_gradients(std::accumulate(sums.begin(), sums.end(), 0.0), {logits}, {gradient});
}

}  // namespace

Tensor distillation_loss(const Model& student, const Tensor& hidden, const Model& teacher,
                         const Tensor& teacher_hidden, const losses::DistillationOptions& options) {
  const int64_t vocabulary = student.info().vocabulary;
  const int64_t chunk = std::max<int64_t>(16, kChunkBytes / (4 * vocabulary));
  Tensor sum;
  for (int64_t begin = 0; begin < hidden.rows(); begin += chunk) {
    const int64_t end = std::min(hidden.rows(), begin + chunk);
    const Tensor part = ops::slice_rows(hidden, begin, end);
    const Tensor taught = teacher_hidden.row_view(begin, end);
    const auto body = [=, &student, &teacher](const std::vector<Tensor>& in) {
      const auto logits_of_teacher = [&] {
        const NoGrad off;
        return teacher.logits(taught);
      };
      return chunk_loss(student.logits(in[0]), logits_of_teacher(), options);
    };
    const Tensor loss = part.tracks_gradient() && gradient_mode() ? checkpoint(body, {part}) : body({part});
    sum = sum.defined() ? ops::add(sum, loss) : loss;
  }
  return sum;
}

struct Distill::Work : MicroBatch {
  Batch batch;
};

Distill::Distill(const Model& student, const Model& teacher, Adapter* adapter, std::vector<TokenSample> train,
                 std::vector<TokenSample> valid, const losses::DistillationOptions& loss, double alpha,
                 const TuneConfig& config)
    : student_(student),
      teacher_(teacher),
      adapter_(adapter),
      loss_(loss),
      alpha_(alpha),
      config_(config),
      train_(std::move(train), config.batch_tokens, config.seed) {
  require(student.info().vocabulary == teacher.info().vocabulary,
          "distill: expected a teacher with the student's vocabulary of {} tokens, found one of {}",
          student.info().vocabulary, teacher.info().vocabulary);
  if (!valid.empty())
    valid_ = std::make_unique<SampleBatches>(std::move(valid), config.batch_tokens, config.seed);
}

std::unique_ptr<MicroBatch> Distill::next() {
  auto work = std::make_unique<Work>();
  work->batch = train_.next(cursor_);
  work->tokens = static_cast<int64_t>(work->batch.tokens.size());
  work->counted = static_cast<double>(work->batch.counted);
  work->context = mean_context(work->batch.pass.sequences);
  return work;
}

Tensor Distill::loss_of(const Batch& batch, const Pass& pass, Metrics& metrics) const {
  const CountedRows counted = counted_rows(batch.targets, batch.pass.sequences);
  const auto n = static_cast<double>(counted.rows.size());
  const Tensor taught = [&] {
    const NoGrad off;
    Pass plain = batch.pass;
    plain.compute_type = config_.compute_type;
    return take_rows(teacher_.forward(batch.tokens, plain), counted);
  }();
  const Tensor hidden = take_rows(student_.forward(batch.tokens, pass), counted);
  const Tensor divergence = distillation_loss(student_, hidden, teacher_, taught, loss_);
  metrics.add("divergence", divergence.item(), n);
  if (alpha_ == 0) return divergence;
  const Tensor likelihood = student_.cross_entropy(hidden, counted.targets);
  metrics.add("nll_loss", likelihood.item(), n);
  return ops::add(ops::scale(divergence, static_cast<float>(1 - alpha_)),
                  ops::scale(likelihood, static_cast<float>(alpha_)));
}

Tensor Distill::loss(const MicroBatch& batch, uint64_t dropout_stream) {
  const Batch& data = static_cast<const Work&>(batch).batch;
  Pass pass = data.pass;
  set_training(pass, adapter_, config_, dropout_stream);
  return loss_of(data, pass, metrics_);
}

EvaluationResult Distill::evaluate() {
  EvaluationResult result;
  if (!valid_) return result;
  const NoGrad off;
  Metrics metrics;
  double total = 0;
  for (size_t begin = 0, end = 0; begin < valid_->samples().size(); begin = end) {
    Batch batch = valid_->in_order(begin, end);
    batch.pass.compute_type = config_.compute_type;
    total += static_cast<double>(loss_of(batch, batch.pass, metrics).item());
    result.tokens += batch.counted;
  }
  result.loss = result.tokens > 0 ? total / static_cast<double>(result.tokens) : 0;
  return result;
}

Json Distill::state() const {
  return {{"epoch", cursor_.epoch}, {"sample", cursor_.window}};
}

void Distill::restore(const Json& state) {
  const JsonView view(state, "distill state");
  cursor_.epoch = view.integer("epoch");
  cursor_.window = view.integer("sample");
}

}  // namespace qkv
