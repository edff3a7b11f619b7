// An adapter on a model: which layers it decorates (nn/lora.h), its trained tensors, its files. Modules are
// Hugging Face's: where one is several layers here (GPT-2's fused q, k and v), its A is shared by them and
// its B cut into their rows. Whole modules may be part of an adapter, too: they replace the model's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qkv/models/adapter_config.h"
#include "qkv/models/model.h"
#include "qkv/models/stored_names.h"
#include "qkv/models/weight_map.h"
#include "qkv/nn/layers.h"
#include "qkv/nn/lora.h"

namespace qkv {

// One of our layers in an adapted module.
struct AdapterPart {
  Linear* linear = nullptr;  // the model's
  StoredTensor rows;         // where its outputs lie among the module's
  int64_t outputs = 0;
  Tensor b;          // (outputs, r): lora
  Tensor start_b;    // like b: PiSSA
  Tensor magnitude;  // (outputs): DoRA
  Tensor factors;    // (outputs): ia3 on outputs, vera's lambda_b
};

struct AdapterModule {
  std::string name;  // "model.layers.0.self_attn.q_proj", or in GGUF's naming "blk.0.attn_q"
  bool transposed = false;
  int64_t inputs = 0, outputs = 0;
  int64_t rank = 0;
  double scaling = 1;
  bool of_inputs = false;  // ia3
  Tensor a;                // (r, inputs): lora; (r): vera's lambda_d; (inputs): ia3 on inputs
  Tensor start_a;          // like a: PiSSA
  Tensor gates;            // (r): AdaLoRA
  std::vector<AdapterPart> parts;
};

// A parameter that is trained as a whole ("modules to save").
struct SavedParameter {
  std::string name;             // of the module's tensor: "lm_head.weight"
  Tensor* parameter = nullptr;  // the model's
  Tensor original, trained;     // what it is without the adapter and with it
  StoredTensor place;           // of the parameter in that tensor
};

class Adapter : public Module {
 public:
  // A new adapter that changes nothing yet (LoRA's B is zero), its tensors trainable. Error if no module is a
  // target.
  static std::shared_ptr<Adapter> create(Model& model, const AdapterConfig& config, uint64_t seed);
  // A PEFT directory, or a GGUF file as llama.cpp makes them. Every tensor must be there, of the shape that
  // the configuration and the model give it, and nothing else. Adapters may be loaded one over the other.
  // `scale`: of its effect.
  static std::shared_ptr<Adapter> load(Model& model, const std::string& path, float scale = 1);

  // The trained tensors, "model.layers.0.self_attn.q_proj.lora_A.weight".
  void visit(const std::string& prefix, const ParameterVisitor& visitor) override;
  int64_t parameter_count();
  void set_trainable(bool trainable);
  const AdapterConfig& config() const { return config_; }
  const std::vector<AdapterModule>& modules() const { return modules_; }
  const std::vector<SavedParameter>& saved() const { return saved_; }
  // Without effect, the model is as if it had no adapter: the reference of preference tuning.
  void set_enabled(bool on);
  // Takes effect at once in every layer.
  AdapterControl& control() { return *control_; }

  // Writes adapter_config.json and adapter_model.safetensors (f32) into an existing directory: what load()
  // and PEFT put over the same base. PiSSA's is a LoRA of twice the rank, AdaLoRA's one of as many ranks per
  // module as are left.
  void save_peft(const std::string& directory) const;
  // The same with every tensor as it is, for restore_peft().
  void save_state(const std::string& directory) const;
  // Writes a GGUF adapter for llama.cpp (`model` is the one it was made for). Error unless it is LoRA without
  // DoRA.
  void save_gguf(const std::string& path, Model& model) const;
  // Reads tensors that save_state() wrote into those that are here, which an optimizer holds.
  void restore_peft(const std::string& directory);

 private:
  Adapter() = default;
  // Puts the decorators in place, once all tensors are there.
  void attach();
  // The tensors of the PEFT file, over ours.
  struct FileTensor;
  std::vector<FileTensor> file_tensors() const;
  // Those that hold whole parameters, and PiSSA's and AdaLoRA's own.
  void add_saved_tensors(std::vector<FileTensor>& tensors) const;
  void add_start_tensors(std::vector<FileTensor>& tensors) const;
  void write_tensors(const std::string& directory, std::vector<FileTensor> tensors) const;
  // As plain LoRA: what save_peft() writes of an adapter with a start or gates.
  Adapter plain() const;
  // Finds the parameters of config_.modules_to_save and puts copies in their place.
  void take_saved(Model& model);
  void load_gguf(Model& model, const std::string& path);

  AdapterConfig config_;
  std::vector<AdapterModule> modules_;
  std::vector<SavedParameter> saved_;
  Tensor vera_a_, vera_b_;  // (r, largest inputs), (largest outputs, r)
  std::shared_ptr<AdapterControl> control_ = std::make_shared<AdapterControl>();
};

// The linear layers of a model as modules of the given naming, no adapter's tensors in them yet.
std::vector<AdapterModule> linear_modules(Model& model, Naming naming);

// "PATH" or "PATH=scale", as a command line has it.
struct AdapterRequest {
  std::string path;
  float scale = 1;
};
AdapterRequest parse_adapter_request(const std::string& text);

// Replaces every adapted weight by the dense f32 matrix it amounts to; adapters have no effect any more.
void merge_adapters(Model& model);

}  // namespace qkv
