// The keys of fine-tuning, with their help and limits, and what they come to.
#include <cmath>

#include "qkv/train/losses/dpo.h"
#include "qkv/train/losses/unpaired.h"
#include "qkv/train/tune_job.h"

namespace qkv {
namespace {

constexpr std::string_view kKinds[] = {"sft", "dpo", "kto", "orpo", "cpo", "simpo", "reward", "distill"};

}  // namespace

std::string_view tune_kind_name(TuneKind kind) {
  return kKinds[static_cast<size_t>(kind)];
}

TuneSettings::TuneSettings(TuneKind kind) : kind(kind) {
  if (kind != TuneKind::sft && kind != TuneKind::distill) optimizer.lr = 5e-5;
  if (kind == TuneKind::kto) loss = "kto";
  if (kind == TuneKind::kto) batch_pairs = 16;
  if (kind == TuneKind::simpo) beta = 2;
  if (kind == TuneKind::simpo) likelihood = 0;
  if (kind == TuneKind::distill) divergence = "forward";
  if (kind == TuneKind::distill) beta = 0.5;
}

bool TuneSettings::is_pairwise() const {
  return kind == TuneKind::dpo || kind == TuneKind::orpo || kind == TuneKind::cpo ||
         kind == TuneKind::simpo || kind == TuneKind::reward;
}

AdapterConfig TuneSettings::adapter_config() const {
  AdapterConfig config;
  if (adapter == "ia3") config.kind = AdapterConfig::Kind::ia3;
  if (adapter == "vera") config.kind = AdapterConfig::Kind::vera;
  config.decomposed = adapter == "dora";
  config.rank = rank;
  config.alpha = alpha;
  config.rank_stabilized = rank_stabilized;
  config.dropout = adapter_dropout;
  config.targets = targets;
  config.modules_to_save = modules_to_save;
  if (start == "pissa") config.start = AdapterConfig::Start::pissa;
  if (start == "loftq") config.start = AdapterConfig::Start::loftq;
  if (adapter == "adalora") config.start = AdapterConfig::Start::adalora;
  config.base_model = model;
  return config;
}

TuneConfig TuneSettings::tune_config() const {
  TuneConfig config;
  config.batch_tokens = batch_tokens;
  config.dropout = static_cast<float>(dropout);
  config.seed = static_cast<uint64_t>(seed);
  config.compute_type = *dtype_from_name(dtype);
  config.checkpoint_activations = gradient_checkpointing;
  config.embedding_noise = static_cast<float>(embedding_noise);
  config.attention_group = attention_group;
  config.z_loss = static_cast<float>(z_loss);
  config.label_smoothing = static_cast<float>(target_smoothing);
  return config;
}

TrainerConfig TuneSettings::trainer_config() const {
  TrainerConfig config;
  config.steps = steps;
  config.accumulation = accumulation;
  config.clip_norm = clip_norm;
  config.optimizer = optimizer;
  config.schedule.kind = schedule;
  config.schedule.total_steps = steps;
  config.schedule.warmup_steps =
      static_cast<int64_t>(std::llround(warmup_ratio * static_cast<double>(steps)));
  config.schedule.min_ratio = min_lr_ratio;
  config.log_interval = log_interval;
  config.eval_interval = eval_interval;
  config.checkpoint_interval = checkpoint_interval;
  config.keep_last = keep_last;
  config.save_type = *dtype_from_name(save_dtype);
  config.noise_scale = noise_scale;
  config.target_rank = target_rank;
  return config;
}

void TuneSettings::bind(ConfigTable& t) {
  const char* data = is_pairwise()           ? "of preferences"
                     : kind == TuneKind::kto ? "of answers with a label, or of preferences"
                                             : "of chats, completions, texts";
  t.bind("data.train", &train_files, std::string("JSON lines, or a JSON list, ") + data);
  t.bind("data.valid", &valid_files, "files to validate on; empty: the end of the training data");
  t.bind("data.valid_fraction", &valid_fraction,
         "part of the data held back for validation when data.valid is empty", 0, 0.5);
  t.bind("data.max_length", &max_length, "tokens of a sample; 0: the model's positions, at most 2048", 0,
         1 << 24);
  t.bind("data.overlong", &overlong, "what becomes of longer samples", {"drop", "cut", "error"});
  t.bind("data.chat", &chat,
         "prompts and answers that are texts become turns of a chat; auto: if the model has a chat template",
         {"auto", "yes", "no"});
  if (is_pairwise()) {
    t.bind("data.batch_pairs", &batch_pairs, "pairs per forward", 1, 1 << 16);
  } else if (kind == TuneKind::kto) {
    t.bind("data.batch_answers", &batch_pairs, "answers per forward", 1, 1 << 16);
  } else {
    t.bind("data.batch_tokens", &batch_tokens, "tokens per forward, packed from whole samples", 1, 1 << 24);
  }
  const std::string own(tune_kind_name(kind));
  const auto key = [&](const char* name) { return own + "." + name; };
  switch (kind) {
    case TuneKind::sft:
      break;
    case TuneKind::dpo:
      t.bind("dpo.loss", &loss, "the loss of a pair", losses::preference_loss_names());
      t.bind("dpo.beta", &beta, "how strongly the policy is held to the reference", 1e-6, 1e3);
      t.bind("dpo.label_smoothing", &label_smoothing, "the probability that a label is wrong", 0, 0.999999);
      t.bind("dpo.divergence", &divergence, "what holds the policy to the reference",
             losses::divergence_names());
      t.bind("dpo.divergence_alpha", &divergence_alpha, "alpha of the alpha divergence", -100, 100);
      t.bind("dpo.reference_free", &reference_free, "a uniform reference");
      break;
    case TuneKind::kto:
      t.bind("kto.loss", &loss, "the loss of an answer", losses::unpaired_loss_names());
      t.bind("kto.beta", &beta, "how strongly the policy is held to the reference", 1e-6, 1e3);
      t.bind("kto.desirable_weight", &desirable_weight, "of good answers", 0, 1e6);
      t.bind("kto.undesirable_weight", &undesirable_weight, "of bad answers", 0, 1e6);
      break;
    case TuneKind::orpo:
      t.bind("orpo.beta", &beta, "of the odds ratio, beside the likelihood (the paper's lambda)", 1e-6, 1e3);
      break;
    case TuneKind::cpo:
      t.bind("cpo.loss", &loss, "the loss of a pair", {"sigmoid", "hinge", "ipo"});
      t.bind("cpo.beta", &beta, "of the difference of log-probabilities", 1e-6, 1e3);
      t.bind("cpo.label_smoothing", &label_smoothing, "the probability that a label is wrong", 0, 0.999999);
      t.bind("cpo.alpha", &likelihood, "of the chosen answer's likelihood", 0, 1e3);
      break;
    case TuneKind::simpo:
      t.bind("simpo.beta", &beta, "of the difference of log-probabilities per token", 1e-6, 1e3);
      t.bind("simpo.gamma", &gamma, "the margin that beta times the difference shall exceed", 0, 1e3);
      t.bind("simpo.label_smoothing", &label_smoothing, "the probability that a label is wrong", 0, 0.999999);
      t.bind("simpo.alpha", &likelihood, "of the chosen answer's likelihood; 0 in the paper", 0, 1e3);
      break;
    case TuneKind::reward:
      t.bind("reward.margin", &margins, "scores shall differ by the records' \"margin\"");
      t.bind("reward.centering", &centering, "of the squared sum of a pair's scores", 0, 1e3);
      break;
    case TuneKind::distill:
      t.bind("distill.teacher", &teacher, "the model to learn from; its vocabulary is the student's");
      t.bind("distill.divergence", &divergence, "between the teacher's and the student's next tokens",
             {"forward", "reverse", "js"});
      t.bind("distill.beta", &beta, "js: the teacher's part of the mean", 1e-6, 0.999999);
      t.bind("distill.temperature", &temperature, "of both distributions", 1e-3, 1e3);
      t.bind("distill.scale_by_temperature", &scale_by_temperature, "times the temperature's square");
      t.bind("distill.alpha", &data_weight, "of the data's own next token, the rest is the teacher's", 0, 1);
      break;
  }
  if (kind == TuneKind::dpo || kind == TuneKind::kto)
    t.bind(key("keep_reference"), &keep_reference,
           "take the reference's log-probabilities of all the data once, at the start");
  if (kind == TuneKind::sft) {
    t.bind("train.z_loss", &z_loss, "weight of the squared log-partition term", 0, 1);
    t.bind("train.label_smoothing", &target_smoothing, "part of the target spread evenly", 0, 0.99);
  }
  bind_training(t);
}

void TuneSettings::bind_training(ConfigTable& t) {
  t.bind("adapter.kind", &adapter, "what is trained; none: all parameters",
         {"lora", "dora", "adalora", "ia3", "vera", "none"});
  t.bind("adapter.rank", &rank, "of lora, dora, adalora and vera", 1, 65536);
  t.bind("adapter.alpha", &alpha, "lora's effect is scaled by alpha / rank", 1e-6, 1e6);
  t.bind("adapter.rank_stabilized", &rank_stabilized, "scale by alpha / sqrt(rank)");
  t.bind("adapter.dropout", &adapter_dropout, "probability, of what goes into an adapter", 0, 0.95);
  t.bind("adapter.targets", &targets, "ends of names of modules (q_proj,v_proj), or all-linear");
  t.bind("adapter.modules_to_save", &modules_to_save,
         "modules that are trained whole and kept with the adapter (lm_head,embed_tokens)");
  t.bind("adapter.start", &start,
         "where lora begins: zero, pissa (the weight's leading singular vectors), loftq (those of what "
         "quantizing lost)",
         {"zero", "pissa", "loftq"});
  t.bind("adapter.original", &original, "loftq: the model that the base was quantized from");
  t.bind("adapter.target_rank", &target_rank, "adalora: ranks per module, on average, in the end", 1, 65536);
  qkv::bind(t, optimizer);
  t.bind("optimizer.clip_norm", &clip_norm, "clip the global gradient norm to this; 0: off", 0, 1e9);
  t.bind("schedule.kind", &schedule, "of the learning rate", schedule_kinds());
  t.bind("schedule.warmup_ratio", &warmup_ratio, "part of all steps that warms up", 0, 1);
  t.bind("schedule.min_lr_ratio", &min_lr_ratio, "the rate at the end, of the peak", 0, 1);
  t.bind("train.steps", &steps, "optimizer steps; 0: as train.epochs says", 0);
  t.bind("train.epochs", &epochs, "times through the data, if train.steps is 0", 1e-6, 1e6);
  t.bind("train.gradient_accumulation_steps", &accumulation, "forwards per optimizer step", 1, 1 << 20);
  t.bind("train.seed", &seed, "of the adapter, data order and dropout", 0);
  t.bind("train.dtype", &dtype, "compute type; masters are always f32", {"auto", "f32", "bf16"});
  t.bind("train.dropout", &dropout, "probability, in the model's own places", 0, 0.95);
  t.bind("train.gradient_checkpointing", &gradient_checkpointing,
         "recompute each block in backward instead of keeping it");
  t.bind("train.embedding_noise", &embedding_noise, "NEFTune's alpha: noise on embeddings; 0: none", 0, 1e3);
  t.bind("train.attention_group", &attention_group,
         "LongLoRA: attend within shifted groups of so many tokens while training; 0: fully", 0, 1 << 24);
  t.bind("train.freeze", &freeze, "adapter.kind none: patterns of parameters that stay as they are");
  t.bind("train.qat", &qat,
         "adapter.kind none: multiply by weights as they will be in this type (q4_0, q2_k, nf4, int8, "
         "int4-g32); empty: not");
  t.bind("train.gradient_noise_scale", &noise_scale,
         "measure the batch size above which steps gain little; takes gradient accumulation");
  t.bind("train.log_interval", &log_interval, "steps between progress lines", 1);
  t.bind("train.eval_interval", &eval_interval, "steps between evaluations; 0: only at the end", 0);
  t.bind("train.checkpoint_interval", &checkpoint_interval, "steps between checkpoints; 0: only at the end",
         0);
  t.bind("train.keep_last", &keep_last, "checkpoints kept beside the best one", 1, 1000000);
  t.bind("train.save_dtype", &save_dtype, "type of exported weights (adapter.kind none)",
         {"f32", "bf16", "f16"});
}

}  // namespace qkv
