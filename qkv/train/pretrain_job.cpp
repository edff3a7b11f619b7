#include "qkv/train/pretrain_job.h"

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/log.h"
#include "qkv/core/parallel.h"
#include "qkv/core/progress.h"
#include "qkv/models/registry.h"
#include "qkv/tensor/gemm.h"
#include "qkv/text/bpe_trainer.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

// Keys that may differ between a run and its continuation: they change what is reported and kept, not the numbers.
const std::vector<std::string> kFreeKeys = {"train.log_interval", "train.eval_interval", "train.eval_tokens", "train.checkpoint_interval",
                                            "train.keep_last", "train.early_stop_patience", "train.save_dtype", "train.minutes", "data.trace",
                                            "tokenizer.", "threads"};

std::shared_ptr<const Tokenizer> obtain_tokenizer(const PretrainSettings& s) {
  const std::string own = s.output + "/tokenizer";
  if (!s.tokenizer_path.empty()) return load_tokenizer(s.tokenizer_path);
  if (!s.init_from.empty()) return nullptr;  // the model's own
  if (fs::exists(own + "/tokenizer.json")) return load_tokenizer(own);
  BpeTrainerOptions options;
  options.vocab_size = static_cast<int32_t>(s.tokenizer_vocab_size);
  options.pattern = s.tokenizer_pattern;
  options.bos_token = "<|endoftext|>";
  BpeTrainingReport report;
  std::shared_ptr<const Tokenizer> tokenizer = train_bpe(s.train_files, options, &report);
  tokenizer->save(own);
  log_info("tokenizer: {} tokens from {} words in {:.1f} s", tokenizer->vocab_size(), report.words, report.count_seconds + report.merge_seconds);
  return tokenizer;
}

Json model_config(const PretrainSettings& s, int64_t vocabulary) {
  // The feed-forward size that gives a gated network the parameters of a plain one of 4 x hidden_size, rounded up to 32.
  const int64_t intermediate = s.intermediate_size > 0 ? s.intermediate_size : (s.hidden_size * 8 / 3 + 31) / 32 * 32;
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", std::max(vocabulary, s.vocab_size)},
          {"hidden_size", s.hidden_size},
          {"intermediate_size", intermediate},
          {"num_hidden_layers", s.layers},
          {"num_attention_heads", s.heads},
          {"num_key_value_heads", s.kv_heads > 0 ? s.kv_heads : s.heads},
          {"max_position_embeddings", s.max_positions > 0 ? s.max_positions : std::max<int64_t>(s.sequence_length, 256)},
          {"rms_norm_eps", s.norm_eps},
          {"rope_theta", s.rope_theta},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", s.tied},
          {"attention_bias", s.attention_bias},
          {"mlp_bias", s.mlp_bias},
          {"initializer_range", s.initializer_range}};
}

Bundle obtain_model(const PretrainSettings& s, std::shared_ptr<const Tokenizer> tokenizer) {
  Bundle bundle;
  if (!s.init_from.empty()) {
    LoadOptions options;
    options.residence = Residence::trainable;
    options.tokenizer_required = tokenizer == nullptr;
    bundle = load_bundle(s.init_from, options);
    if (tokenizer) bundle.tokenizer = tokenizer;
  } else {
    bundle.tokenizer = tokenizer;
    bundle.model = make_model(model_config(s, tokenizer->vocab_size()), "model settings");
    initialize_weights(*bundle.model, static_cast<uint64_t>(s.seed), static_cast<float>(s.initializer_range));
  }
  bundle.model->set_trainable(true);
  return bundle;
}

