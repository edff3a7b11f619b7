// qkv train pretrain [CONFIG.yaml] [--any.key value]
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/qkv/commands.h"
#include "qkv/core/error.h"
#include "qkv/core/interrupt.h"
#include "qkv/core/log.h"
#include "qkv/core/parallel.h"
#include "qkv/core/progress.h"
#include "qkv/train/pretrain_job.h"

namespace qkv {
namespace {

struct TrainArguments {
  PretrainSettings settings;
  std::vector<std::string> data;
  bool json = false;
};

// "--optimizer.lr 3e-4", "--optimizer.lr=3e-4" and, for switches, "--model.tie_word_embeddings" alone.
void apply_flags(ConfigTable& table, const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    require(word.rfind("--", 0) == 0, "command line: unexpected argument '{}'", word);
    const size_t equals = word.find('=');
    const std::string key = word.substr(2, equals == std::string::npos ? std::string::npos : equals - 2);
    if (equals != std::string::npos) {
      table.set_text(key, word.substr(equals + 1), "command line");
    } else if (i + 1 < words.size() && words[i + 1].rfind("--", 0) != 0) {
      table.set_text(key, words[++i], "command line");
    } else {
      table.set_text(key, "true", "command line");
    }
  }
}

std::string describe_keys() {
  PretrainSettings settings;
  ConfigTable table;
  settings.bind(table);
  std::string text = "\nKeys (each is a flag, --optimizer.lr 3e-4, and a key of CONFIG.yaml):\n";
  for (const auto& entry : table.entries()) {
    text += fmt::format("  --{:<40} {} [{}]\n", entry.key, entry.help, dump_json(table.value(entry)));
  }
  return text + "\nExample: qkv train pretrain --data my.txt --out run --train.minutes 10\n";
}

void print_result(const TrainResult& result, bool json) {
  if (json) {
    const Json line = {{"steps", result.steps},
                       {"tokens", result.tokens},
                       {"train_loss", result.train_loss},
                       {"valid_loss", result.valid_loss},
                       {"best_valid_loss", result.best_valid_loss},
                       {"seconds", result.seconds},
                       {"tokens_per_second", result.tokens_per_second},
                       {"mfu", result.mfu},
                       {"peak_tensor_bytes", result.peak_tensor_bytes},
                       {"peak_resident_bytes", result.peak_resident_bytes},
                       {"interrupted", result.interrupted},
                       {"model", result.model_path},
                       {"report", result.report_path}};
    fmt::print("{}\n", dump_json(line));
    return;
  }
  fmt::print("{} steps, {} tokens in {}: {:.0f} tokens/s, MFU {:.1f} %\n", result.steps, result.tokens, format_duration(result.seconds),
             result.tokens_per_second, 100 * result.mfu);
  fmt::print("validation loss {:.4f} (best {:.4f})\n", result.valid_loss, result.best_valid_loss);
  fmt::print("peak memory {} in tensors, {} resident\n", format_bytes(result.peak_tensor_bytes), format_bytes(result.peak_resident_bytes));
  if (!result.model_path.empty()) fmt::print("model:  {}\n", result.model_path);
  fmt::print("report: {}\n", result.report_path);
}

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* train = app.add_subcommand("train", "Train a model (pretrain)");
  train->require_subcommand(1);
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* pretrain = train->add_subcommand("pretrain", "Train a language model from text: qkv train pretrain [CONFIG.yaml] ...");
  // Keys are read from what is left over, so leftovers must stay here rather than fall through to the program.
  pretrain->fallthrough(false);
  pretrain->allow_extras();
  pretrain->add_option_function<int>("--threads", set_num_threads, "threads to use")->type_name("N");
  pretrain->footer(describe_keys);
  pretrain->add_option("--data", arguments->data, "text files (data.train)")->delimiter(',');
  pretrain->add_option("--out", arguments->settings.output, "directory of the run")->required();
  pretrain->add_option("--init-from", arguments->settings.init_from, "model to go on from, with new data and schedule");
  pretrain->add_flag("--resume", arguments->settings.resume, "continue from the newest checkpoint of --out");
  pretrain->add_flag("--json", arguments->json, "print the result as one line of JSON");
  pretrain->callback([arguments, pretrain] {
    PretrainSettings& settings = arguments->settings;
    ConfigTable table;
    settings.bind(table);
    std::vector<std::string> words = pretrain->remaining();
    if (!words.empty() && words[0].rfind("--", 0) != 0) {
      table.read_yaml(words[0]);
      words.erase(words.begin());
    }
    if (!arguments->data.empty()) settings.train_files = arguments->data;
    apply_flags(table, words);
    catch_interrupts();
    const TrainResult result = run_pretraining(settings);
    print_result(result, arguments->json);
    if (result.interrupted) {
      log_info("stopped at step {}; continue with --resume", result.steps);
      throw CLI::RuntimeError(130);
    }
  });
}

}  // namespace qkv
