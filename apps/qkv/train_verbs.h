// What the kinds of training share on the command line: keys as flags, and the result.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "qkv/core/config.h"
#include "qkv/core/interrupt.h"
#include "qkv/train/trainer.h"

namespace qkv {

// Help of all keys, and an example.
std::string describe_keys(const ConfigTable& table, const std::string& example);
// Leftover words of the command line: a YAML file, if the first is no flag, and then keys: "--optimizer.lr
// 3e-4",
// "--optimizer.lr=3e-4" and, for switches, "--model.tie_word_embeddings" alone.
void apply_words(ConfigTable& table, std::vector<std::string> words);
// Prints the result; ends the program with the status of an interrupt if the run was interrupted.
void report_run(const TrainResult& result, bool json);

// What every kind of training does with its command line: `settings` from the words that are left of `verb`,
// `data` over the files they name, run(settings).
template <class Settings, class Run>
void run_configured(const CLI::App& verb, Settings& settings, const std::vector<std::string>& data, bool json,
                    Run run) {
  ConfigTable table;
  settings.bind(table);
  apply_words(table, verb.remaining());
  if (!data.empty()) settings.train_files = data;
  catch_interrupts();
  report_run(run(settings), json);
}

void add_train_tune(CLI::App& train);  // train_tune.cpp: sft, dpo, kto, orpo, cpo, simpo, reward, distill
void add_train_reinforce(CLI::App& train);  // train_reinforce.cpp: grpo, rloo, ppo, online-dpo, gkd

}  // namespace qkv