// Seconds of one step, measured on forward and backward passes after two to warm up; a tenth is added for the optimizer,
// evaluations and records.
double measure_step(Recipe& recipe, int64_t accumulation, Bundle& bundle) {
  constexpr int warm = 2, counted = 8;
  const Json before = recipe.state();
  std::chrono::steady_clock::time_point start;
  for (int i = 0; i < warm + counted; ++i) {
    if (i == warm) start = std::chrono::steady_clock::now();
    const auto batch = recipe.next();
    if (batch->counted > 0) backward(recipe.loss(*batch, 0));
    bundle.model->visit("", [](const std::string&, Tensor& parameter) { parameter.clear_grad(); });
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  recipe.restore(before);
  return 1.1 * seconds / counted * static_cast<double>(accumulation);
}

ScheduleConfig schedule_config(const PretrainSettings& s) {
  ScheduleConfig schedule;
  schedule.kind = s.schedule;
  schedule.total_steps = s.steps;
  schedule.warmup_steps = s.warmup_steps > 0 ? s.warmup_steps : static_cast<int64_t>(s.warmup_ratio * static_cast<double>(s.steps));
  schedule.min_ratio = s.min_lr_ratio;
  schedule.decay_fraction = s.decay_fraction;
  return schedule;
}

// Everything another program needs to train the same model on the same batches: <trace> (training batches), <trace>.valid,
// <trace>.init (the initial model) and <trace>.settings.json (the optimizer's settings and every step's learning rate).
void write_traces(const PretrainSettings& s, Bundle& bundle, PackedWindows train, const std::shared_ptr<const TokenFile>& valid) {
  const int64_t vocabulary = bundle.model->info().vocabulary;
  std::vector<Batch> steps;
  DataCursor cursor;
  for (int64_t i = 0; i < s.steps; ++i) steps.push_back(train.next(s.batch_size * s.accumulation, cursor));
  write_batch_trace(s.trace, steps, s.batch_size * s.accumulation, s.sequence_length, vocabulary);
  std::vector<Batch> evaluation;
  const PackedWindows windows(valid, s.sequence_length, 0);
  const int64_t count = std::min(windows.windows_in_order(), std::max<int64_t>(1, s.eval_tokens / s.sequence_length));
  for (int64_t begin = 0; begin + s.batch_size <= count; begin += s.batch_size) evaluation.push_back(windows.in_order(begin, s.batch_size));
  write_batch_trace(s.trace + ".valid", evaluation, s.batch_size, s.sequence_length, vocabulary);

  AtomicDirectory initial(s.trace + ".init");
  save_bundle(initial.path(), *bundle.model, bundle.tokenizer.get());
  initial.commit();
  const ScheduleConfig schedule = schedule_config(s);
  std::vector<double> rates;
  for (int64_t step = 0; step < s.steps; ++step) rates.push_back(s.optimizer.lr * schedule_factor(schedule, step + (schedule.warmup_steps > 0 ? 1 : 0)));
  save_json(s.trace + ".settings.json", {{"lr", s.optimizer.lr},
                                         {"betas", {s.optimizer.beta1, s.optimizer.beta2}},
                                         {"eps", s.optimizer.eps},
                                         {"weight_decay", s.optimizer.weight_decay},
                                         {"warmup_steps", schedule.warmup_steps},
                                         {"schedule", s.schedule},
                                         {"min_lr_ratio", s.min_lr_ratio},
                                         {"clip", s.clip_norm},
                                         {"total_steps", s.steps},
                                         {"lr_per_step", rates}});
}

TrainerConfig trainer_config(const PretrainSettings& s) {
  TrainerConfig config;
  config.steps = s.steps;
  config.accumulation = s.accumulation;
  config.clip_norm = s.clip_norm;
  config.optimizer = s.optimizer;
  config.schedule = schedule_config(s);
  config.log_interval = s.log_interval;
  config.eval_interval = s.eval_interval;
  config.checkpoint_interval = s.checkpoint_interval;
  config.keep_last = s.keep_last;
  config.early_stop_patience = s.patience;
  config.save_type = *dtype_from_name(s.save_dtype);
  return config;
}

// A new run must not mix with an old one; a continued one must be the same run.
void check_output(const PretrainSettings& s, const Json& resolved, const std::string& checkpoint) {
  if (!s.resume) {
    require(checkpoint.empty(), "{}: holds a run already (newest checkpoint {}); continue it with --resume or choose another --out", s.output,
            fs::path(checkpoint).filename().string());
    return;
  }
  require(!checkpoint.empty(), "{}: --resume: expected a checkpoint under checkpoints/, found none", s.output);
  const std::string difference = ConfigTable::first_difference(checkpoint_config(checkpoint), resolved, kFreeKeys);
  require(difference.empty(), "{}: --resume with another configuration: {}; start a new run with --init-from instead", s.output, difference);
}

}  // namespace

