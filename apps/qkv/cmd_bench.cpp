// qkv bench MODEL: how fast a model reads prompts and writes answers on this machine, and how far that is
// from what the memory allows. Random tokens, no sampling: what is timed is the model.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "console.h"
#include "generation_flags.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/parallel.h"
#include "qkv/core/progress.h"
#include "qkv/tensor/autograd.h"
#include "qkv/tensor/batch_invariance.h"
#include "qkv/tensor/machine.h"

namespace qkv {
namespace {

struct BenchCommand {
  std::string model, compute_type = "auto", activations = "int8";
  CacheFlags cache;
  std::vector<int64_t> prefill = {512}, depths = {0}, sequences = {1};
  int64_t decode = 64, repeat = 3;
  bool mapped = false, json = false, deterministic = false;
};

struct Measurement {
  int64_t tokens, depth, sequences;  // depth -1: prefill
  double rate;                       // tokens per second over all sequences, median
  double bytes_per_second;           // decode: weights and cache that a pass must read
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// What one pass of decoding reads of the weights: every matrix once, of an embedding that is not also the
// head only rows.
uint64_t weight_bytes(Model& model) {
  uint64_t bytes = 0;
  model.visit("", [&](const std::string& name, Tensor& parameter) {
    if (name != "embed.weight" || model.info().tied_embeddings) bytes += parameter.bytes();
  });
  return bytes;
}

class Bench {
 public:
  Bench(const BenchCommand& command, Model& model, const EngineOptions& options)
      : command_(command), model_(model), options_(options), weights_(weight_bytes(model)) {}

  Measurement prefill(int64_t tokens) {
    std::vector<double> rates;
    for (int64_t r = 0; r <= command_.repeat; ++r) {
      SequenceState state = model_.make_state(options_.cache);
      std::vector<SequenceState*> states = {&state};
      const double seconds = timed([&] { pass(states, tokens); });
      if (r > 0) rates.push_back(static_cast<double>(tokens) / seconds);  // the first warms up
    }
    return {tokens, -1, 1, median(rates), 0};
  }

  Measurement decode(int64_t depth, int64_t sequences) {
    std::vector<SequenceState> held;
    std::vector<SequenceState*> states;
    for (int64_t s = 0; s < sequences; ++s) held.push_back(model_.make_state(options_.cache));
    for (SequenceState& state : held) states.push_back(&state);
    for (SequenceState* state : states) {
      std::vector<SequenceState*> one = {state};
      for (int64_t done = 0; done < depth; done += 256) pass(one, std::min<int64_t>(256, depth - done));
    }
    std::vector<double> rates;
    pass(states, 1);
    for (int64_t r = 0; r < command_.repeat; ++r) {
      const double seconds = timed([&] {
        for (int64_t i = 0; i < command_.decode; ++i) pass(states, 1);
      });
      rates.push_back(static_cast<double>(command_.decode * sequences) / seconds);
    }
    const int64_t length = depth + 1 + command_.decode * command_.repeat / 2;
    const auto cache = static_cast<double>(model_.state_bytes(options_.cache, length));
    const double rate = median(rates);
    return {command_.decode, depth, sequences, rate,
            rate / static_cast<double>(sequences) *
                (static_cast<double>(weights_) + cache * static_cast<double>(sequences))};
  }

  uint64_t weights() const { return weights_; }

 private:
  template <typename Body>
  static double timed(Body&& body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  // The next n tokens of every sequence, with the logits of each one's last.
  void pass(const std::vector<SequenceState*>& states, int64_t n) {
    stop_if_interrupted();
    const BatchInvariant rows_alone(command_.deterministic);
    Pass pass;
    pass.compute_type = options_.compute_type;
    pass.activations = options_.activations;
    pass.states = states;
    pass.sequences.offsets = {0};
    std::vector<int32_t> tokens;
    std::vector<int64_t> last;
    for (const SequenceState* state : states) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t position = state->length + i;
        pass.positions.push_back(static_cast<int32_t>(position));
        tokens.push_back(static_cast<int32_t>((position * 7919 + 13) % model_.info().vocabulary));
      }
      pass.sequences.offsets.push_back(static_cast<int64_t>(tokens.size()));
      last.push_back(static_cast<int64_t>(tokens.size()) - 1);
    }
    const Tensor hidden = model_.forward(tokens, pass);
    model_.logits(ops::select_rows(hidden, last), options_.activations);
  }

