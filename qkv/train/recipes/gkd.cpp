#include "qkv/train/recipes/gkd.h"

#include "qkv/core/error.h"
#include "qkv/train/recipes/distill.h"

namespace qkv {

Gkd::Gkd(Parts parts, const OnPolicyConfig& config, const Model& teacher,
         const losses::DistillationOptions& options)
    : OnPolicy(std::move(parts), config), teacher_(teacher), options_(options) {
  require(model().info().vocabulary == teacher.info().vocabulary,
          "gkd: expected a teacher with the student's vocabulary of {} tokens, found one of {}",
          model().info().vocabulary, teacher.info().vocabulary);
}

double Gkd::count(std::span<const Rollout> rollouts) const {
  double tokens = 0;
  for (const Rollout& rollout : rollouts) tokens += static_cast<double>(rollout.tokens.size());
  return tokens;
}

Tensor Gkd::loss_of(const Work& work, const AnswerRows& rows) {
  Tensor taught;
  {
    const NoGrad off;
    const Batch batch = rollout_batch(work.rollouts);
    Pass pass = batch.pass;
    pass.compute_type = config().tune.compute_type;
    taught = answer_rows(teacher_, batch, pass).hidden;
  }
  const Tensor divergence = distillation_loss(model(), rows.hidden, teacher_, taught, options_);
  metrics().add("divergence", divergence.item(), work.counted);
  return divergence;
}

}  // namespace qkv
