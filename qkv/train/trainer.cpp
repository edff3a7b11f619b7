#include "qkv/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/log.h"
#include "qkv/core/progress.h"
#include "qkv/report/training_report.h"
#include "qkv/tensor/allocator.h"
#include "qkv/tensor/gemm.h"
#include "qkv/tensor/machine.h"
#include "qkv/train/checkpoint_state.h"
#include "qkv/train/rank_allocation.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Module& trained_module(Bundle& bundle) {
  if (bundle.adapters.empty()) return *bundle.model;
  return *bundle.adapters.back();
}

// What the optimizer visits: the model or the adapter, and what the recipe adds.
struct Trained : Module {
  Trained(Module& main, Module* added) : main(main), added(added) {}
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    main.visit(prefix, visitor);
    if (added != nullptr) added->visit(prefix + "recipe.", visitor);
  }
  Module& main;
  Module* added;
};

// What is kept in checkpoints beside the model and the optimizer.
struct Kept : Module {
  Kept(Module* recipe, Module* ranks) : recipe(recipe), ranks(ranks) {}
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override {
    if (recipe != nullptr) recipe->visit(prefix, visitor);
    if (ranks != nullptr) ranks->visit(prefix + "ranks.", visitor);
  }
  Module *recipe, *ranks;
};

std::unique_ptr<Optimizer> optimizer_of(Bundle& bundle, Recipe& recipe, const OptimizerConfig& config) {
  Trained trained(trained_module(bundle), recipe.own_parameters());
  return make_optimizer(trained, config);
}

Json number_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

}  // namespace

// What changes while training; with the model, optimizer and recipe it is all a checkpoint needs.
struct Trainer::State {
  TrainerProgress progress;
  double recent_loss = 0;
  double last_valid_loss = std::numeric_limits<double>::quiet_NaN();
  double elapsed_before = 0;  // seconds of earlier sessions of this run
  Clock::time_point start = Clock::now();
  double train_seconds = 0;  // spent in train_step, this session
  int64_t session_tokens = 0;
  double session_flops = 0;
  double frozen_flops = 0;  // per token: frozen matrices have no gradient to compute
  double peak_flops = 0;
  int64_t loss_steps = 0;
  double loss_sum = 0;  // since the last progress line
  double line_seconds = 0;
  int64_t line_tokens = 0;
  double line_flops = 0;
  int64_t evaluations_without_gain = 0;
  NoiseScale noise;

  double elapsed() const { return elapsed_before + seconds_since(start); }
};

struct Trainer::StepNumbers {
  double loss = 0, gradient_norm = 0, lr = 0, seconds = 0, flops = 0;
  int64_t tokens = 0;
};

void NoiseScale::note(double few_norm2, double few, double many_norm2, double many) {
  // E |g over n items|^2 = |G|^2 + noise / n, for two n.
  const double signal = (many * many_norm2 - few * few_norm2) / (many - few);
  const double noise = (few_norm2 - many_norm2) / (1 / few - 1 / many);
  constexpr double kKept = 0.95;
  signal_ = kKept * signal_ + (1 - kKept) * signal;
  noise_ = kKept * noise_ + (1 - kKept) * noise;
  weight_ = kKept * weight_ + (1 - kKept);
}

double NoiseScale::value() const {
  return weight_ > 0 && signal_ > 0 ? noise_ / signal_ : std::numeric_limits<double>::quiet_NaN();
}

Trainer::Trainer(Bundle& bundle, Recipe& recipe, const TrainerConfig& config, std::string output, Json resolved)
    : bundle_(bundle),
      recipe_(recipe),
      config_(config),
      output_(std::move(output)),
      resolved_(std::make_unique<Json>(std::move(resolved))),
      optimizer_(optimizer_of(bundle, recipe, config.optimizer)),
      state_(std::make_unique<State>()) {
  fs::create_directories(output_ + "/checkpoints");
  if (!bundle.adapters.empty() && bundle.adapters.back()->config().start == AdapterConfig::Start::adalora)
    ranks_ = std::make_unique<RankAllocator>(*bundle.adapters.back(), config.target_rank, config.steps);
  if (ranks_ || recipe.own_parameters() != nullptr)
    kept_ = std::make_unique<Kept>(recipe.own_parameters(), ranks_.get());
  require(!config.noise_scale || config.accumulation > 1,
          "training: the gradient noise scale takes at least 2 accumulated forwards, found {}", config.accumulation);
  if (!bundle.adapters.empty()) {
    state_->frozen_flops = 2 * static_cast<double>(bundle.model->matrix_parameter_count()) - 6 * static_cast<double>(bundle.adapters.back()->parameter_count());
  }
}

