// Fine-tuning from data files to an exported adapter or model: what `qkv train sft`, `dpo`, `kto` and the
// others run, as library calls.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qkv/core/config.h"
#include "qkv/train/recipes/sft.h"
#include "qkv/train/trainer.h"

namespace qkv {

enum class TuneKind { sft, dpo, kto, orpo, cpo, simpo, reward, distill };
std::string_view tune_kind_name(TuneKind kind);

// Every setting of a run. Keys, limits and help are in bind().
struct TuneSettings {
  TuneSettings() = default;
  // With what is usual for the kind, where that differs.
  explicit TuneSettings(TuneKind kind);

  TuneKind kind = TuneKind::sft;
  std::vector<std::string> train_files, valid_files;
  double valid_fraction = 0.05;
  int64_t max_length = 0, batch_tokens = 2048, batch_pairs = 8;
  std::string overlong = "drop", chat = "auto";

  std::string adapter = "lora";
  int64_t rank = 16;
  double alpha = 32, adapter_dropout = 0;
  bool rank_stabilized = false;
  std::vector<std::string> targets = {"all-linear"}, modules_to_save;
  std::string start = "zero", original;  // where lora begins; the model that the base was quantized from
  int64_t target_rank = 8;               // adalora: of a module, on average, in the end

  std::string loss = "sigmoid", divergence = "reverse_kl";
  double beta = 0.1, label_smoothing = 0, divergence_alpha = 1;
  bool reference_free = false, keep_reference = false;
  double desirable_weight = 1, undesirable_weight = 1;  // kto
  double gamma = 0.5, likelihood = 1;                   // simpo; cpo and simpo
  bool margins = false;                                 // reward
  double centering = 0;                                 // reward
  std::string teacher;                                  // distill, and the next two
  double temperature = 1, data_weight = 0;
  bool scale_by_temperature = false;

  OptimizerConfig optimizer = {.lr = 2e-4, .beta2 = 0.999, .weight_decay = 0};
  double clip_norm = 1;
  std::string schedule = "cosine";
  double warmup_ratio = 0.03, min_lr_ratio = 0;

  int64_t steps = 0, accumulation = 1, seed = 0;
  double epochs = 1;
  std::string dtype = "auto", save_dtype = "f32";
  double dropout = 0;
  bool gradient_checkpointing = false;
  double embedding_noise = 0, z_loss = 0, target_smoothing = 0;
  int64_t attention_group = 0;
  std::vector<std::string> freeze;  // full-parameter training: patterns of parameters that stay
  std::string qat;                  // the type that weights are rounded to in forward; empty: none
  bool noise_scale = false;
  int64_t log_interval = 10, eval_interval = 100, checkpoint_interval = 200, keep_last = 2;

  std::string model;   // what is tuned
  std::string output;  // directory of the run
  bool resume = false;

  // Every key but model, output and resume, which are arguments only.
  void bind(ConfigTable& table);
  // Those of the adapter, the optimizer, its schedule and the loop.
  void bind_training(ConfigTable& table);

  bool with_adapter() const { return adapter != "none"; }
  bool is_pairwise() const;
  AdapterConfig adapter_config() const;
  TuneConfig tune_config() const;
  TrainerConfig trainer_config() const;
};

// What every job of tuning does around its recipe.
// Refuses an output that holds a run unless it is resumed, and a resume without a run; gives its newest
// checkpoint, "" if there is none.
std::string checkpoint_to_resume(const TuneSettings& settings);
// Error if a resumed run is not configured as it was.
void require_same_run(const TuneSettings& settings, const std::string& checkpoint, const Json& resolved);
// A vocabulary without a template gets the plain one, so that the tuned model is spoken to as it was trained.
void give_template(Bundle& bundle);
// Puts a new adapter over the model, or makes all of it trainable; null without one.
Adapter* prepare_training(Bundle& bundle, const TuneSettings& settings);
// Says what is trained, writes config.yaml and runs the loop.
TrainResult run_recipe(const TuneSettings& settings, Bundle& bundle, Recipe& recipe, const Json& resolved);

// What is tuned, with its data: the beginning of a job, up to the loop. `bundle.model` may be another than
// settings.model's, of its vocabulary (a planner's).
struct TuningWork {
  Adapter* adapter = nullptr;
  std::unique_ptr<Model> teacher;
  std::unique_ptr<Recipe> recipe;
};
// Reads and tokenizes the data, and puts an adapter on the bundle; settles max_length and steps.
TuningWork begin_tuning(TuneSettings& settings, Bundle& bundle);

// Runs it; says what the data hold first. Errors leave no checkpoint half-written.
TrainResult run_tuning(TuneSettings settings);

}  // namespace qkv
