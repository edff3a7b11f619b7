#include "qkv/models/bundle.h"

#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/models/checkpoint_tokenizer.h"
#include "qkv/models/registry.h"

namespace qkv {

Bundle load_bundle(const std::string& path, const LoadOptions& options) {
  const auto checkpoint = open_checkpoint(path);
  const ModelConfig config = model_config(*checkpoint);
  Bundle bundle;
  bundle.path = path;
  bundle.model = make_model(*config.config, config.where);
  load_weights(*bundle.model, *checkpoint, options.residence);
  bundle.generation_config = generation_config_of(*checkpoint);

  std::string problem;
  bundle.tokenizer = checkpoint_tokenizer(*checkpoint, problem);
  require(bundle.tokenizer != nullptr || !options.tokenizer_required, "{}", problem);
  if (bundle.tokenizer) {
    require(bundle.tokenizer->vocab_size() <= bundle.model->info().vocabulary,
            "{}: the tokenizer has {} ids but the embedding only {} rows", path,
            bundle.tokenizer->vocab_size(), bundle.model->info().vocabulary);
  }
  return bundle;
}

void save_bundle(const std::string& directory, Model& model, const Tokenizer* tokenizer,
                 const SaveOptions& options) {
  Json config = model.hf_config();
  config["torch_dtype"] = options.type == DType::f32    ? "float32"
                          : options.type == DType::bf16 ? "bfloat16"
                                                        : "float16";
  Json generation = Json::object();
  if (tokenizer != nullptr) {
    tokenizer->save(directory);
    // The tokenizer is the authority on the ids that begin and end a text.
    for (Json* json : {&config, &generation}) {
      (*json)["bos_token_id"] = tokenizer->bos_id() ? Json(*tokenizer->bos_id()) : Json(nullptr);
      if (tokenizer->stop_ids().size() > 1) {
        (*json)["eos_token_id"] = tokenizer->stop_ids();
      } else {
        (*json)["eos_token_id"] = tokenizer->eos_id() ? Json(*tokenizer->eos_id()) : Json(nullptr);
      }
    }
  }
  save_json(directory + "/config.json", config);
  save_json(directory + "/generation_config.json", generation);
  save_weights(model, directory, options.type, options.max_shard_bytes);
}

}  // namespace qkv
