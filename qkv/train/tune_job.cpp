#include "qkv/train/tune_job.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/log.h"
#include "qkv/core/parallel.h"
#include "qkv/data/sample_batches.h"
#include "qkv/tensor/gemm.h"
#include "qkv/text/tokenizer_files.h"
#include "qkv/train/recipes/dpo.h"
#include "qkv/train/recipes/sft.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

// Keys that may differ between a run and its continuation: they change what is reported and kept, not the
// numbers.
const std::vector<std::string> kFreeKeys = {"train.log_interval",        "train.eval_interval",
                                            "train.checkpoint_interval", "train.keep_last",
                                            "train.save_dtype",          "threads"};

std::vector<Record> read_all(const std::vector<std::string>& files, const TuneSettings& s, bool chat) {
  std::vector<Record> records;
  std::optional<RecordSchema> schema;
  for (const std::string& path : files) {
    RecordFile file = read_records(path);
    const bool pairs = file.schema == RecordSchema::preference;
    require(pairs == (s.kind == TuneKind::dpo), "{}: expected {} data, found {} data", path,
            s.kind == TuneKind::dpo ? "preference" : "chat or completion", schema_name(file.schema));
    require(!schema || *schema == file.schema, "{}: expected {} data, as in {}, found {} data", path,
            schema_name(*schema), files[0], schema_name(file.schema));
    schema = file.schema;
    log_info("{}: {} records of {} data", path, file.records.size(), schema_name(file.schema));
    for (Record& record : file.records)
      records.push_back(chat ? as_chat(std::move(record)) : std::move(record));
  }
  return records;
}

struct Samples {
  std::vector<TokenSample> samples;  // sft; dpo: chosen and rejected alternate
  std::vector<std::string> where;
};

Samples tokenize(const std::vector<Record>& records, const ChatTokens& tokens, bool pairs) {
  Samples result;
  const size_t each = pairs ? 2 : 1;
  result.samples.resize(records.size() * each);
  parallel_for(static_cast<int64_t>(records.size()), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<size_t>(i);
      result.samples[at * each] = tokens.sample(records[at]);
      if (pairs) result.samples[at * each + 1] = tokens.rejected(records[at]);
    }
  });
  for (const Record& record : records) result.where.insert(result.where.end(), each, record.where);
  return result;
}

void say_counts(const char* what, const SampleCounts& counts) {
  log_info(
      "{}: {} samples, {} tokens of which {} are learned, longest {}; {} dropped and {} cut for their length",
      what, counts.samples, counts.tokens, counts.learned, counts.longest, counts.dropped, counts.cut);
}

std::vector<TokenSample> limited(const char* what, Samples samples, int64_t most, const TuneSettings& s) {
  if (samples.samples.empty()) return {};
  say_counts(what, limit_samples(samples.samples, samples.where, most, overlong_from_name(s.overlong)));
  return std::move(samples.samples);
}

// Pairs stay pairs: both are left out if one is.
std::vector<PreferencePair> limited_pairs(const char* what, Samples samples, int64_t most,
                                          const TuneSettings& s) {
  std::vector<PreferencePair> pairs;
  SampleCounts counts;
  const Overlong overlong = overlong_from_name(s.overlong);
  for (size_t i = 0; i < samples.samples.size(); i += 2) {
    TokenSample &chosen = samples.samples[i], &rejected = samples.samples[i + 1];
    const bool one = fit_sample(chosen, samples.where[i], most, overlong, counts);
    const bool other = fit_sample(rejected, samples.where[i], most, overlong, counts);
    if (!one || !other) {
      counts.dropped += 2;
      continue;
    }
    counts.samples += 2;
    counts.tokens += static_cast<int64_t>(chosen.tokens.size() + rejected.tokens.size());
    counts.learned += chosen.learned_count() + rejected.learned_count();
    pairs.push_back({std::move(chosen), std::move(rejected)});
  }
  if (samples.samples.empty()) return pairs;
  say_counts(what, counts);
  require(!pairs.empty(), "data: no pair is left: {} samples have more than {} tokens or no answer",
          counts.dropped, most);
  return pairs;
}

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

}  // namespace

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
  config.base_model = model;
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
  return config;
}

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
  bundle.model->set_trainable(!s.with_adapter());
  if (!s.with_adapter()) return nullptr;
  bundle.adapters.push_back(
      Adapter::create(*bundle.model, s.adapter_config(), static_cast<uint64_t>(s.seed)));
  return bundle.adapters.back().get();
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

void TuneSettings::bind(ConfigTable& t) {
  t.bind("data.train", &train_files,
         "JSON lines (or a JSON list) of chats, completions, texts; for dpo of preferences");
  t.bind("data.valid", &valid_files, "files to validate on; empty: the end of the training data");
  t.bind("data.valid_fraction", &valid_fraction,
         "part of the data held back for validation when data.valid is empty", 0, 0.5);
  t.bind("data.max_length", &max_length, "tokens of a sample; 0: the model's positions, at most 2048", 0,
         1 << 24);
  t.bind("data.overlong", &overlong, "what becomes of longer samples", {"drop", "cut", "error"});
  t.bind("data.chat", &chat,
         "prompts and answers that are texts become turns of a chat; auto: if the model has a chat template",
         {"auto", "yes", "no"});
  if (kind == TuneKind::sft) {
    t.bind("data.batch_tokens", &batch_tokens, "tokens per forward, packed from whole samples", 1, 1 << 24);
  } else {
    t.bind("data.batch_pairs", &batch_pairs, "pairs per forward", 1, 1 << 16);
    t.bind("dpo.loss", &loss, "the loss of a pair", losses::preference_loss_names());
    t.bind("dpo.beta", &beta, "how strongly the policy is held to the reference", 1e-6, 1e3);
    t.bind("dpo.label_smoothing", &label_smoothing, "the probability that a label is wrong", 0, 0.999999);
    t.bind("dpo.divergence", &divergence, "what holds the policy to the reference",
           losses::divergence_names());
    t.bind("dpo.divergence_alpha", &divergence_alpha, "alpha of the alpha divergence", -100, 100);
    t.bind("dpo.reference_free", &reference_free, "a uniform reference");
  }
  bind_training(t);
}

