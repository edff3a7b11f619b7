// qkv plan serve MODEL: how much memory answering takes and how fast this machine's memory lets it be, before
// a token is computed.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "console.h"
#include "generation_flags.h"
#include "memory_check.h"
#include "plan_verbs.h"
#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/core/progress.h"
#include "system_probe.h"

namespace qkv {
namespace {

struct PlanServeCommand {
  std::string model, compute_type = "auto";
  CacheFlags cache;
  int64_t context = 0, parallel = 1;
  bool json = false;
};

void print_plan(const PlanServeCommand& command, const Bundle& bundle, const ServePlan& plan,
                const EngineOptions& options, double bandwidth, const SystemMemory& memory) {
  const ModelInfo& info = bundle.model->info();
  print_out(fmt::format("{}: {}, {} parameters; {} sequence{} of {} tokens, cache {}\n\n", command.model,
                        info.architecture, bundle.model->parameter_count(), plan.parallel,
                        plan.parallel == 1 ? "" : "s", plan.context, cache_sentence(options.cache)));
  const auto line = [](const char* what, uint64_t bytes, const std::string& why) {
    print_out(fmt::format("{:<10} {:>10}  {}\n", what, format_bytes(bytes), why));
  };
  line("weights", plan.weights, fmt::format("{} of them mapped from the file", format_bytes(plan.mapped)));
  line("cache", plan.cache, cache_formula(*bundle.model, options.cache));
  line("scratch", plan.scratch, fmt::format("passes of up to {} prompt tokens", options.prefill_chunk));
  line("program", plan.program, "code, vocabulary, what loading leaves");
  line("total", plan.total(),
       memory.total == 0 ? "" : fmt::format("of {} that are available", format_bytes(memory.available)));
  print_out(fmt::format("\nread bandwidth {:.1f} GB/s allows at most, in tokens/s:\n", bandwidth / 1e9));
  const auto rates = [&](int64_t sequences) {
    print_out(fmt::format("{:<14} {:>8} at the beginning {:>8} after {} tokens\n",
                          sequences == 1 ? "one sequence" : fmt::format("{} together", sequences),
                          format_rate(plan.tokens_per_second(bandwidth, 0, sequences)),
                          format_rate(plan.tokens_per_second(bandwidth, plan.context, sequences)),
                          plan.context));
  };
  rates(1);
  if (plan.parallel > 1) rates(plan.parallel);
}

void print_plan_json(const PlanServeCommand& command, const Bundle& bundle, const ServePlan& plan,
                     const EngineOptions& options, double bandwidth, const SystemMemory& memory) {
  const auto rates = [&](int64_t depth) {
    return Json{{"one", plan.tokens_per_second(bandwidth, depth, 1)},
                {"all", plan.tokens_per_second(bandwidth, depth, plan.parallel)}};
  };
  print_out(dump_json({{"model", command.model},
                       {"context", plan.context},
                       {"parallel", plan.parallel},
                       {"weight_bytes", plan.weights},
                       {"mapped_weight_bytes", plan.mapped},
                       {"cache_bytes", plan.cache},
                       {"cache_bytes_per_token", plan.cache_per_token},
                       {"cache_formula", cache_formula(*bundle.model, options.cache)},
                       {"scratch_bytes", plan.scratch},
                       {"program_bytes", plan.program},
                       {"total_bytes", plan.total()},
                       {"available_bytes", memory.available},
                       {"weight_bytes_read", plan.weights_read},
                       {"read_bytes_per_second", bandwidth},
                       {"tokens_per_second_at_most", {{"empty", rates(0)}, {"full", rates(plan.context)}}}}) +
            "\n");
}

void run_plan_serve(const PlanServeCommand& command) {
  require(command.context >= 0, "--context: expected a number of tokens, or 0 for the model's, found {}",
          command.context);
  require(command.parallel >= 1, "--parallel: expected at least 1 sequence, found {}", command.parallel);
  GenerationFlags flags;
  flags.compute_type = command.compute_type;
  flags.cache = command.cache;
  flags.check();
  LoadOptions load;
  load.tokenizer_required = false;
  const Bundle bundle = load_bundle(command.model, load);
  const ModelInfo& info = bundle.model->info();
  require(info.causal, "{}: an encoder does not generate: there is nothing to plan", info.model_type);
  require(command.context <= info.max_positions,
          "--context: expected at most {} tokens, the positions of this model, found {}", info.max_positions,
          command.context);
  const EngineOptions options = flags.engine(bundle);
  bundle.model->make_state(options.cache);  // refuses what this model's cache cannot be
  const int64_t context = command.context > 0 ? command.context : info.max_positions;
  const ServePlan plan =
      plan_serving(*bundle.model, serve_request(bundle, options, context, command.parallel));
  const SystemMemory memory = system_memory();
  const double bandwidth = measure_read_bandwidth();
  (command.json ? print_plan_json : print_plan)(command, bundle, plan, options, bandwidth, memory);
}

void add_plan_serve(CLI::App& plan) {
  const auto command = std::make_shared<PlanServeCommand>();
  CLI::App* verb = plan.add_subcommand("serve", "Answering requests: memory by part, speed at most");
  verb->add_option("MODEL", command->model, "Model: file or directory")->required();
  verb->add_option("--context", command->context, "Tokens of each sequence (default: the model's positions)")
      ->type_name("N");
  verb->add_option("--parallel", command->parallel, "Sequences at the same time (default: 1)")
      ->type_name("M");
  verb->add_option("--compute-type", command->compute_type,
                   "Type of activations: auto, f32, bf16 (default: auto)")
      ->type_name("TYPE");
  command->cache.add_to(*verb);
  verb->add_flag("--json", command->json, "Print the plan as JSON");
  verb->footer(
      "Example:\n  qkv plan serve model.gguf --context 4096 --parallel 8 --cache-type-k q8_0 --cache-type-v "
      "q8_0\n\n"
      "Memory is what is resident when every sequence has reached its context. The model is opened, not run; "
      "the\n"
      "bandwidth is measured.");
  verb->callback([command] { run_plan_serve(*command); });
}

}  // namespace

void add_plan(CLI::App& app) {
  CLI::App* plan = app.add_subcommand("plan", "Say what a run will take before it is begun");
  plan->require_subcommand(1, 1);
  add_plan_serve(*plan);
  add_plan_train(*plan);
}

}  // namespace qkv