Trainer::~Trainer() = default;

bool Trainer::resume() {
  const std::string path = newest_checkpoint(output_);
  if (path.empty()) return false;
  Json recipe_state;
  load_training_state(path, bundle_, kept_.get(), *optimizer_, state_->progress, recipe_state);
  recipe_.restore(recipe_state);
  state_->elapsed_before = state_->progress.elapsed_seconds;
  append_metrics({{"kind", "event"}, {"step", state_->progress.step}, {"text", "resumed"}});
  log_info("resumed from {} (step {}, {} tokens)", path, state_->progress.step, state_->progress.tokens);
  return true;
}

Trainer::StepNumbers Trainer::train_step() {
  StepNumbers numbers;
  const auto start = Clock::now();
  // All micro-batches are drawn first: each token's weight in the step is one over the number of targets in all of them,
  // however they are spread.
  std::vector<std::unique_ptr<MicroBatch>> batches;
  double counted = 0;
  for (int64_t i = 0; i < config_.accumulation; ++i) {
    batches.push_back(recipe_.next());
    counted += batches.back()->counted;
  }
  const float weight = counted > 0 ? static_cast<float>(1 / counted) : 0.0f;
  double loss_sum = 0, first_counted = 0, first_norm = 0;
  for (size_t i = 0; i < batches.size(); ++i) {
    const uint64_t call = static_cast<uint64_t>(state_->progress.step * config_.accumulation) + i;
    const Tensor loss = recipe_.loss(*batches[i], call << 20);
    loss_sum += loss.item();
    if (batches[i]->counted > 0) backward(loss, Tensor::full({1}, weight));
    if (config_.noise_scale && i == 0) {
      first_counted = batches[i]->counted;
      first_norm = optimizer_->gradient_norm() * counted / std::max(1e-30, first_counted);
    }
    numbers.tokens += batches[i]->tokens;
    numbers.flops += (bundle_.model->training_flops_per_token(batches[i]->context) - state_->frozen_flops) * static_cast<double>(batches[i]->tokens);
    batches[i].reset();
  }
  numbers.loss = counted > 0 ? loss_sum / counted : 0;
  optimizer_->mask_gradients();
  numbers.gradient_norm = optimizer_->gradient_norm();
  require(std::isfinite(numbers.loss) && std::isfinite(numbers.gradient_norm),
          "training: step {}: loss {} with gradient norm {} is not finite; a lower optimizer.lr or more optimizer.warmup usually helps",
          state_->progress.step + 1, numbers.loss, numbers.gradient_norm);
  if (config_.noise_scale && first_counted > 0 && counted > first_counted)
    state_->noise.note(first_norm * first_norm, first_counted, numbers.gradient_norm * numbers.gradient_norm, counted);
  if (ranks_) ranks_->before_update();
  // torch.nn.utils.clip_grad_norm_'s factor.
  const double clip = config_.clip_norm > 0 ? std::min(1.0, config_.clip_norm / (numbers.gradient_norm + 1e-6)) : 1.0;
  const double factor = schedule_factor(config_.schedule, state_->progress.step + (config_.schedule.warmup_steps > 0 ? 1 : 0));
  numbers.lr = config_.optimizer.lr * factor;
  optimizer_->step(factor, clip);
  numbers.seconds = seconds_since(start);
  ++state_->progress.step;
  if (ranks_) ranks_->after_update(state_->progress.step);
  state_->progress.tokens += numbers.tokens;
  return numbers;
}

bool Trainer::evaluate_and_note() {
  optimizer_->use_averages(true);
  const EvaluationResult result = recipe_.evaluate();
  optimizer_->use_averages(false);
  if (result.tokens == 0) return true;
  State& s = *state_;
  s.last_valid_loss = result.loss;
  const bool best = !(s.progress.best_valid_loss <= result.loss);
  if (best) {
    s.progress.best_valid_loss = result.loss;
    s.progress.best_step = s.progress.step;
    s.progress.evaluations_without_gain = 0;
  } else {
    ++s.progress.evaluations_without_gain;
  }
  append_metrics({{"kind", "eval"}, {"step", s.progress.step}, {"tokens", s.progress.tokens}, {"loss", result.loss},
                  {"perplexity", std::exp(result.loss)}, {"best", best}});
  log_info("step {}  valid loss {:.4f}  perplexity {:.2f}{}", s.progress.step, result.loss, std::exp(result.loss), best ? "  (best)" : "");
  return config_.early_stop_patience == 0 || s.progress.evaluations_without_gain < config_.early_stop_patience;
}