void PretrainSettings::bind(ConfigTable& t) {
  t.bind("data.train", &train_files, "text files; documents are separated by lines that hold only data.separator");
  t.bind("data.valid", &valid_files, "text files to validate on; empty: the end of the training text");
  t.bind("data.valid_fraction", &valid_fraction, "part of the text held back for validation when data.valid is empty", 0, 0.5);
  t.bind("data.separator", &separator, "line that separates documents");
  t.bind("data.sequence_length", &sequence_length, "tokens per sequence", 1, 1 << 20);
  t.bind("data.batch_size", &batch_size, "sequences per forward", 1, 1 << 16);
  t.bind("data.trace", &trace, "also write every batch to this file (and .valid), for training elsewhere in the same order");
  t.bind("tokenizer.path", &tokenizer_path, "tokenizer to use; empty: train one on the data");
  t.bind("tokenizer.vocab_size", &tokenizer_vocab_size, "size of the trained vocabulary", 260, 1 << 20);
  t.bind("tokenizer.pattern", &tokenizer_pattern, "pre-tokenizer: gpt2, llama3, qwen2 or a regular expression");
  t.bind("model.hidden_size", &hidden_size, "channels", 2, 1 << 20);
  t.bind("model.num_hidden_layers", &layers, "blocks", 1, 10000);
  t.bind("model.num_attention_heads", &heads, "query heads", 1, 65536);
  t.bind("model.num_key_value_heads", &kv_heads, "key/value heads; 0: as many as query heads", 0, 65536);
  t.bind("model.intermediate_size", &intermediate_size, "feed-forward width; 0: 8/3 of hidden_size", 0, 1 << 24);
  t.bind("model.max_position_embeddings", &max_positions, "longest context; 0: data.sequence_length, at least 256", 0, 1 << 24);
  t.bind("model.vocab_size", &vocab_size, "rows of the embedding; 0: the tokenizer's", 0, 1 << 24);
  t.bind("model.rope_theta", &rope_theta, "base of the rotary frequencies", 1.001, 1e12);
  t.bind("model.rms_norm_eps", &norm_eps, "added to the mean square", 0, 1);
  t.bind("model.tie_word_embeddings", &tied, "the head is the embedding");
  t.bind("model.attention_bias", &attention_bias, "biases on the attention's projections");
  t.bind("model.mlp_bias", &mlp_bias, "biases in the feed-forward network");
  t.bind("model.initializer_range", &initializer_range, "standard deviation of new weights", 0, 10);
  qkv::bind(t, optimizer);
  t.bind("optimizer.clip_norm", &clip_norm, "clip the global gradient norm to this; 0: off", 0, 1e9);
  t.bind("schedule.kind", &schedule, "how the learning rate changes", schedule_kinds());
  t.bind("schedule.warmup_steps", &warmup_steps, "linear warmup; 0: warmup_ratio of all steps", 0);
  t.bind("schedule.warmup_ratio", &warmup_ratio, "warmup as a part of all steps", 0, 1);
  t.bind("schedule.min_lr_ratio", &min_lr_ratio, "final learning rate as a part of the peak", 0, 1);
  t.bind("schedule.decay_fraction", &decay_fraction, "wsd: the part of all steps that decays", 0, 1);
  t.bind("train.steps", &steps, "optimizer steps", 1);
  t.bind("train.minutes", &minutes, "if not 0: choose train.steps so that training takes about this long", 0, 1e6);
  t.bind("train.gradient_accumulation_steps", &accumulation, "forwards per optimizer step", 1, 1 << 20);
  t.bind("train.seed", &seed, "of weights, data order and dropout", 0);
  t.bind("train.dtype", &dtype, "compute type; masters are always f32", {"auto", "f32", "bf16"});
  t.bind("train.dropout", &dropout, "probability", 0, 0.95);
  t.bind("train.z_loss", &z_loss, "weight of the squared log-partition term", 0, 1);
  t.bind("train.label_smoothing", &label_smoothing, "part of the target spread evenly", 0, 0.99);
  t.bind("train.gradient_checkpointing", &gradient_checkpointing, "recompute each block in backward instead of keeping it");
  t.bind("train.log_interval", &log_interval, "steps between progress lines", 1);
  t.bind("train.eval_interval", &eval_interval, "steps between evaluations; 0: only at the end", 0);
  t.bind("train.eval_tokens", &eval_tokens, "tokens per evaluation", 1);
  t.bind("train.checkpoint_interval", &checkpoint_interval, "steps between checkpoints; 0: only at the end", 0);
  t.bind("train.keep_last", &keep_last, "checkpoints kept beside the best one", 1, 1000000);
  t.bind("train.early_stop_patience", &patience, "stop after this many evaluations without gain; 0: never", 0);
  t.bind("train.save_dtype", &save_dtype, "type of the exported weights", {"f32", "bf16", "f16"});
}

