#include "train_verbs.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "qkv/core/error.h"
#include "qkv/core/log.h"
#include "qkv/core/progress.h"

namespace qkv {

void apply_words(ConfigTable& table, std::vector<std::string> words) {
  if (!words.empty() && words[0].rfind("--", 0) != 0) {
    table.read_yaml(words[0]);
    words.erase(words.begin());
  }
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

std::string describe_keys(const ConfigTable& table, const std::string& example) {
  std::string text = "\nKeys (each is a flag, --optimizer.lr 3e-4, and a key of CONFIG.yaml):\n";
  for (const auto& entry : table.entries()) {
    const std::string choices =
        entry.choices.empty() ? "" : fmt::format(" ({})", fmt::join(entry.choices, ", "));
    text +=
        fmt::format("  --{:<40} {}{} [{}]\n", entry.key, entry.help, choices, dump_json(table.value(entry)));
  }
  return text + "\nExample: " + example + "\n";
}

namespace {

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
  fmt::print("{} steps, {} tokens in {}: {:.0f} tokens/s, MFU {:.1f} %\n", result.steps, result.tokens,
             format_duration(result.seconds), result.tokens_per_second, 100 * result.mfu);
  if (std::isfinite(result.valid_loss))
    fmt::print("validation loss {:.4f} (best {:.4f})\n", result.valid_loss, result.best_valid_loss);
  fmt::print("peak memory {} in tensors, {} resident\n", format_bytes(result.peak_tensor_bytes),
             format_bytes(result.peak_resident_bytes));
  if (!result.model_path.empty()) fmt::print("result: {}\n", result.model_path);
  fmt::print("report: {}\n", result.report_path);
}

}  // namespace

void report_run(const TrainResult& result, bool json) {
  constexpr int kInterrupted = 130;
  print_result(result, json);
  if (!result.interrupted) return;
  log_info("stopped at step {}; continue with --resume", result.steps);
  throw CLI::RuntimeError(kInterrupted);
}

}  // namespace qkv
