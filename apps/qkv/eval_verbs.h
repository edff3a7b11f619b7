// The commands of `qkv eval`, one file each.
#pragma once

namespace CLI {
class App;
}

namespace qkv {

struct WindowOptions;

void add_eval_kld(CLI::App& eval);     // eval_kld.cpp
void add_eval_logits(CLI::App& eval);  // eval_logits.cpp
void add_eval_ppl(CLI::App& eval);     // eval_ppl.cpp
void add_eval_policies(CLI::App& eval);  // eval_policies.cpp
void add_eval_tasks(CLI::App& eval);   // eval_tasks.cpp

// How a text is cut into windows: --context, --stride, --max-windows, --batch-tokens (eval_ppl.cpp).
void add_window_options(CLI::App& command, WindowOptions& options);

}  // namespace qkv