void Trainer::append_metrics(const Json& line) {
  std::ofstream out(output_ + "/metrics.jsonl", std::ios::app);
  out << dump_json(line) << '\n';
  out.flush();
  require(out.good(), "{}/metrics.jsonl: cannot write", output_);
}

void Trainer::save_checkpoint() {
  state_->progress.elapsed_seconds = state_->elapsed();
  const std::string path = fmt::format("{}/checkpoints/step-{:08}", output_, state_->progress.step);
  save_training_state(path, bundle_, kept_.get(), *optimizer_, state_->progress, recipe_.state(), *resolved_);
  rotate_checkpoints();
}

void Trainer::rotate_checkpoints() {
  std::vector<std::pair<int64_t, std::string>> all = list_checkpoints(output_);
  const int64_t extra = static_cast<int64_t>(all.size()) - config_.keep_last;
  for (int64_t i = 0; i < extra; ++i) {
    if (all[static_cast<size_t>(i)].first == state_->progress.best_step) continue;
    std::error_code ignored;
    fs::remove_all(all[static_cast<size_t>(i)].second, ignored);
  }
}

void Trainer::print_progress(const StepNumbers& numbers) {
  State& s = *state_;
  const double rate = static_cast<double>(s.line_tokens) / std::max(1e-9, s.line_seconds);
  const double mfu = s.line_flops / std::max(1e-9, s.line_seconds) / s.peak_flops;
  const MemoryUse memory = memory_use();
  const double loss = s.loss_sum / static_cast<double>(std::max<int64_t>(1, s.loss_steps));
  Json record = {{"kind", "train"}, {"step", s.progress.step}, {"tokens", s.progress.tokens}, {"loss", loss}, {"lr", numbers.lr},
                 {"grad_norm", number_or_null(numbers.gradient_norm)}, {"tokens_per_second", rate}, {"mfu", mfu},
                 {"memory_bytes", memory.peak}, {"elapsed_seconds", s.elapsed()}};
  for (const auto& [name, value] : recipe_.take_metrics()) record[name] = number_or_null(value);
  if (config_.noise_scale) record["gradient_noise_scale"] = number_or_null(s.noise.value());
  append_metrics(record);
  const double left = static_cast<double>(config_.steps - s.progress.step) * s.line_seconds / static_cast<double>(std::max<int64_t>(1, s.loss_steps));
  std::string line = fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  |g| {:.2f}  {:.0f} tok/s  MFU {:.0f}%  {} left  {}",
                                       s.progress.step, config_.steps, loss, numbers.lr, numbers.gradient_norm, rate, 100 * mfu,
                                       format_duration(left), format_bytes(memory.peak));
  if (config_.noise_scale) line += fmt::format("  noise scale {:.3g}", s.noise.value());
  if (stderr_is_terminal()) {
    fmt::print(stderr, "\r\033[K{}", line);
    std::fflush(stderr);
  } else {
    log_info("{}", line);
  }
  s.loss_sum = s.line_seconds = s.line_flops = 0;
  s.loss_steps = s.line_tokens = 0;
}

