#include "qkv/train/tune_job.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/log.h"
#include "qkv/core/parallel.h"
#include "qkv/data/sample_batches.h"
#include "qkv/models/score_model.h"
#include "qkv/quant/trained_rounding.h"
#include "qkv/tensor/gemm.h"
#include "qkv/text/regex.h"
#include "qkv/text/tokenizer_files.h"
#include "qkv/train/adapter_starts.h"
#include "qkv/train/recipes/cpo.h"
#include "qkv/train/recipes/distill.h"
#include "qkv/train/recipes/dpo.h"
#include "qkv/train/recipes/orpo.h"
#include "qkv/train/recipes/reward.h"
#include "qkv/train/tune_data.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

// Keys that may differ between a run and its continuation: they change what is reported and kept, not the
// numbers.
const std::vector<std::string> kFreeKeys = {"train.log_interval",        "train.eval_interval",
                                            "train.checkpoint_interval", "train.keep_last",
                                            "train.save_dtype",          "threads"};

// Steps that make the wanted number of epochs of so many tokens or pairs.
int64_t steps_of(const TuneSettings& s, double items, int64_t per_batch) {
  const double per_step = static_cast<double>(per_batch * s.accumulation);
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(s.epochs * items / per_step)));
}

template <typename Item>
void hold_back(std::vector<Item>& train, std::vector<Item>& valid, double fraction) {
  if (!valid.empty() || fraction <= 0) return;
  const auto count = static_cast<size_t>(std::llround(fraction * static_cast<double>(train.size())));
  if (count == 0 || count >= train.size()) return;
  valid.assign(std::make_move_iterator(train.end() - static_cast<std::ptrdiff_t>(count)),
               std::make_move_iterator(train.end()));
  train.resize(train.size() - count);
}

// By their own names or Hugging Face's.
void freeze_parameters(Model& model, const std::vector<std::string>& patterns) {
  if (patterns.empty()) return;
  const std::vector<WeightMapping> mappings = expand(model);
  Regex::Scratch scratch;
  std::vector<Regex> compiled;
  for (const std::string& pattern : patterns) compiled.emplace_back(pattern, "train.freeze");
  std::vector<bool> used(patterns.size());
  int64_t frozen = 0;
  size_t index = 0;
  model.visit("", [&](const std::string& name, Tensor& parameter) {
    const std::string& other = mappings[index++].hf.name;
    bool stays = false;
    for (size_t i = 0; i < compiled.size(); ++i) {
      if (!compiled[i].find(name, 0, scratch) && !compiled[i].find(other, 0, scratch)) continue;
      used[i] = stays = true;
    }
    if (!stays) return;
    parameter.set_requires_grad(false);
    frozen += parameter.elements();
  });
  for (size_t i = 0; i < used.size(); ++i)
    require(used[i], "train.freeze: '{}' is found in the name of no parameter ({})", patterns[i],
            mappings.empty() ? "" : mappings[0].hf.name);
  log_info("{} parameters are frozen", frozen);
}

}  // namespace

void give_template(Bundle& bundle) {
  if (bundle.tokenizer->chat_template()) return;
  std::unique_ptr<Tokenizer> own = tokenizer_from_files(bundle.tokenizer->files(), bundle.path);
  own->set_chat_template(plain_chat_template());
  bundle.tokenizer = std::move(own);
  log_info("{}: has no chat template; chats are written as 'Question: ...' and 'Answer: ...'", bundle.path);
}

std::string checkpoint_to_resume(const TuneSettings& s) {
  require(!s.output.empty(), "train: expected an output directory (--out)");
  require(!s.train_files.empty(), "train: expected data files (--data), found none");
  const std::string checkpoint = newest_checkpoint(s.output);
  require(s.resume || checkpoint.empty(),
          "{}: holds a run already (newest checkpoint {}); continue it with --resume or choose another --out",
          s.output, fs::path(checkpoint).filename().string());
  require(!s.resume || !checkpoint.empty(),
          "{}: --resume: expected a checkpoint under checkpoints/, found none", s.output);
  return checkpoint;
}

void require_same_run(const TuneSettings& s, const std::string& checkpoint, const Json& resolved) {
  if (!s.resume) return;
  const std::string difference =
      ConfigTable::first_difference(checkpoint_config(checkpoint), resolved, kFreeKeys);
  require(difference.empty(), "{}: --resume with another configuration: {}", s.output, difference);
}

