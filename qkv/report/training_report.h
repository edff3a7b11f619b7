// What a training run did, as a page: read from the `metrics.jsonl` the trainer appends to, or filled in by
// the caller.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "qkv/core/json.h"

namespace qkv {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

// Numbers that were not recorded are kUnknown (NaN).
struct TrainPoint {
  int64_t step = 0;
  int64_t tokens = 0;      // seen since the run began
  double loss = kUnknown;  // mean over the step's target tokens, nats
  double learning_rate = kUnknown;
  double grad_norm = kUnknown;  // before clipping
  double tokens_per_second = kUnknown;
  double mfu = kUnknown;  // model FLOPs utilization, 0 to 1
  double memory_bytes = kUnknown;
  double elapsed_seconds = kUnknown;  // since the run began, not counting the time between stop and resume
};

struct EvalPoint {
  int64_t step = 0;
  int64_t tokens = 0;
  double loss = kUnknown;
  double perplexity = kUnknown;
  bool best = false;
};

struct RunEvent {
  int64_t step = 0;
  std::string text{};
};

struct CheckpointEntry {
  int64_t step = 0;
  std::string path{};
  double bytes = kUnknown;
  double loss = kUnknown;  // validation loss there
  bool best = false;
};

struct GeneratedSample {
  int64_t step = 0;
  std::string prompt{};
  std::string text{};  // what followed the prompt
};

struct TrainingReport {
  std::string title = "Training run";
  std::string subtitle{};
  std::vector<std::pair<std::string, std::string>> model{};
  std::shared_ptr<const Json> config{};  // resolved; may be null
  std::vector<TrainPoint> train{};
  std::vector<EvalPoint> eval{};
  std::vector<RunEvent> events{};
  std::vector<CheckpointEntry> checkpoints{};
  std::vector<std::pair<std::string, std::string>> final_numbers{};
  std::vector<GeneratedSample> samples{};
  // Records of steps that were trained again after a resume; only the later ones are in `train` and `eval`.
  int64_t replaced_records = 0;
};

// Fills train, eval and events from a metrics file: one JSON object a line, told apart by "kind".
//   {"kind": "train", "step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "mfu",
//   "memory_bytes", "elapsed_seconds"}
//   {"kind": "eval", "step", "tokens", "loss", "perplexity", "best"}
//   {"kind": "event", "step", "text"}
// null stands for a number that is unknown or not finite; "step" must be there, and "loss" in the first two;
// other kinds and keys are ignored, and so are empty lines. A step that is not larger than the one before (a
// resumed run) replaces the earlier records from that step on, and an elapsed time that starts again is added
// to what went before. A last line that a crash cut short (no line end, not valid JSON) is ignored; any other
// malformed line throws Error `<file>:<line>: ...`.
TrainingReport read_metrics(const std::string& metrics_jsonl);

// Writes the page. Throws Error naming the path.
void write_training_report(const std::string& path, const TrainingReport& report);
// The page itself.
std::string training_report_html(const TrainingReport& report);

// A run to compare: its name in the legend and its metrics file.
struct NamedRun {
  std::string name{};
  std::string metrics{};
};

// Several runs in one page: losses by tokens (by step where tokens were not recorded) and by wall time,
// differences from the first run at the steps both have, speed and memory. Throws Error without a run, or as
// read_metrics() does.
void write_comparison_report(const std::string& path, const std::vector<NamedRun>& runs);

}  // namespace qkv