void TuneSettings::bind_training(ConfigTable& t) {
  t.bind("adapter.kind", &adapter, "what is trained; none: all parameters",
         {"lora", "dora", "ia3", "vera", "none"});
  t.bind("adapter.rank", &rank, "of lora, dora and vera", 1, 65536);
  t.bind("adapter.alpha", &alpha, "lora's effect is scaled by alpha / rank", 1e-6, 1e6);
  t.bind("adapter.rank_stabilized", &rank_stabilized, "scale by alpha / sqrt(rank)");
  t.bind("adapter.dropout", &adapter_dropout, "probability, of what goes into an adapter", 0, 0.95);
  t.bind("adapter.targets", &targets, "ends of names of modules (q_proj,v_proj), or all-linear");
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
  t.bind("train.log_interval", &log_interval, "steps between progress lines", 1);
  t.bind("train.eval_interval", &eval_interval, "steps between evaluations; 0: only at the end", 0);
  t.bind("train.checkpoint_interval", &checkpoint_interval, "steps between checkpoints; 0: only at the end",
         0);
  t.bind("train.keep_last", &keep_last, "checkpoints kept beside the best one", 1, 1000000);
  t.bind("train.save_dtype", &save_dtype, "type of exported weights (adapter.kind none)",
         {"f32", "bf16", "f16"});
}

TrainResult run_tuning(TuneSettings s) {
  if (s.dtype == "auto") s.dtype = bf16_products_are_native() ? "bf16" : "f32";
  ConfigTable table;
  s.bind(table);
  const std::string checkpoint = checkpoint_to_resume(s);

  LoadOptions load;
  load.residence = s.with_adapter() ? Residence::inference : Residence::trainable;
  Bundle bundle = load_bundle(s.model, load);
  const bool chat = s.chat == "yes" || (s.chat == "auto" && bundle.tokenizer->chat_template().has_value());
  const std::vector<Record> train_records = read_all(s.train_files, s, chat),
                            valid_records = read_all(s.valid_files, s, chat);
  if (train_records[0].answer.is_chat()) give_template(bundle);
  const ChatTokens tokens(*bundle.tokenizer);
  const int64_t positions = bundle.model->info().max_positions;
  if (s.max_length == 0) s.max_length = positions > 0 ? std::min<int64_t>(positions, 2048) : 2048;
  require(positions == 0 || s.max_length <= positions,
          "data.max_length: expected at most the model's {} positions, found {}", positions, s.max_length);

  Adapter* adapter = prepare_training(bundle, s);

  TuneConfig config;
  config.batch_tokens = s.batch_tokens;
  config.dropout = static_cast<float>(s.dropout);
  config.seed = static_cast<uint64_t>(s.seed);
  config.compute_type = *dtype_from_name(s.dtype);
  config.checkpoint_activations = s.gradient_checkpointing;
  const bool pairs = s.kind == TuneKind::dpo;
  Samples train_samples = tokenize(train_records, tokens, pairs),
          valid_samples = tokenize(valid_records, tokens, pairs);
  std::unique_ptr<Recipe> recipe;
  if (pairs) {
    std::vector<PreferencePair> train =
        limited_pairs("training pairs", std::move(train_samples), s.max_length, s);
    std::vector<PreferencePair> valid =
        limited_pairs("validation pairs", std::move(valid_samples), s.max_length, s);
    hold_back(train, valid, s.valid_fraction);
    if (s.steps == 0) s.steps = steps_of(s, static_cast<double>(train.size()), s.batch_pairs);
    losses::DpoOptions options;
    options.loss = losses::preference_loss_from_name(s.loss);
    options.beta = s.beta;
    options.label_smoothing = s.label_smoothing;
    options.divergence = losses::divergence_from_name(s.divergence);
    options.alpha = s.divergence_alpha;
    options.reference_free = s.reference_free;
    recipe = std::make_unique<Dpo>(*bundle.model, adapter, std::move(train), std::move(valid), s.batch_pairs,
                                   options, config);
  } else {
    std::vector<TokenSample> train = limited("training data", std::move(train_samples), s.max_length, s);
    std::vector<TokenSample> valid = limited("validation data", std::move(valid_samples), s.max_length, s);
    hold_back(train, valid, s.valid_fraction);
    double total = 0;
    for (const TokenSample& sample : train) total += static_cast<double>(sample.tokens.size());
    if (s.steps == 0) s.steps = steps_of(s, total, s.batch_tokens);
    recipe = std::make_unique<Sft>(*bundle.model, adapter, std::move(train), std::move(valid), config);
  }

  Json resolved = table.resolved();
  resolved["model"] = s.model;
  resolved["threads"] = num_threads();
  require_same_run(s, checkpoint, resolved);
  return run_recipe(s, bundle, *recipe, resolved);
}

}  // namespace qkv