Adapter* prepare_training(Bundle& bundle, const TuneSettings& s) {
  const bool full = !s.with_adapter();
  bundle.model->set_trainable(full);
  require(full || s.freeze.empty(), "train.freeze: only an adapter is trained (adapter.kind {})", s.adapter);
  require(full || s.qat.empty(), "train.qat: expected adapter.kind none, found {}", s.adapter);
  if (full) {
    freeze_parameters(*bundle.model, s.freeze);
    if (!s.qat.empty()) {
      const RoundedLayers layers = round_in_forward(*bundle.model, s.qat);
      log_info("qat: {} matrices multiply as {}; {} have rows that are no whole blocks and stay",
               layers.rounded, s.qat, layers.left);
    }
    return nullptr;
  }
  const AdapterConfig config = s.adapter_config();
  const auto seed = static_cast<uint64_t>(s.seed);
  bundle.adapters.push_back(Adapter::create(*bundle.model, config, seed));
  Adapter* adapter = bundle.adapters.back().get();
  // A resumed run has its start from the checkpoint.
  if (s.resume) return adapter;
  if (config.start == AdapterConfig::Start::pissa) start_at_singular_vectors(*adapter, seed);
  if (config.start == AdapterConfig::Start::loftq) {
    require(!s.original.empty(),
            "adapter.original: expected the model that {} was quantized from, found none", s.model);
    LoadOptions load;
    load.tokenizer_required = false;
    const double part = start_at_quantization_error(*adapter, *load_bundle(s.original, load).model, seed);
    log_info("loftq: the adapter begins with {:.1f} % of what quantizing lost, in squares", 100 * part);
  }
  return adapter;
}

TrainResult run_recipe(const TuneSettings& s, Bundle& bundle, Recipe& recipe, const Json& resolved) {
  const int64_t trained =
      s.with_adapter() ? bundle.adapters.back()->parameter_count() : bundle.model->parameter_count();
  log_info("{}: {} of {} parameters are trained ({}), {} compute, {} steps", s.model, trained,
           bundle.model->parameter_count(), s.adapter, s.dtype, s.steps);
  fs::create_directories(s.output);
  save_yaml(s.output + "/config.yaml", resolved);
  Trainer trainer(bundle, recipe, s.trainer_config(), s.output, resolved);
  if (s.resume) trainer.resume();
  return trainer.run();
}

namespace {

// Everything the kinds' recipes have in common.
struct Job {
  const TuneSettings& s;
  Bundle& bundle;
  Adapter* adapter;
  const ChatTokens& tokens;
  const std::vector<Record>&train, &valid;
};

template <typename Item, typename Read>
std::pair<std::vector<Item>, std::vector<Item>> both(const Job& job, const char* name, Read read) {
  const auto of = [&](const char* which, const std::vector<Record>& records) {
    return read(fmt::format("{} {}", which, name).c_str(), records, job.tokens, job.s.max_length, job.s);
  };
  std::pair<std::vector<Item>, std::vector<Item>> result = {of("training", job.train),
                                                            of("validation", job.valid)};
  hold_back(result.first, result.second, job.s.valid_fraction);
  return result;
}

std::unique_ptr<Recipe> sample_recipe(const Job& job, TuneSettings& s, const Model* teacher) {
  auto [train, valid] = both<TokenSample>(job, "data", tuning_samples);
  double total = 0;
  for (const TokenSample& sample : train) total += static_cast<double>(sample.tokens.size());
  if (s.steps == 0) s.steps = steps_of(s, total, s.batch_tokens);
  const Model& model = *job.bundle.model;
  if (teacher == nullptr)
    return std::make_unique<Sft>(model, job.adapter, std::move(train), std::move(valid), s.tune_config());
  losses::DistillationOptions options;
  options.kind = s.divergence == "forward"   ? losses::DistillationKind::forward
                 : s.divergence == "reverse" ? losses::DistillationKind::reverse
                                             : losses::DistillationKind::js;
  options.temperature = s.temperature;
  options.beta = s.beta;
  options.scale_by_temperature = s.scale_by_temperature;
  return std::make_unique<Distill>(model, *teacher, job.adapter, std::move(train), std::move(valid), options,
                                   s.data_weight, s.tune_config());
}

std::unique_ptr<Recipe> labelled_recipe(const Job& job, TuneSettings& s) {
  auto [train, valid] = both<LabelledSample>(job, "answers", labelled_samples);
  if (s.steps == 0) s.steps = steps_of(s, static_cast<double>(train.size()), s.batch_pairs);
  KtoOptions options;
  options.batch_answers = s.batch_pairs;
  options.max_length = s.max_length;
  options.keep_reference = s.keep_reference;
  options.loss.loss = losses::unpaired_loss_from_name(s.loss);
  options.loss.beta = s.beta;
  options.loss.desirable_weight = s.desirable_weight;
  options.loss.undesirable_weight = s.undesirable_weight;
  return std::make_unique<Kto>(*job.bundle.model, job.adapter, std::move(train), std::move(valid), options,
                               s.tune_config());
}

std::unique_ptr<Recipe> pair_recipe(const Job& job, TuneSettings& s) {
  auto [train, valid] = both<PreferencePair>(job, "pairs", tuning_pairs);
  if (s.steps == 0) s.steps = steps_of(s, static_cast<double>(train.size()), s.batch_pairs);
  const Model& model = *job.bundle.model;
  const TuneConfig config = s.tune_config();
  if (s.kind == TuneKind::orpo)
    return std::make_unique<Orpo>(model, job.adapter, std::move(train), std::move(valid), s.batch_pairs,
                                  s.beta, config);
  if (s.kind == TuneKind::cpo) {
    const losses::CpoOptions options = {losses::preference_loss_from_name(s.loss), s.beta, s.label_smoothing};
    return std::make_unique<Cpo>(model, job.adapter, std::move(train), std::move(valid), s.batch_pairs,
                                 options, s.likelihood, config);
  }
  if (s.kind == TuneKind::simpo) {
    const losses::SimpoOptions options = {s.beta, s.gamma, s.label_smoothing};
    return std::make_unique<Simpo>(model, job.adapter, std::move(train), std::move(valid), s.batch_pairs,
                                   options, s.likelihood, config);
  }
  if (s.kind == TuneKind::reward) {
    const RewardOptions options = {s.batch_pairs, s.margins, s.centering};
    return std::make_unique<RewardModel>(dynamic_cast<const ScoreModel&>(model), job.adapter,
                                         std::move(train), std::move(valid), options, config);
  }
  losses::DpoOptions options;
  options.loss = losses::preference_loss_from_name(s.loss);
  options.beta = s.beta;
  options.label_smoothing = s.label_smoothing;
  options.divergence = losses::divergence_from_name(s.divergence);
  options.alpha = s.divergence_alpha;
  options.reference_free = s.reference_free;
  return std::make_unique<Dpo>(model, job.adapter, std::move(train), std::move(valid), s.batch_pairs, options,
                               config, s.keep_reference);
}

// The model to tune; for a reward model with a score, drawn anew where the path has none.
Bundle load_for_tuning(TuneSettings& s) {
  LoadOptions load;
  load.residence = s.with_adapter() ? Residence::inference : Residence::trainable;
  load.score = s.kind == TuneKind::reward;
  Bundle bundle = load_bundle(s.model, load);
  if (!load.score) {
    require(dynamic_cast<const ScoreModel*>(bundle.model.get()) == nullptr,
            "{}: expected a language model, found a reward model", s.model);
    return bundle;
  }
  Tensor& score = dynamic_cast<ScoreModel&>(*bundle.model).score_weight();
  const std::span<const float> values = score.span<float>();
  if (std::all_of(values.begin(), values.end(), [](float x) { return x == 0; })) {
    score = Tensor::empty(score.shape());
    constexpr float kDeviation = 0.02f;
    initialize_parameter("score.weight", score, bundle.model->info().layers, static_cast<uint64_t>(s.seed),
                         kDeviation);
  }
  if (std::find(s.modules_to_save.begin(), s.modules_to_save.end(), "score") == s.modules_to_save.end())
    s.modules_to_save.push_back("score");
  return bundle;
}

}  // namespace