TrainResult Trainer::run() {
  State& s = *state_;
  s.start = Clock::now();
  const bool bf16_compute = bf16_products_are_native() && resolved_->value("/train/dtype"_json_pointer, std::string("f32")) == "bf16";
  s.peak_flops = bf16_compute ? measure_bf16_flops() : measure_f32_flops();
  reset_peak();
  TrainResult result;
  StepNumbers numbers;
  int64_t saved_step = s.progress.step, evaluated_step = -1;
  while (s.progress.step < config_.steps && !result.interrupted && !result.stopped_early) {
    numbers = train_step();
    s.recent_loss = s.progress.step == 1 ? numbers.loss : 0.95 * s.recent_loss + 0.05 * numbers.loss;
    s.train_seconds += numbers.seconds;
    s.session_tokens += numbers.tokens;
    s.session_flops += numbers.flops;
    s.line_seconds += numbers.seconds;
    s.line_tokens += numbers.tokens;
    s.line_flops += numbers.flops;
    s.loss_sum += numbers.loss;
    ++s.loss_steps;
    const auto due = [&](int64_t interval) { return interval > 0 && s.progress.step % interval == 0; };
    if (due(config_.log_interval) || s.progress.step == config_.steps) print_progress(numbers);
    if (due(config_.eval_interval)) {
      if (stderr_is_terminal()) fmt::print(stderr, "\n");
      result.stopped_early = !evaluate_and_note();
      evaluated_step = s.progress.step;
    }
    result.interrupted = interrupted();
    if (due(config_.checkpoint_interval) || result.interrupted) {
      save_checkpoint();
      saved_step = s.progress.step;
    }
  }
  if (stderr_is_terminal()) fmt::print(stderr, "\n");
  if (!result.interrupted && evaluated_step != s.progress.step) evaluate_and_note();
  if (saved_step != s.progress.step) save_checkpoint();
  if (result.stopped_early) {
    append_metrics({{"kind", "event"}, {"step", s.progress.step}, {"text", "stopped early"}});
    log_info("no gain in {} evaluations: stopped early", config_.early_stop_patience);
  }
  result.steps = s.progress.step;
  result.tokens = s.progress.tokens;
  result.train_loss = s.recent_loss;
  result.valid_loss = s.last_valid_loss;
  result.best_valid_loss = s.progress.best_valid_loss;
  result.seconds = s.elapsed();
  result.tokens_per_second = static_cast<double>(s.session_tokens) / std::max(1e-9, s.train_seconds);
  result.mfu = s.session_flops / std::max(1e-9, s.train_seconds) / s.peak_flops;
  result.peak_tensor_bytes = memory_use().peak;
  result.peak_resident_bytes = qkv::peak_resident_bytes();
  if (!result.interrupted) export_model(result);
  write_report(result);
  result.report_path = output_ + "/report.html";
  return result;
}

void Trainer::export_model(TrainResult& result) {
  result.model_path = output_ + (bundle_.adapters.empty() ? "/model" : "/adapter");
  AtomicDirectory target(result.model_path);
  optimizer_->use_averages(true);
  if (bundle_.adapters.empty()) {
    SaveOptions options;
    options.type = config_.save_type;
    save_bundle(target.path(), *bundle_.model, bundle_.tokenizer.get(), options);
  } else {
    bundle_.adapters.back()->save_peft(target.path());
  }
  optimizer_->use_averages(false);
  target.commit();
}

void Trainer::write_report(const TrainResult& result) const {
  TrainingReport report = read_metrics(output_ + "/metrics.jsonl");
  const ModelInfo& info = bundle_.model->info();
  report.title = fmt::format("{}: {}", recipe_.name(), fs::path(output_).filename().string());
  report.subtitle = fmt::format("{}, {} parameters, {} tokens in {}", info.architecture, bundle_.model->parameter_count(),
                                result.tokens, format_duration(result.seconds));
  report.model = {{"architecture", info.architecture}, {"parameters", std::to_string(bundle_.model->parameter_count())},
                  {"layers", std::to_string(info.layers)}, {"channels", std::to_string(info.channels)},
                  {"heads (key/value)", fmt::format("{} ({})", info.heads, info.kv_heads)},
                  {"feed-forward", std::to_string(info.hidden)}, {"vocabulary", std::to_string(info.vocabulary)},
                  {"tied embeddings", info.tied_embeddings ? "yes" : "no"}};
  report.config = std::make_shared<const Json>(*resolved_);
  for (const auto& [step, path] : list_checkpoints(output_)) {
    CheckpointEntry entry;
    entry.step = step;
    entry.path = path;
    entry.best = step == state_->progress.best_step;
    report.checkpoints.push_back(entry);
  }
  report.final_numbers = {{"training loss (smoothed)", fmt::format("{:.4f}", result.train_loss)},
                          {"validation loss", fmt::format("{:.4f}", result.valid_loss)},
                          {"best validation loss", fmt::format("{:.4f}", result.best_valid_loss)},
                          {"tokens/s", fmt::format("{:.0f}", result.tokens_per_second)},
                          {"MFU", fmt::format("{:.1f} %", 100 * result.mfu)},
                          {"peak tensor memory", format_bytes(result.peak_tensor_bytes)},
                          {"peak resident memory", format_bytes(result.peak_resident_bytes)}};
  write_training_report(output_ + "/report.html", report);
}

}  // namespace qkv
