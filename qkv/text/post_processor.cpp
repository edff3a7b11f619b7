// TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel and sequences of them.
#include "qkv/text/post_processor.h"

#include <nlohmann/json.hpp>

#include "qkv/core/error.h"

namespace qkv {
namespace {

constexpr int kMaximumDepth = 16;

int32_t checked_id(const Json& value, const std::string& where) {
  require(value.is_number_integer() && value.get<int64_t>() >= 0 && value.get<int64_t>() <= INT32_MAX,
          "{}: expected a token id, found {}", where, dump_json(value).substr(0, 80));
  return value.get<int32_t>();
}

SpecialFrame parse_template(const JsonView& view, const std::string& where) {
  SpecialFrame frame;
  const Json* pieces = view.find("single");
  require(pieces && pieces->is_array(), "{}: TemplateProcessing: expected a list 'single'", where);
  bool after_text = false;
  for (const auto& piece : *pieces) {
    const JsonView item(piece, where + ": single");
    if (item.has("Sequence")) {
      require(!after_text, "{}: TemplateProcessing: expected one Sequence in 'single', found a second",
              where);
      after_text = true;
      continue;
    }
    const std::string name = item.object("SpecialToken").string("id");
    const JsonView token = view.object("special_tokens").object(name);
    const Json* ids = token.find("ids");
    require(ids && ids->is_array(), "{}: TemplateProcessing: special token '{}': expected a list 'ids'",
            where, name);
    for (const auto& id : *ids) (after_text ? frame.suffix : frame.prefix).push_back(checked_id(id, where));
  }
  require(after_text, "{}: TemplateProcessing: expected a Sequence in 'single', found none", where);
  return frame;
}

// ["[SEP]", 102]
int32_t pair_id(const JsonView& view, std::string_view key, const std::string& where) {
  const Json* value = view.find(key);
  require(value && value->is_array() && value->size() == 2, "{}: key '{}': expected [token, id]", where, key);
  return checked_id((*value)[1], where);
}

SpecialFrame parse(const Json& json, const std::string& where, int depth) {
  require(depth < kMaximumDepth, "{}: nested deeper than {} levels", where, kMaximumDepth);
  const JsonView view(json, where);
  const std::string type = view.string("type");
  if (type == "TemplateProcessing") return parse_template(view, where);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    return {{pair_id(view, "cls", where)}, {pair_id(view, "sep", where)}};
  }
  if (type == "ByteLevel") return {};  // moves offsets only
  require(type == "Sequence",
          "{}: type: expected Sequence, TemplateProcessing, BertProcessing, RobertaProcessing or ByteLevel, "
          "found '{}'",
          where, type);
  const Json* list = view.find("processors");
  require(list && list->is_array(), "{}: Sequence: expected a list 'processors'", where);
  SpecialFrame frame;
  for (const auto& item : *list) {
    const SpecialFrame outer = parse(item, where, depth + 1);
    frame.prefix.insert(frame.prefix.begin(), outer.prefix.begin(), outer.prefix.end());
    frame.suffix.insert(frame.suffix.end(), outer.suffix.begin(), outer.suffix.end());
  }
  return frame;
}

}  // namespace

SpecialFrame parse_post_processor(const Json& json, const std::string& where) {
  return json.is_null() ? SpecialFrame{} : parse(json, where + ": post_processor", 0);
}

Json make_post_processor(const SpecialFrame& frame, const std::function<std::string(int32_t)>& spelling) {
  if (frame.prefix.empty() && frame.suffix.empty()) return nullptr;
  Json special = Json::object();
  const auto pieces_for = [&](const char* sequence, int type_id, bool with_prefix) {
    Json pieces = Json::array();
    const auto add = [&](int32_t id) {
      const std::string name = spelling(id);
      pieces.push_back({{"SpecialToken", {{"id", name}, {"type_id", type_id}}}});
      special[name] = {{"id", name}, {"ids", Json::array({id})}, {"tokens", Json::array({name})}};
    };
    if (with_prefix) {
      for (const int32_t id : frame.prefix) add(id);
    }
    pieces.push_back({{"Sequence", {{"id", sequence}, {"type_id", type_id}}}});
    for (const int32_t id : frame.suffix) add(id);
    return pieces;
  };
  Json single = pieces_for("A", 0, true);
  Json pair = single;
  for (auto& piece : pieces_for("B", 1, true)) pair.push_back(piece);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

}  // namespace qkv
