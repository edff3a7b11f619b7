// The verbs of the program. Each function adds one to the command line; its callback runs when it was asked
// for, prints results on standard output and throws Error for bad input.
#pragma once

namespace CLI {
class App;
}

namespace qkv {

void add_generate(CLI::App& app);   // cmd_generate.cpp
void add_chat(CLI::App& app);       // cmd_chat.cpp
void add_tokenizer(CLI::App& app);  // cmd_tokenizer.cpp
void add_data(CLI::App& app);       // cmd_data.cpp
void add_info(CLI::App& app);       // cmd_info.cpp
void add_convert(CLI::App& app);    // cmd_convert.cpp
void add_check(CLI::App& app);      // cmd_check.cpp
void add_init(CLI::App& app);       // cmd_init.cpp
void add_quantize(CLI::App& app);   // cmd_quantize.cpp
void add_prune(CLI::App& app);      // cmd_prune.cpp
void add_imatrix(CLI::App& app);    // cmd_imatrix.cpp
void add_merge(CLI::App& app);      // cmd_merge.cpp
void add_train(CLI::App& app);      // cmd_train.cpp
void add_eval(CLI::App& app);       // cmd_eval.cpp
void add_bench(CLI::App& app);      // cmd_bench.cpp
void add_plan(CLI::App& app);       // cmd_plan.cpp

}  // namespace qkv
