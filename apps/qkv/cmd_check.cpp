// qkv check FILE [--fix OUT]: integrity and block alignment.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "console.h"
#include "qkv/core/json.h"
#include "qkv/core/progress.h"
#include "qkv/core/utf8.h"
#include "qkv/formats/content.h"
#include "qkv/formats/integrity.h"

namespace qkv {
namespace {

struct CheckCommand {
  std::string path, output;
  bool tensors = false, json = false;
};

Json report_json(const IntegrityReport& report, const CheckCommand& command) {
  Json findings = Json::array();
  for (const auto& finding : report.findings)
    findings.push_back(
        {{"finding", replace_invalid_utf8(finding.sentence)}, {"repairable", finding.repairable}});
  Json json = {{"path", command.path},
               {"format", report.format},
               {"alignment", report.alignment},
               {"file_bytes", report.file_bytes},
               {"tensor_count", report.tensors.size()},
               {"ok", report.ok()},
               {"repairable", report.repairable()},
               {"findings", std::move(findings)}};
  if (!command.tensors) return json;
  Json tensors = Json::array();
  for (const auto& place : report.tensors) {
    tensors.push_back({{"name", replace_invalid_utf8(place.name)},
                       {"type", name(place.type)},
                       {"shape", place.shape.dims()},
                       {"offset", place.offset},
                       {"blocks", place.blocks},
                       {"block_bytes", place.block_bytes},
                       {"bytes", place.bytes},
                       {"gap", place.gap},
                       {"padding", place.padding}});
  }
  json["tensors"] = std::move(tensors);
  return json;
}

void print_tensors(const IntegrityReport& report) {
  size_t width = 6;
  for (const auto& place : report.tensors) width = std::max(width, shown(place.name).size());
  print_out(fmt::format("{:<{}} {:<8} {:>12} {:>12} x {:>5} {:>14} {:>8} {:>8}\n", "tensor", width, "type",
                        "offset", "blocks", "bytes", "bytes", "gap", "padding"));
  for (const auto& place : report.tensors) {
    print_out(fmt::format("{:<{}} {:<8} {:>12} {:>12} x {:>5} {:>14} {:>8} {:>8}\n", shown(place.name), width,
                          name(place.type), place.offset, place.blocks, place.block_bytes, place.bytes,
                          place.gap, place.padding));
  }
}

void check(const CheckCommand& command) {
  const IntegrityReport report = check_integrity(command.path);
  if (!command.output.empty()) repair_layout(command.path, command.output);
  if (command.json) {
    Json json = report_json(report, command);
    if (!command.output.empty()) json["fixed"] = command.output;
    print_out(dump_json(json) + "\n");
  } else {
    if (command.tensors) print_tensors(report);
    for (const auto& finding : report.findings) print_out(finding.sentence + "\n");
    if (!report.format.empty()) {
      print_out(
          fmt::format("{}: {}{}, {} tensors, {}: {}\n", command.path, report.format,
                      report.alignment > 0 ? fmt::format(", aligned to {}", report.alignment) : "",
                      report.tensors.size(), format_bytes(report.file_bytes),
                      report.ok() ? "nothing is wrong" : fmt::format("{} findings", report.findings.size())));
    }
    if (!command.output.empty()) {
      print_out(
          fmt::format("{}: laid out anew; every tensor has the bytes and the dequantized values it had\n",
                      command.output));
    } else if (report.repairable()) {
      print_note("--fix OUT writes the file without these findings; no weight changes");
    }
  }
  if (!report.ok() && command.output.empty()) throw CLI::RuntimeError(1);
}

}  // namespace

void add_check(CLI::App& app) {
  const auto command = std::make_shared<CheckCommand>();
  CLI::App* verb =
      app.add_subcommand("check", "Find what is wrong with a checkpoint file, and repair its layout");
  verb->add_option("FILE", command->path,
                   "A .gguf, .safetensors or .qkv file (others: what their reader checks)")
      ->required();
  verb->add_option(
      "--fix", command->output,
      "Write the file with offsets and padding computed anew. No weight is touched: bytes and dequantized "
      "values are compared before the file appears. Refused where a weight could be lost");
  verb->add_flag("--tensors", command->tensors, "List every tensor's place: blocks, bytes, padding");
  verb->add_flag("--json", command->json, "Print JSON");
  verb->footer(
      "Examples:\n  qkv check model.gguf --tensors\n  qkv check model.gguf --fix mended.gguf\n\nExit code 1 "
      "says that "
      "something is wrong.");
  verb->callback([command] { check(*command); });
}

}  // namespace qkv
