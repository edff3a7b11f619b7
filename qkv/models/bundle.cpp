#include "qkv/models/bundle.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/formats/python_json.h"
#include "qkv/models/checkpoint_tokenizer.h"
#include "qkv/models/registry.h"
#include "qkv/models/score_model.h"

namespace qkv {
namespace {

// Whether one of the adapters is a reward model's.
bool scores(const std::vector<AdapterRequest>& requests) {
  for (const AdapterRequest& request : requests) {
    const std::string path = request.path + "/adapter_config.json";
    if (!std::filesystem::exists(path)) continue;
    const Json config = load_json(path);
    if (JsonView(config, path).string_or("task_type", "") == "SEQ_CLS") return true;
  }
  return false;
}

}  // namespace

Bundle load_bundle(const std::string& path, const LoadOptions& options) {
  const auto checkpoint = open_checkpoint(path);
  const ModelConfig config = model_config(*checkpoint);
  Bundle bundle;
  bundle.path = path;
  bundle.model = options.score || scores(options.adapters) ? make_score_model(*config.config, config.where, !is_score_config(*config.config))
                                                           : make_model(*config.config, config.where);
  load_weights(*bundle.model, *checkpoint, options.residence);
  for (const AdapterRequest& request : options.adapters) {
    bundle.adapters.push_back(Adapter::load(*bundle.model, request.path, request.scale));
  }
  bundle.generation_config = generation_config_of(*checkpoint);

  std::string problem;
  bundle.tokenizer = checkpoint_tokenizer(*checkpoint, problem);
  require(bundle.tokenizer != nullptr || !options.tokenizer_required, "{}", problem);
  if (bundle.tokenizer) {
    require_rows_for(*bundle.tokenizer, bundle.model->info().vocabulary, path);
  }
  return bundle;
}

void save_bundle(const std::string& directory, Model& model, const Tokenizer* tokenizer,
                 const SaveOptions& options) {
  Json config = model.hf_config();
  set_config_type(config, options.type);
  Json generation = Json::object();
  if (tokenizer != nullptr) {
    tokenizer->save(directory);
    set_token_ids(config, *tokenizer);
    set_token_ids(generation, *tokenizer);
  }
  write_file(directory + "/config.json", dump_python_json(config, 2) + "\n");
  save_json(directory + "/generation_config.json", generation);
  save_weights(model, directory, options.type, options.max_shard_bytes);
}

}  // namespace qkv
