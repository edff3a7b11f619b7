// The one training loop. What differs between kinds of training (pretraining, fine-tuning, preference learning) is a Recipe:
// where batches come from and what their loss is. The loop owns accumulation, clipping, schedules, evaluation, checkpoints,
// exact resume, interruption and metrics.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "qkv/core/config.h"
#include "qkv/models/bundle.h"
#include "qkv/train/optimizer.h"
#include "qkv/train/schedule.h"

namespace qkv {

// One forward's worth of work, prepared before its loss is computed.
struct MicroBatch {
  virtual ~MicroBatch() = default;
  int64_t tokens = 0;   // that go through the model
  double counted = 0;   // what the step's loss is divided by, summed over its micro-batches (target tokens)
  double context = 0;   // mean attention span, for FLOP counts
};

struct EvaluationResult {
  double loss = 0;  // mean per counted token, nats
  int64_t tokens = 0;
};

class Recipe {
 public:
  virtual ~Recipe() = default;
  virtual const char* name() const = 0;
  // The next micro-batch of the stream, advancing its cursor.
  virtual std::unique_ptr<MicroBatch> next() = 0;
  // Sum (not mean) of the batch's losses, one element, on the tape. `dropout_stream` is unique to this call of the run.
  virtual Tensor loss(const MicroBatch& batch, uint64_t dropout_stream) = 0;
  virtual EvaluationResult evaluate() = 0;
  // The data cursor.
  virtual Json state() const = 0;
  virtual void restore(const Json& state) = 0;
  // Parameters beside the model's or the adapter's that are trained and kept in checkpoints (a value head); null: none.
  virtual Module* own_parameters() { return nullptr; }
  // Numbers about what was done since the last call, by name, for the progress line's record in metrics.jsonl.
  virtual std::map<std::string, double> take_metrics() { return {}; }
};

struct TrainerConfig {
  int64_t steps = 1000;

  int64_t accumulation = 1;
  double clip_norm = 1.0;  // 0: off
  uint64_t seed = 0;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;  // total_steps and warmup_steps are resolved before training
  int64_t log_interval = 10, eval_interval = 100, checkpoint_interval = 0;  // steps; 0: only at the end
  int64_t keep_last = 2;             // checkpoints beside the best one
  int64_t early_stop_patience = 0;   // evaluations without improvement; 0: off
  DType save_type = DType::f32;      // of the exported model
  int64_t target_rank = 0;  // an adapter with gates (AdaLoRA): ranks per module in the end
  // Report the gradient noise scale (McCandlish et al., arXiv 1812.06162): the batch, in what steps count (tokens, pairs),
  // above which larger ones gain little. Takes accumulation.
  bool noise_scale = false;
};

// Its estimate from the squared norms of gradients over few and over more items, both running means over steps.
class NoiseScale {
 public:
  // Squared norms of the mean gradients over `few` and over all `many` of a step's items.
  void note(double few_norm2, double few, double many_norm2, double many);
  // NaN until gradients have shown a direction.
  double value() const;

 private:
  double signal_ = 0, noise_ = 0, weight_ = 0;
};

struct TrainResult {
  int64_t steps = 0, tokens = 0;
  double train_loss = 0, valid_loss = 0, best_valid_loss = 0;
  double seconds = 0, tokens_per_second = 0, mfu = 0;
  uint64_t peak_tensor_bytes = 0, peak_resident_bytes = 0;
  bool interrupted = false, stopped_early = false;
  std::string model_path, report_path;  // model_path: of the adapter, where one was trained
};

class RankAllocator;

class Trainer {
 public:
  // Trains the bundle's last adapter if it has any, else the model's trainable parameters.
  // `output` is the run's directory: checkpoints/step-N, model/ (or adapter/), metrics.jsonl, report.html, config.yaml. `resolved` is the
  // whole configuration, for the report and for the check that a resumed run is the same run.
  Trainer(Bundle& bundle, Recipe& recipe, const TrainerConfig& config, std::string output, Json resolved);
  ~Trainer();

  // Continues from the newest checkpoint in `output`; false if there is none.
  bool resume();
  TrainResult run();

 private:
  struct State;
  struct StepNumbers;
  StepNumbers train_step();
  bool evaluate_and_note();
  void save_checkpoint();
  void rotate_checkpoints();
  void append_metrics(const Json& line);
  void print_progress(const StepNumbers& numbers);
  void write_report(const TrainResult& result) const;
  void export_model(TrainResult& result);

  Bundle& bundle_;
  Recipe& recipe_;
  TrainerConfig config_;
  std::string output_;
  std::unique_ptr<Json> resolved_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<State> state_;
  std::unique_ptr<RankAllocator> ranks_;  // of an adapter with gates
  std::unique_ptr<Module> kept_;          // what checkpoints have beside the model and the optimizer; null: nothing
};

// The newest complete checkpoint under `output`; "" if there is none.
std::string newest_checkpoint(const std::string& output);
// The resolved configuration recorded in a checkpoint.
Json checkpoint_config(const std::string& checkpoint);

}  // namespace qkv