  const BenchCommand& command_;
  Model& model_;
  EngineOptions options_;
  uint64_t weights_;
};

void check(const BenchCommand& command, const ModelInfo& info) {
  require(info.causal, "{}: an encoder does not generate: there is nothing to time", info.model_type);
  const int64_t depth = *std::max_element(command.depths.begin(), command.depths.end());
  const int64_t longest = *std::max_element(command.prefill.begin(), command.prefill.end());
  const int64_t needed = std::max(longest, depth + 1 + command.decode * command.repeat);
  require(needed <= info.max_positions, "bench: {} tokens are needed, and the model has {} positions", needed,
          info.max_positions);
}

void print_table(const BenchCommand& command, const std::vector<Measurement>& list, uint64_t weights,
                 double bandwidth, const CacheOptions& cache) {
  print_out(fmt::format(
      "{}: {} of weights per token, {} threads, {}, activations {}, cache {}\nread bandwidth {:.1f} GB/s\n\n",
      command.model, format_bytes(weights), num_threads(), isa_name(active_isa()), command.activations,
      cache_sentence(cache), bandwidth / 1e9));
  print_out(fmt::format("{:<24} {:>10} {:>10} {:>8}\n", "", "tokens/s", "GB/s", "of limit"));
  for (const Measurement& m : list) {
    if (m.depth < 0) {
      print_out(fmt::format("{:<24} {:>10}\n", fmt::format("prefill {}", m.tokens), format_rate(m.rate)));
    } else {
      const std::string what =
          fmt::format("decode at {}{}", m.depth, m.sequences > 1 ? fmt::format(" x {}", m.sequences) : "");
      print_out(fmt::format("{:<24} {:>10} {:>10.1f} {:>7.0f}%\n", what, format_rate(m.rate),
                            m.bytes_per_second / 1e9, 100 * m.bytes_per_second / bandwidth));
    }
  }
}

void print_json(const BenchCommand& command, const std::vector<Measurement>& list, uint64_t weights,
                double bandwidth, const CacheOptions& cache) {
  Json results = Json::array();
  for (const Measurement& m : list) {
    if (m.depth < 0) {
      results.push_back({{"test", "prefill"}, {"tokens", m.tokens}, {"tokens_per_second", m.rate}});
    } else {
      results.push_back({{"test", "decode"},
                         {"depth", m.depth},
                         {"sequences", m.sequences},
                         {"tokens_per_second", m.rate},
                         {"bytes_per_second", m.bytes_per_second},
                         {"share_of_bandwidth", m.bytes_per_second / bandwidth}});
    }
  }
  print_out(dump_json({{"model", command.model},
                       {"threads", num_threads()},
                       {"isa", isa_name(active_isa())},
                       {"activations", command.activations},
                       {"cache", cache_sentence(cache)},
                       {"deterministic", command.deterministic},
                       {"weight_bytes", weights},
                       {"read_bytes_per_second", bandwidth},
                       {"results", results}}) +
            "\n");
}

void run(const BenchCommand& command) {
  const auto all_at_least = [](const std::vector<int64_t>& values, int64_t least) {
    return std::all_of(values.begin(), values.end(), [&](int64_t v) { return v >= least; });
  };
  require(all_at_least(command.prefill, 1) && all_at_least(command.sequences, 1) &&
              all_at_least(command.depths, 0),
          "bench: expected --prefill and --sequences of at least 1 and --depth of at least 0");
  require(command.decode >= 1 && command.repeat >= 1, "bench: expected --decode and --repeat of at least 1");
  GenerationFlags flags;
  flags.compute_type = command.compute_type;
  flags.activations = command.activations;
  flags.cache = command.cache;
  flags.check();
  LoadOptions load;
  load.tokenizer_required = false;
  load.residence = command.mapped ? Residence::inference : Residence::memory;
  const Bundle bundle = load_bundle(command.model, load);
  check(command, bundle.model->info());
  const EngineOptions options = flags.engine(bundle);

  const NoGrad off;
  Bench bench(command, *bundle.model, options);
  // The bandwidth of these machines changes within a minute: the smaller of before and after counts.
  double bandwidth = measure_read_bandwidth();
  const uint64_t steps = command.prefill.size() + command.depths.size() * command.sequences.size();
  Progress progress("measuring", steps, "tests");
  std::vector<Measurement> list;
  for (int64_t tokens : command.prefill) {
    list.push_back(bench.prefill(tokens));
    progress.update(list.size());
  }
  for (int64_t depth : command.depths) {
    for (int64_t sequences : command.sequences) {
      list.push_back(bench.decode(depth, sequences));
      progress.update(list.size());
    }
  }
  bandwidth = std::min(bandwidth, measure_read_bandwidth());
  if (command.json) {
    print_json(command, list, bench.weights(), bandwidth, options.cache);
  } else {
    print_table(command, list, bench.weights(), bandwidth, options.cache);
  }
}

}  // namespace

void add_bench(CLI::App& app) {
  auto command = std::make_shared<BenchCommand>();
  CLI::App* verb = app.add_subcommand("bench", "Time prompts and answers of a model on this machine");
  verb->footer(
      "Example:\n  qkv bench model.gguf --prefill 512 --decode 64 --depth 0,1024 --sequences 1,8\n\n"
      "Rates are medians. \"of limit\" is what a pass must read (weights, and keys and values of its "
      "sequences) against\n"
      "the read bandwidth of the memory, measured in the same run; of a mixture of experts not all weights "
      "are read.");
  verb->add_option("model", command->model, "Model: file or directory")->required();
  verb->add_option("--prefill", command->prefill, "Prompt lengths (default: 512)")
      ->delimiter(',')
      ->type_name("N,...");
  verb->add_option("--decode", command->decode, "Tokens written (default: 64)")->type_name("N");
  verb->add_option("--depth", command->depths, "Tokens that stand before them (default: 0)")
      ->delimiter(',')
      ->type_name("N,...");
  verb->add_option("--sequences", command->sequences, "Written at the same time (default: 1)")
      ->delimiter(',')
      ->type_name("N,...");
  verb->add_option("--repeat", command->repeat, "Times each test runs (default: 3)")->type_name("N");
  verb->add_option("--activations", command->activations,
                   "In products with quantized weights: int8 or f32 (default: int8)")
      ->type_name("TYPE");
  verb->add_option("--compute-type", command->compute_type,
                   "Type of activations: auto, f32, bf16 (default: auto)")
      ->type_name("TYPE");
  command->cache.add_to(*verb);
  verb->add_flag("--mapped", command->mapped,
                 "Read weights where the file is mapped: no copy in memory, slower answers");
  verb->add_flag("--deterministic", command->deterministic, "Every row computed as if it were alone");
  verb->add_flag("--json", command->json, "Print the results as JSON");
  verb->callback([command] { run(*command); });
}

}  // namespace qkv
