// qkv info: what a checkpoint holds, and what this machine can do.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "console.h"
#include "model_info.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/parallel.h"
#include "qkv/core/progress.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/gemm.h"
#include "system_probe.h"

namespace qkv {
namespace {

struct InfoCommand {
  ModelInfoRequest model;
  bool system = false;
};

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

void info(const InfoCommand& command) {
  require(command.system != !command.model.path.empty(), "info: expected either MODEL or --system");
  if (command.system) {
    print_system(command.model.json);
  } else {
    print_model_info(command.model);
  }
}

}  // namespace

void add_info(CLI::App& app) {
  const auto command = std::make_shared<InfoCommand>();
  CLI::App* verb = app.add_subcommand("info", "See what a checkpoint holds, or what this machine can do");
  verb->add_option("MODEL", command->model.path,
                   "A Hugging Face directory or a .gguf, .qkv, .safetensors, .pt or llama2.c file");
  verb->add_flag("--system", command->system, "Describe and measure this machine (about two seconds)");
  verb->add_flag(
      "--tensors", command->model.tensors,
      "List every tensor with statistics of its values and the entropy of its codes (reads the whole file)");
  TensorInfoRequest& analysis = command->model.analysis;
  verb->add_option(
          "--error-types", analysis.error_types,
          "Also what rounding to these costs each matrix: block types, bf16, f16, fp8, f8_e5m2, nf4, "
          "int8, int4; none (default with --report or --calibrate: q8_0,q6_k,q5_k,q4_k,q3_k,q2_k)")
      ->type_name("TYPE,...");
  verb->add_option("--calibrate", analysis.calibrate,
                   "A text: also the layers' inputs, and what rounding does to their outputs")
      ->type_name("FILE");
  verb->add_option("--calibrate-context", analysis.calibration.context, "Tokens per calibration sequence")
      ->check(CLI::PositiveNumber);
  verb->add_option("--calibrate-sequences", analysis.calibration.sequences,
                   "At most so many sequences, spread over the text")
      ->check(CLI::PositiveNumber);
  verb->add_option("--report", command->model.report,
                   "Write all this as one HTML page: heat maps by layer and role, and a row for every tensor")
      ->type_name("OUT.html");
  verb->add_option("--histogram", command->model.histogram,
                   "Draw how the values of this tensor are distributed")
      ->type_name("TENSOR");
  verb->add_flag("--json", command->model.json, "Print JSON");
  verb->footer(
      "Examples:\n  qkv info my-model --tensors\n  qkv info my-model --calibrate text.txt --report "
      "model.html\n"
      "  qkv info model.gguf --tensors --error-types q4_k,nf4,fp8\n  qkv info --system");
  verb->callback([command] { info(*command); });
}

}  // namespace qkv