TrainResult run_pretraining(PretrainSettings s) {
  require(!s.output.empty(), "train: expected an output directory (--out)");
  require(!s.train_files.empty(), "train: expected text files (--data), found none");
  for (const auto& path : s.train_files) {
    require(fs::is_regular_file(path), "{}: no such file", path);
    require(fs::file_size(path) > 0, "{}: expected text, found an empty file", path);
  }
  if (s.dtype == "auto") s.dtype = bf16_products_are_native() ? "bf16" : "f32";

  ConfigTable table;
  s.bind(table);
  const std::string checkpoint = newest_checkpoint(s.output);
  if (s.resume && !checkpoint.empty() && s.minutes > 0) {  // the number of steps was measured when the run began
    const Json old = checkpoint_config(checkpoint);
    s.steps = JsonView(old, checkpoint).object("train").integer("steps");
  }
  const auto resolved = [&] {
    Json json = table.resolved();
    json["init_from"] = s.init_from;
    json["threads"] = num_threads();
    return json;
  };
  check_output(s, resolved(), checkpoint);

  Bundle bundle = obtain_model(s, obtain_tokenizer(s));
  TokenizeOptions tokenize;
  tokenize.document_separator = s.separator;
  tokenize.valid_fraction = s.valid_fraction;
  const TokenizeResult data = tokenize_files(s.train_files, s.valid_files, *bundle.tokenizer, s.output + "/data", tokenize);
  const auto train_tokens = TokenFile::open(data.train_path);
  const auto valid_tokens = data.valid_tokens > 1 ? TokenFile::open(data.valid_path) : nullptr;
  if (!valid_tokens) log_warning("no validation text: the loss is reported on training batches only");

  PretrainConfig recipe_config;
  recipe_config.sequence_length = s.sequence_length;
  recipe_config.batch_size = s.batch_size;
  recipe_config.dropout = static_cast<float>(s.dropout);
  recipe_config.seed = static_cast<uint64_t>(s.seed);
  recipe_config.compute_type = *dtype_from_name(s.dtype);
  recipe_config.checkpoint_activations = s.gradient_checkpointing;
  recipe_config.z_loss = static_cast<float>(s.z_loss);
  recipe_config.label_smoothing = static_cast<float>(s.label_smoothing);
  recipe_config.eval_tokens = s.eval_tokens;
  Pretrain recipe(*bundle.model, train_tokens, valid_tokens, recipe_config);

  if (s.minutes > 0 && !s.resume) {
    const double step_seconds = measure_step(recipe, s.accumulation, bundle);
    s.steps = std::max<int64_t>(10, static_cast<int64_t>(60 * s.minutes / step_seconds));
  }
  if (!s.trace.empty()) write_traces(s, bundle, PackedWindows(train_tokens, s.sequence_length, recipe_config.seed), valid_tokens);

  const ModelInfo& info = bundle.model->info();
  const int64_t step_tokens = s.sequence_length * s.batch_size * s.accumulation;
  log_info("model: {} parameters ({} layers, {} channels, {} heads, vocabulary {}), {} compute", bundle.model->parameter_count(), info.layers,
           info.channels, info.heads, info.vocabulary, s.dtype);
  log_info("data: {} training tokens in {} documents, {} validation tokens{}", data.train_tokens, data.train_documents, data.valid_tokens,
           data.reused ? " (tokenized before)" : "");
  log_info("training: {} steps of {} tokens = {} tokens, {:.2f} epochs; needs about {} for weights, gradients and optimizer", s.steps, step_tokens,
           s.steps * step_tokens, static_cast<double>(s.steps * step_tokens) / static_cast<double>(data.train_tokens),
           format_bytes(static_cast<uint64_t>(bundle.model->parameter_count()) * 16));

  save_yaml(s.output + "/config.yaml", resolved());
  Trainer trainer(bundle, recipe, trainer_config(s), s.output, resolved());
  if (s.resume) trainer.resume();
  return trainer.run();
}

}  // namespace qkv