TuningWork begin_tuning(TuneSettings& s, Bundle& bundle) {
  const bool chat = s.chat == "yes" || (s.chat == "auto" && bundle.tokenizer->chat_template().has_value());
  const std::vector<Record> train_records = read_tuning_data(s.train_files, s, chat),
                            valid_records = read_tuning_data(s.valid_files, s, chat);
  if (train_records[0].answer.is_chat()) give_template(bundle);
  const ChatTokens tokens(*bundle.tokenizer);
  const int64_t positions = bundle.model->info().max_positions;
  if (s.max_length == 0) s.max_length = positions > 0 ? std::min<int64_t>(positions, 2048) : 2048;
  require(positions == 0 || s.max_length <= positions,
          "data.max_length: expected at most the model's {} positions, found {}", positions, s.max_length);

  TuningWork work;
  if (s.kind == TuneKind::distill) {
    LoadOptions load;
    load.tokenizer_required = false;
    work.teacher = std::move(load_bundle(s.teacher, load).model);
  }
  work.adapter = prepare_training(bundle, s);
  const Job job = {s, bundle, work.adapter, tokens, train_records, valid_records};
  work.recipe = s.is_pairwise()           ? pair_recipe(job, s)
                : s.kind == TuneKind::kto ? labelled_recipe(job, s)
                                          : sample_recipe(job, s, work.teacher.get());
  return work;
}

TrainResult run_tuning(TuneSettings s) {
  if (s.dtype == "auto") s.dtype = bf16_products_are_native() ? "bf16" : "f32";
  require(s.kind != TuneKind::distill || !s.teacher.empty(),
          "train distill: expected a teacher (--teacher), found none");
  ConfigTable table;
  s.bind(table);
  const std::string checkpoint = checkpoint_to_resume(s);
  Bundle bundle = load_for_tuning(s);
  const TuningWork work = begin_tuning(s, bundle);
  Json resolved = table.resolved();
  resolved["model"] = s.model;
  resolved["threads"] = num_threads();
  require_same_run(s, checkpoint, resolved);
  return run_recipe(s, bundle, *work.recipe, resolved);
}

}  // namespace qkv
