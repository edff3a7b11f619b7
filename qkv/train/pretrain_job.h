// Pretraining from text files to an exported model: what `qkv train pretrain` runs, as a library call.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qkv/core/config.h"
#include "qkv/train/recipes/pretrain.h"
#include "qkv/train/trainer.h"

namespace qkv {

// Every setting of a pretraining run. Keys, limits and help are in bind(); model keys are those of a Hugging Face config.
struct PretrainSettings {
  std::vector<std::string> train_files, valid_files;
  double valid_fraction = 0.05;
  std::string separator = "<|endoftext|>";
  int64_t sequence_length = 256, batch_size = 8;
  std::string trace;

  std::string tokenizer_path;
  int64_t tokenizer_vocab_size = 4096;
  std::string tokenizer_pattern = "gpt2";

  int64_t hidden_size = 256, layers = 6, heads = 8, kv_heads = 0, intermediate_size = 0, max_positions = 0, vocab_size = 0;
  double rope_theta = 10000, norm_eps = 1e-5, initializer_range = 0.02;
  bool tied = true, attention_bias = false, mlp_bias = false;

  OptimizerConfig optimizer;
  double clip_norm = 1;
  std::string schedule = "cosine";
  int64_t warmup_steps = 0;
  double warmup_ratio = 0.02, min_lr_ratio = 0.1, decay_fraction = 0.2;

  int64_t steps = 1000, accumulation = 1, seed = 0;
  double minutes = 0;
  std::string dtype = "auto", save_dtype = "f32";
  double dropout = 0, z_loss = 0, label_smoothing = 0;
  bool gradient_checkpointing = false;
  int64_t log_interval = 10, eval_interval = 100, eval_tokens = 100000, checkpoint_interval = 500, keep_last = 2, patience = 0;

  std::string output;     // directory of the run
  std::string init_from;  // a model to go on from: its weights, sizes and tokenizer; new data, schedule and optimizer
  bool resume = false;

  // Every key but output, init_from and resume, which are flags only.
  void bind(ConfigTable& table);
};

// Runs it; prints a summary of the model and data first. Errors leave no checkpoint half-written.
TrainResult run_pretraining(PretrainSettings settings);

}  // namespace qkv
