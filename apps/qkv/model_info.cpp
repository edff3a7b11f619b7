#include "model_info.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "console.h"
#include "qkv/compress/analysis_report.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/progress.h"
#include "qkv/core/utf8.h"
#include "qkv/formats/checkpoint.h"
#include "qkv/formats/content.h"
#include "qkv/formats/qkv_file.h"
#include "qkv/models/checkpoint_tokenizer.h"
#include "qkv/models/registry.h"
#include "qkv/models/tensor_statistics.h"

namespace qkv {
namespace {

constexpr int kHistogramBins = 40;
constexpr const char* kUsualTypes = "q8_0,q6_k,q5_k,q4_k,q3_k,q2_k";
constexpr size_t kShownElements = 8;     // of a list in the metadata
constexpr size_t kShownCharacters = 96;  // of a text in the metadata

// Keys of config.json that say how large the model is, and how people call them.
constexpr std::pair<const char*, const char*> kSizes[] = {
    {"num_hidden_layers", "layers"},
    {"n_layer", "layers"},
    {"n_layers", "layers"},
    {"hidden_size", "channels"},
    {"n_embd", "channels"},
    {"d_model", "channels"},
    {"intermediate_size", "feed-forward"},
    {"num_attention_heads", "heads"},
    {"n_head", "heads"},
    {"n_heads", "heads"},
    {"num_key_value_heads", "key/value heads"},
    {"num_local_experts", "experts"},
    {"n_routed_experts", "experts"},
    {"vocab_size", "vocabulary"},
    {"max_position_embeddings", "context"},
    {"n_positions", "context"},
    {"max_seq_len", "context"},
};

// ---- the parts as JSON ----

Json tokenizer_json(const Tokenizer& tokenizer) {
  Json json;
  json["kind"] = tokenizer.kind();
  json["vocab_size"] = tokenizer.vocab_size();
  if (tokenizer.bos_id()) json["bos"] = tokenizer.id_to_token(*tokenizer.bos_id());
  Json stops = Json::array();
  for (const int32_t id : tokenizer.stop_ids()) stops.push_back(tokenizer.id_to_token(id));
  json["stops"] = std::move(stops);
  json["chat_template"] = tokenizer.chat_template().has_value();
  if (const auto& source = tokenizer.chat_template()) {
    json["chat_template_summary"] = {{"characters", source->size()},
                                     {"tools", source->find("tools") != std::string::npos},
                                     {"system", source->find("system") != std::string::npos}};
  }
  return json;
}

template <typename T>
Json element_json(const T& value) {
  return Json(value);
}
template <>
Json element_json(const std::string& value) {
  return replace_invalid_utf8(value);
}

// Whole, or a list's first elements beside its length and type.
Json metadata_json(const MetadataValue& value) {
  return std::visit(
      [&](const auto& held) -> Json {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return replace_invalid_utf8(held);
        } else if constexpr (std::is_arithmetic_v<T>) {
          return Json(held);
        } else {
          Json first = Json::array();
          for (size_t i = 0; i < std::min(held.size(), kShownElements); ++i) {
            first.push_back(element_json(static_cast<typename T::value_type>(held[i])));
          }
          if (held.size() <= kShownElements) return first;
          return {{"list_of", exact_type_name(value).substr(std::string_view("list of ").size())},
                  {"length", held.size()},
                  {"first", std::move(first)}};
        }
      },
      value);
}

Json histogram_json(const Checkpoint& checkpoint, const std::string& tensor_name) {
  const Tensor tensor = checkpoint.read(tensor_name);
  const TensorStatistics s = tensor_statistics(tensor);
  return {{"tensor", tensor_name},
          {"min", s.minimum},
          {"max", s.maximum},
          {"counts", tensor_histogram(tensor, s.minimum, s.maximum, kHistogramBins)}};
}

// The configuration, and what it says or why there is none.
void add_architecture(const Checkpoint& checkpoint, Json& json) {
  if (const Metadata& metadata = checkpoint.metadata();
      metadata.find_exactly<std::string>("general.architecture") != nullptr) {
    json["gguf_architecture"] = metadata.string("general.architecture");
  }
  if (!has_model_config(checkpoint)) {
    json["architecture_problem"] = "there is no config.json that says what the model is";
    return;
  }
  ModelConfig found;
  try {
    found = model_config(checkpoint);
  } catch (const Error& error) {
    json["architecture_problem"] = error.what();
    return;
  }
  const Json& config = *found.config;
  if (!config.is_object()) return;
  const auto classes = config.find("architectures");
  if (classes != config.end() && classes->is_array() && !classes->empty() && classes->front().is_string()) {
    json["architecture"] = classes->front();
  }
  const auto type = config.find("model_type");
  json["model_type"] = type != config.end() && type->is_string() ? *type : Json("");
  json["implemented"] = find_architecture_or_null(config) != nullptr;
  for (const auto& [key, label] : kSizes) {
    const auto value = config.find(key);
    if (value != config.end() && value->is_number_integer()) json["sizes"][label] = *value;
  }
}

// How a .qkv file is compressed.
void add_codecs(const Checkpoint& checkpoint, Json& json) {
  const auto* file = dynamic_cast<const QkvFile*>(&checkpoint.stored());
  if (file == nullptr) return;
  uint64_t bytes = 0, stored = 0;
  Json codecs = Json::object();
  for (const auto& share : file->codec_shares()) {
    if (share.chunks == 0) continue;
    codecs[share.codec] = {
        {"chunks", share.chunks}, {"bytes", share.bytes}, {"stored_bytes", share.stored_bytes}};
    bytes += share.bytes;
    stored += share.stored_bytes;
  }
  json["storage"] = {{"bytes", bytes}, {"stored_bytes", stored}, {"codecs", std::move(codecs)}};
}

Json model_json(const ModelInfoRequest& request, const Checkpoint* checkpoint) {
  Json json;
  json["path"] = request.path;
  json["format"] = checkpoint->format_name();
  add_architecture(*checkpoint, json);
  struct Total {
    uint64_t tensors = 0, parameters = 0, bytes = 0;
  };
  std::map<std::string, Total> by_type;
  uint64_t parameters = 0;
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
  add_codecs(*checkpoint, json);
  for (const auto& [type, total] : by_type) {
    json["types"][type] = {
        {"tensors", total.tensors}, {"parameters", total.parameters}, {"bytes", total.bytes}};
  }
  for (const auto& [key, value] : checkpoint->metadata().values()) {
    json["metadata"][replace_invalid_utf8(key)] = metadata_json(value);
  }
  std::string problem;
  if (const auto tokenizer = checkpoint_tokenizer(*checkpoint, problem)) {
    json["tokenizer"] = tokenizer_json(*tokenizer);
  } else {
    json["tokenizer_problem"] = problem;
  }
  if (!request.histogram.empty()) json["histogram"] = histogram_json(*checkpoint, request.histogram);
  return json;
}

// ---- as text ----

void line(std::string_view what, const std::string& value) {
  print_out(fmt::format("{:<18} {}\n", what, value));
}

std::string short_count(uint64_t count) {
  const double value = static_cast<double>(count);
  if (count >= 1'000'000'000) return fmt::format("{:.2f} billion", value / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.2f} million", value / 1e6);
  return std::to_string(count);
}

std::string text_of(const Json& json, const char* key) {
  return json[key].get<std::string>();
}

std::string one_line(const Json& value) {
  if (value.is_object()) {
    std::string first = dump_json(value["first"]);
    first.back() = ',';
    return fmt::format("{} ...] ({} of {})", first, value["length"].get<size_t>(), text_of(value, "list_of"));
  }
  if (!value.is_string()) return dump_json(value);
  std::string text = value.get<std::string>();
  const size_t bytes = text.size();
  if (bytes > kShownCharacters)
    text.resize(complete_utf8_prefix(std::string_view(text).substr(0, kShownCharacters)));
  text = shown(text);
  return bytes > kShownCharacters ? fmt::format("{}... ({} bytes)", text, bytes) : text;
}

void print_histogram(const Json& histogram) {
  const auto counts = histogram["counts"].get<std::vector<int64_t>>();
  const int64_t largest = std::max<int64_t>(1, *std::max_element(counts.begin(), counts.end()));
  const double low = histogram["min"].get<double>(), high = histogram["max"].get<double>();
  const double width = (high - low) / static_cast<double>(counts.size());
  print_out(fmt::format("\n{}\n", text_of(histogram, "tensor")));
  for (size_t i = 0; i < counts.size(); ++i) {
    constexpr int64_t kColumns = 60;
    const auto bar = static_cast<size_t>((counts[i] * kColumns + largest - 1) / largest);
    print_out(fmt::format("{:>12.4g} {:<60} {}\n", low + width * (static_cast<double>(i) + 0.5),
                          std::string(bar, '#'), counts[i]));
  }
}

void print_storage(const Json& storage) {
  const auto percent = [](const Json& part) {
    return 100 * part["stored_bytes"].get<double>() / std::max(1.0, part["bytes"].get<double>());
  };
  line("stored as", fmt::format("{} of {}, {:.2f} %", format_bytes(storage["stored_bytes"].get<uint64_t>()),
                                format_bytes(storage["bytes"].get<uint64_t>()), percent(storage)));
  for (const auto& [codec, share] : storage["codecs"].items()) {
    line("  " + codec,
         fmt::format("{} of {} in {} chunks, {:.2f} %", format_bytes(share["stored_bytes"].get<uint64_t>()),
                     format_bytes(share["bytes"].get<uint64_t>()), share["chunks"].get<uint64_t>(),
                     percent(share)));
  }
}

void print_text(const Json& json) {
  line("model", fmt::format("{} ({})", text_of(json, "path"), text_of(json, "format")));
  if (json.contains("model_type")) {
    line("architecture", fmt::format("{}, type {}{}", json.value("architecture", std::string("unnamed")),
                                     text_of(json, "model_type"),
                                     json["implemented"].get<bool>() ? "" : " (not implemented)"));
  }
  if (json.contains("architecture_problem"))
    line("architecture", "unknown: " + text_of(json, "architecture_problem"));
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
  if (json.contains("storage")) print_storage(json["storage"]);
  if (json.contains("tokenizer")) {
    const Json& tokenizer = json["tokenizer"];
    std::string stops;
    for (const auto& stop : tokenizer["stops"]) stops += " " + stop.get<std::string>();
    std::string chat;
    if (tokenizer["chat_template"].get<bool>()) {
      const Json& summary = tokenizer["chat_template_summary"];
      chat = fmt::format("; with a chat template ({} characters{}{})", summary["characters"].get<size_t>(),
                         summary["system"].get<bool>() ? ", system messages" : "",
                         summary["tools"].get<bool>() ? ", tools" : "");
    }
    line("tokenizer",
         fmt::format("{}, {} tokens; ends with{}{}", text_of(tokenizer, "kind"),
                     tokenizer["vocab_size"].get<int>(), stops.empty() ? " nothing" : stops, chat));
  } else {
    line("tokenizer", "none: " + text_of(json, "tokenizer_problem"));
  }
  if (json.contains("metadata")) {
    print_out("metadata\n");
    for (const auto& [key, value] : json["metadata"].items())
      print_out(fmt::format("  {} = {}\n", shown(key), one_line(value)));
  }
  if (json.contains("histogram")) print_histogram(json["histogram"]);
}

}  // namespace

void print_model_info(const ModelInfoRequest& request) {
  const auto checkpoint = open_checkpoint(request.path);
  const TensorInfoRequest& asked = request.analysis;
  const bool errors = !asked.error_types.empty() || !asked.calibrate.empty();
  std::optional<CheckpointAnalysis> analysis;
  if (request.tensors || errors || !request.report.empty()) {
    TensorInfoRequest wanted = asked;
    // Reports and calibration are about what types cost; a list of statistics is quicker without.
    if (wanted.error_types.empty() && (errors || !request.report.empty())) wanted.error_types = kUsualTypes;
    if (wanted.error_types == "none") wanted.error_types.clear();
    analysis = analyze_with_progress(*checkpoint, wanted);
  }
  if (!request.report.empty()) {
    analysis_page("Analysis of " + shown(request.path),
                  fmt::format("{}, {}", checkpoint->format_name(), format_bytes(checkpoint->total_bytes())),
                  *analysis)
        .write(request.report);
  }
  Json json = model_json(request, checkpoint.get());
  if (request.json) {
    if (analysis) json["tensors"] = tensors_json(*analysis);
    if (!request.report.empty()) json["report"] = request.report;
    print_out(dump_json(json) + "\n");
    return;
  }
  print_text(json);
  if (analysis && (request.tensors || request.report.empty())) print_tensors(*analysis);
  if (!request.report.empty()) print_out("report: " + request.report + "\n");
}

}  // namespace qkv
