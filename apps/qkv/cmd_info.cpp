// qkv info: what a checkpoint holds, and what this machine can do.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "console.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/parallel.h"
#include "qkv/core/progress.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/gemm.h"
#include "qkv/text/tokenizer.h"
#include "system_probe.h"

namespace qkv {
namespace {

struct InfoCommand {
  std::string model;
  bool system = false, tensors = false, json = false;
};

// ---- the machine ----

Json system_json() {
  const SystemMemory memory = system_memory();
  Json json;
  json["cpu"] = cpu_features().model;
  json["features"] = cpu_features().names();
  Json sets = Json::array();
  for (const Isa isa : available_isas()) sets.push_back(isa_name(isa));
  json["instruction_sets"] = std::move(sets);
  json["active_instruction_set"] = isa_name(active_isa());
  json["threads"] = num_threads();
  json["memory_bytes"] = memory.total;
  json["available_bytes"] = memory.available;
  json["gemm_library"] = gemm_library();
  json["bf16_products"] = bf16_products_are_native() ? "native" : "widened to f32";
  json["read_bandwidth"] = measure_read_bandwidth();
  json["f32_peak"] = measure_f32_peak();
  json["bf16_product_rate"] = measure_bf16_product();
  json["int8_peak"] = measure_int8_peak();
  return json;
}

std::string join(const Json& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : " ") + name.get<std::string>();
  return text;
}

void print_system(bool as_json) {
  const Json json = system_json();
  if (as_json) {
    print_out(dump_json(json) + "\n");
    return;
  }
  const auto line = [](const char* what, const std::string& value) {
    print_out(fmt::format("{:<22} {}\n", what, value));
  };
  const auto giga = [&](const char* key, const char* unit) {
    const double value = json[key].get<double>();
    return value >= 1e12 ? fmt::format("{:.2f} T{}", value / 1e12, unit)
                         : fmt::format("{:.1f} G{}", value / 1e9, unit);
  };
  line("processor", json["cpu"].get<std::string>());
  line("features", join(json["features"]));
  line("instruction sets",
       join(json["instruction_sets"]) + ", using " + json["active_instruction_set"].get<std::string>());
  line("threads", std::to_string(json["threads"].get<int>()));
  line("memory", fmt::format("{}, {} available", format_bytes(json["memory_bytes"].get<uint64_t>()),
                             format_bytes(json["available_bytes"].get<uint64_t>())));
  line("matrix products",
       json["gemm_library"].get<std::string>() + ", bf16 " + json["bf16_products"].get<std::string>());
  line("read bandwidth", giga("read_bandwidth", "B/s"));
  line("f32 multiply-adds", giga("f32_peak", "FLOP/s"));
  line("bf16 matrix product", giga("bf16_product_rate", "FLOP/s"));
  line("int8 dot products", giga("int8_peak", "OP/s"));
}

// ---- a model ----

// Keys of config.json that say how large the model is, and how people call them.
constexpr std::pair<const char*, const char*> kSizes[] = {
    {"num_hidden_layers", "layers"},
    {"hidden_size", "channels"},
    {"intermediate_size", "feed-forward"},
    {"num_attention_heads", "heads"},
    {"num_key_value_heads", "key/value heads"},
    {"vocab_size", "vocabulary"},
    {"max_position_embeddings", "context"},
};

std::shared_ptr<const Tokenizer> find_tokenizer(const std::string& path, std::string& problem) {
  const std::filesystem::path where(path);
  const std::string directory = std::filesystem::is_directory(where) ? path : where.parent_path().string();
  try {
    return load_tokenizer(directory.empty() ? "." : directory);
  } catch (const Error& error) {
    problem = error.what();
    return nullptr;
  }
}

Json tokenizer_json(const Tokenizer& tokenizer) {
  Json json;
  json["kind"] = tokenizer.kind();
  json["vocab_size"] = tokenizer.vocab_size();
  if (tokenizer.bos_id()) json["bos"] = tokenizer.id_to_token(*tokenizer.bos_id());
  Json stops = Json::array();
  for (const int32_t id : tokenizer.stop_ids()) stops.push_back(tokenizer.id_to_token(id));
  json["stops"] = std::move(stops);
  json["chat_template"] = tokenizer.chat_template().has_value();
  return json;
}

Json model_json(const InfoCommand& command) {
  const auto checkpoint = open_checkpoint(command.model);
  Json json;
  json["path"] = command.model;
  json["format"] = checkpoint->format_name();
  if (const Json* config = checkpoint->config(); config != nullptr && config->is_object()) {
    const auto architectures = config->find("architectures");
    if (architectures != config->end() && architectures->is_array() && !architectures->empty() &&
        architectures->front().is_string()) {
      json["architecture"] = architectures->front();
    }
    json["model_type"] = JsonView(*config, command.model + "/config.json").string_or("model_type", "");
    for (const auto& [key, label] : kSizes) {
      const auto value = config->find(key);
      if (value != config->end() && value->is_number_integer()) json["sizes"][label] = *value;
    }
  }
  uint64_t parameters = 0;
  struct Total {
    uint64_t tensors = 0, parameters = 0, bytes = 0;
  };
  std::map<std::string, Total> by_type;
  for (const TensorEntry& entry : checkpoint->entries()) {
    const auto elements = static_cast<uint64_t>(entry.shape.elements());
    parameters += elements;
    Total& total = by_type[std::string(name(entry.type))];
    ++total.tensors;
    total.parameters += elements;
    total.bytes += entry.bytes;
  }
  json["parameters"] = parameters;
  json["bytes"] = checkpoint->total_bytes();
  json["tensor_count"] = checkpoint->entries().size();
  for (const auto& [type, total] : by_type) {
    json["types"][type] = {
        {"tensors", total.tensors}, {"parameters", total.parameters}, {"bytes", total.bytes}};
  }
  std::string problem;
  if (const auto tokenizer = find_tokenizer(command.model, problem)) {
    json["tokenizer"] = tokenizer_json(*tokenizer);
  } else {
    json["tokenizer_problem"] = problem;
  }
  if (command.tensors) {
    Json tensors = Json::array();
    for (const TensorEntry& entry : checkpoint->entries()) {
      Json shape = Json::array();
      for (int i = 0; i < entry.shape.rank(); ++i) shape.push_back(entry.shape[i]);
      tensors.push_back({{"name", entry.name},
                         {"type", name(entry.type)},
                         {"shape", std::move(shape)},
                         {"bytes", entry.bytes}});
    }
    json["tensors"] = std::move(tensors);
  }
  return json;
}

std::string short_count(uint64_t count) {
  const double value = static_cast<double>(count);
  if (count >= 1'000'000'000) return fmt::format("{:.2f} billion", value / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.2f} million", value / 1e6);
  return std::to_string(count);
}

void print_model(const InfoCommand& command) {
  const Json json = model_json(command);
  if (command.json) {
    print_out(dump_json(json) + "\n");
    return;
  }
  const auto line = [](std::string_view what, const std::string& value) {
    print_out(fmt::format("{:<18} {}\n", what, value));
  };
  line("model", json["path"].get<std::string>() + " (" + json["format"].get<std::string>() + ")");
  if (json.contains("model_type")) {
    line("architecture", json.value("architecture", std::string("unnamed")) + ", type " +
                             json["model_type"].get<std::string>());
  }
  if (json.contains("sizes")) {
    for (const auto& [label, value] : json["sizes"].items()) line(label, value.dump());
  }
  line("parameters",
       fmt::format("{} in {} tensors, {}", short_count(json["parameters"].get<uint64_t>()),
                   json["tensor_count"].get<uint64_t>(), format_bytes(json["bytes"].get<uint64_t>())));
  if (json.contains("types")) {
    for (const auto& [type, total] : json["types"].items()) {
      line("  " + type,
           fmt::format("{} in {} tensors, {}", short_count(total["parameters"].get<uint64_t>()),
                       total["tensors"].get<uint64_t>(), format_bytes(total["bytes"].get<uint64_t>())));
    }
  }
  if (json.contains("tokenizer")) {
    const Json& tokenizer = json["tokenizer"];
    line("tokenizer", fmt::format("{}, {} tokens; ends with {}{}", tokenizer["kind"].get<std::string>(),
                                  tokenizer["vocab_size"].get<int>(),
                                  tokenizer["stops"].empty() ? "nothing" : join(tokenizer["stops"]),
                                  tokenizer["chat_template"].get<bool>() ? "; with a chat template" : ""));
  } else {
    line("tokenizer", "none: " + json["tokenizer_problem"].get<std::string>());
  }
  if (!json.contains("tensors")) return;
  print_out("\n");
  for (const Json& tensor : json["tensors"]) {
    print_out(fmt::format("{:<56} {:<6} {:<18} {:>10}\n", tensor["name"].get<std::string>(),
                          tensor["type"].get<std::string>(), tensor["shape"].dump(),
                          format_bytes(tensor["bytes"].get<uint64_t>())));
  }
}

void info(const InfoCommand& command) {
  require(command.system != !command.model.empty(), "info: expected either MODEL or --system");
  if (command.system) {
    print_system(command.json);
  } else {
    print_model(command);
  }
}

}  // namespace

void add_info(CLI::App& app) {
  const auto command = std::make_shared<InfoCommand>();
  CLI::App* verb = app.add_subcommand("info", "See what a checkpoint holds, or what this machine can do");
  verb->add_option("MODEL", command->model, "A Hugging Face directory or a .safetensors file");
  verb->add_flag("--system", command->system, "Describe and measure this machine (about two seconds)");
  verb->add_flag("--tensors", command->tensors, "List every tensor");
  verb->add_flag("--json", command->json, "Print JSON");
  verb->footer("Examples:\n  qkv info my-model --tensors\n  qkv info --system");
  verb->callback([command] { info(*command); });
}

}  // namespace qkv
