// What the kinds of training share on the command line: keys as flags, and the result.
#pragma once

#include <string>
#include <vector>

#include "qkv/core/config.h"
#include "qkv/train/trainer.h"

namespace CLI {
class App;
}

namespace qkv {

// "--optimizer.lr 3e-4", "--optimizer.lr=3e-4" and, for switches, "--model.tie_word_embeddings" alone.
void apply_flags(ConfigTable& table, const std::vector<std::string>& words);
// Help of all keys, and an example.
std::string describe_keys(const ConfigTable& table, const std::string& example);
void print_result(const TrainResult& result, bool json);

void add_train_tune(CLI::App& train);  // train_tune.cpp: sft and dpo

}  // namespace qkv
