#include "qkv/train/checkpoint_state.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/formats/hf_directory.h"
#include "qkv/models/weights.h"
#include "qkv/train/trainer.h"

namespace qkv {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStateFile = "trainer_state.json";
constexpr const char* kOptimizerDirectory = "optimizer";
constexpr const char* kRecipeDirectory = "recipe";

using TensorWalk = std::function<void(const ParameterVisitor& visitor)>;

void write_tensors(const std::string& directory, const TensorWalk& walk) {
  fs::create_directories(directory);
  std::vector<TensorEntry> entries;
  std::unordered_map<std::string, Tensor> by_name;
  walk([&](const std::string& name, Tensor& tensor) {
    entries.push_back({name, tensor.dtype(), tensor.shape()});
    by_name[name] = tensor;
  });
  if (!entries.empty()) write_hf_weights(directory, entries, [&](const TensorEntry& entry) { return by_name.at(entry.name); });
}

// In place: the optimizer holds the parameters' tensors.
void read_tensors(const std::string& directory, const char* what, const TensorWalk& walk) {
  const auto stored = open_checkpoint(directory + "/model.safetensors");
  walk([&](const std::string& name, Tensor& tensor) {
    const Tensor value = stored->read(name);
    require(value.shape() == tensor.shape() && value.dtype() == tensor.dtype(), "{}: {} '{}': expected {}, found {}", directory, what, name,
            describe(tensor), describe(value));
    tensor.copy_from(value);
  });
}

}  // namespace

void save_training_state(const std::string& path, Bundle& bundle, Module* own, Optimizer& optimizer, const TrainerProgress& progress,
                         const Json& recipe_state, const Json& resolved_config) {
  AtomicDirectory target(path);
  if (bundle.adapters.empty()) {
    save_bundle(target.path(), *bundle.model, bundle.tokenizer.get());
  } else {
    bundle.adapters.back()->save_state(target.path());
  }
  write_tensors(target.path() + "/" + kOptimizerDirectory, [&](const ParameterVisitor& visitor) { optimizer.visit_state(visitor); });
  if (own != nullptr) write_tensors(target.path() + "/" + kRecipeDirectory, [&](const ParameterVisitor& visitor) { own->visit("", visitor); });
  Json state = {{"step", progress.step},
                {"tokens", progress.tokens},
                {"best_valid_loss", std::isfinite(progress.best_valid_loss) ? Json(progress.best_valid_loss) : Json(nullptr)},
                {"best_step", progress.best_step},
                {"evaluations_without_gain", progress.evaluations_without_gain},
                {"elapsed_seconds", progress.elapsed_seconds},
                {"optimizer_steps", optimizer.steps()},
                {"optimizer_scalars", optimizer.scalars()},
                {"recipe", recipe_state},
                {"config", resolved_config}};
  save_json(target.path() + "/" + kStateFile, state);
  target.commit();
}

void load_training_state(const std::string& path, Bundle& bundle, Module* own, Optimizer& optimizer, TrainerProgress& progress, Json& recipe_state) {
  const Json json = load_json(path + "/" + kStateFile);
  const JsonView state(json, path + "/" + kStateFile);
  progress.step = state.integer("step");
  progress.tokens = state.integer("tokens");
  progress.best_valid_loss = state.number_or("best_valid_loss", std::numeric_limits<double>::infinity());
  progress.best_step = state.integer("best_step");
  progress.evaluations_without_gain = state.integer_or("evaluations_without_gain", 0);
  progress.elapsed_seconds = state.number("elapsed_seconds");
  recipe_state = state.object("recipe").json();

  // The optimizer holds the parameters' tensors, so their data is replaced in place.
  if (bundle.adapters.empty()) {
    restore_weights(*bundle.model, *open_checkpoint(path));
  } else {
    bundle.adapters.back()->restore_peft(path);
  }
  if (own != nullptr) {
    const auto walk = [&](const ParameterVisitor& visitor) { own->visit("", visitor); };
    read_tensors(path + "/" + kRecipeDirectory, "parameter", walk);
    walk([](const std::string&, Tensor& tensor) { tensor.mark_modified(); });
  }
  std::vector<double> scalars;
  if (const Json* stored = state.find("optimizer_scalars")) scalars = stored->get<std::vector<double>>();
  optimizer.restore(state.integer("optimizer_steps"), scalars);
  if (optimizer.steps() == 0) return;
  read_tensors(path + "/" + kOptimizerDirectory, "optimizer state", [&](const ParameterVisitor& visitor) { optimizer.visit_state(visitor); });
}

std::vector<std::pair<int64_t, std::string>> list_checkpoints(const std::string& output) {
  std::vector<std::pair<int64_t, std::string>> result;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(output + "/checkpoints", ignored)) {
    const std::string name = entry.path().filename().string();
    constexpr std::string_view prefix = "step-";
    if (name.rfind(prefix, 0) != 0 || name.find_first_not_of("0123456789", prefix.size()) != std::string::npos) continue;
    if (!fs::exists(entry.path() / kStateFile)) continue;
    result.emplace_back(std::stoll(name.substr(prefix.size())), entry.path().string());
  }
  std::sort(result.begin(), result.end());
  return result;
}

std::string newest_checkpoint(const std::string& output) {
  const auto all = list_checkpoints(output);
  return all.empty() ? "" : all.back().second;
}

Json checkpoint_config(const std::string& checkpoint) {
  const Json json = load_json(checkpoint + "/" + kStateFile);
  return JsonView(json, checkpoint + "/" + kStateFile).object("config").json();
}

}  // namespace qkv
