// The table, and the way between its rows and tokenizer.json. The names and what they mean are facts of the
// GGUF format as llama.cpp reads it; the patterns are those of the models' own tokenizer.json.
#include "qkv/text/gguf_pretokenizers.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qkv/text/patterns.h"
#include "qkv/text/replace.h"

namespace qkv {
namespace {

constexpr int kMaximumDepth = 16;

constexpr std::string_view kDigit = R"(\p{N})";
constexpr std::string_view kDigits = R"(\p{N}+)";
constexpr std::string_view kUpToThreeDigits = R"(\p{N}{1,3})";
constexpr std::string_view kThreeDigits = "[0-9][0-9][0-9]";
constexpr std::string_view kCjk = "[一-龥぀-ゟ゠-ヿ]+";
constexpr std::string_view kCjkAndHangul = "[一-龥ࠀ-一가-퟿]+";
constexpr std::string_view kNewline = "[\r\n]";
constexpr std::string_view kLines = R"([^\n]+|[\n]+)";
constexpr std::string_view kBloom = " ?[^(\\s|.,!?…。，、।۔،)]+";

// Letters with case, as Unicode had them then; escapes where another character looks the same.
constexpr std::string_view kDeepSeekLetters =
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-"
    "ᴫᵫ-"
    "ᵷᵹ-"
    "ᶚḀ-"
    "ἕἘ-"
    "Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1F7Dᾀ-ᾴᾶ-ᾼ\u1FBEῂ-ῄῆ-ῌῐ-\u1FD3ῖ-\u1FDBῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212A-"
    "ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⲲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-"
    "𐓓𐓘-"
    "𐓻𐲀-"
    "𐲲𐳀-"
    "𐳲𑢠-𑣟𞤀-𞥃]+";
constexpr std::string_view kDeepSeekPunctuation = "\\s?[!-/:-~！-／：-～‘-‟　-。]+";
constexpr std::string_view kSpark =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kYoutuScripts =
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+";
// o200k with every digit alone.
constexpr std::string_view kYoutu =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kJais2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})";
constexpr std::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBailing =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoder =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2WithoutContractions =
    R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kMiniCpm5 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kExaoneMoe =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kKimiK2 =
    R"([\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Digits in groups of three from the right.
constexpr std::string_view kAfmoeDigits = R"(\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N})))";
constexpr std::string_view kAfmoeScripts =
    "[一-鿿㐀-䶿\uF900-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-"
    "힯ᄀ-"
    "ᇿ]"
    "+";
constexpr std::string_view kTinyAyaDigits = R"(\d{1,3}(?=(?:\d{3})*\b))";

std::vector<GgufPretokenizer> make_table() {
  const std::vector<std::string_view> gpt2 = {kGpt2Pattern}, llama3 = {kLlama3Pattern},
                                      qwen2 = {kQwen2Pattern}, digits_gpt2 = {kDigit, kGpt2Pattern},
                                      o200k = {kO200kPattern},
                                      deepseek3 = {kUpToThreeDigits, kCjk, kDeepSeekV3Pattern};
  return {
      {.names = {"gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0",
                 "mellum", "modern-bert", "exaone4", "jina-v1-en", "jina-v2-code", "roberta-bpe", "jais",
                 "trillion", "granite-docling"},
       .patterns = gpt2},
      {.names = {"olmo", "mpt"}, .patterns = gpt2, .normalizes_nfc = true},
      {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
                 "jina-v5-nano"},
       .patterns = llama3,
       .ignore_merges = true,
       .add_bos = true},
      {.names = {"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"}, .patterns = llama3},
      {.names = {"qwen2"}, .patterns = qwen2, .normalizes_nfc = true},
      {.names = {"stablelm2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "hunyuan", "solar-open",
                 "grok-2"},
       .patterns = qwen2},
      {.names = {"qwen35"}, .patterns = {kQwen35}},
      {.names = {"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b",
                 "mellum2"},
       .patterns = digits_gpt2},
      {.names = {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, .patterns = o200k},
      {.names = {"granite-embed-multi-97m"}, .patterns = o200k, .ignore_merges = true},
      {.names = {"tekken"}, .patterns = {kTekken}, .ignore_merges = true, .add_bos = true},
      {.names = {"falcon"}, .patterns = {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2Pattern, kThreeDigits}},
      {.names = {"deepseek-llm"},
       .patterns = {kNewline, kDeepSeekLetters, kDeepSeekPunctuation, R"(\s+$)", kCjkAndHangul, kDigits}},
      {.names = {"deepseek-coder"},
       .patterns = {kNewline, R"(\s?\p{L}+)", R"(\s?\p{P}+)", kCjkAndHangul, kDigit}},
      {.names = {"deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"}, .patterns = deepseek3},
      {.names = {"spark2_5"}, .patterns = {kUpToThreeDigits, kCjk, kSpark, kDigit}},
      {.names = {"youtu"}, .patterns = {kYoutuScripts, kYoutu}, .ignore_merges = true},
      {.names = {"bloom", "poro-chat", "gpt3-finnish"}, .patterns = {kBloom}},
      {.names = {"viking"}, .patterns = {kBloom, kDigit}},
      {.names = {"chameleon"},
       .patterns = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", R"(([\t\n]|    |  ))", kDigit,
                    R"([\p{P}!-/:-@\[-`{-~])", kGpt2Pattern},
       .add_bos = true},
      {.names = {"superbpe"}, .patterns = {kDigits, R"((?=(\d{3})+(?!\d)))"}},
      {.names = {"bailingmoe", "bailingmoe2", "llada-moe"}, .patterns = {kBailing}},
      {.names = {"seed-coder"}, .patterns = {kSeedCoder}},
      {.names = {"ufakzeka"}, .patterns = {kQwen2WithoutContractions}},
      {.names = {"jais-2"}, .patterns = {kJais2}},
      {.names = {"minicpm5"}, .patterns = {kUpToThreeDigits, kMiniCpm5}, .ignore_merges = true},
      {.names = {"tiny_aya", "cohere2moe"}, .patterns = {kTinyAyaDigits, kO200kPattern}},
      {.names = {"kimi-k2"}, .patterns = {kKimiK2}},
      {.names = {"afmoe"}, .patterns = {kAfmoeDigits, kAfmoeScripts, kDeepSeekV3Pattern}},
      {.names = {"laguna"}, .patterns = {kLines, kQwen2Pattern}},
      {.names = {"exaone-moe"}, .patterns = {kExaoneMoe}},
      {.names = {"gemma4", "granite-embed-multi-311m"},
       .patterns = {kLines},
       .add_bos = true,
       .marks_spaces = true},
      {.names = {"sarvam-moe"}, .patterns = {kLines}, .marks_spaces = true},
      {.names = {"default"}, .patterns = {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Pattern, kDigits, kThreeDigits}},
  };
}

// Spellings that match the same text, as the table has them.
std::string canonical(std::string pattern) {
  constexpr std::string_view kContractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
  for (const std::string_view spelling : {"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
                                          "(?:'s|'S|'t|'T|'re|'RE|'ve|'VE|'m|'M|'ll|'LL|'d|'D)"}) {
    pattern = replace_all(pattern, spelling, kContractions);
  }
  if (pattern == R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)" ||
      pattern == R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))") {
    return std::string(kGpt2Pattern);
  }
  if (pattern == " ?[^(\\s|[.,!?…。，、।۔،])]+") return std::string(kBloom);
  if (pattern == R"(\p{N}{1})") return std::string(kDigit);
  return pattern;
}

// `spelled`: ByteLevel has been, and nothing may follow it.
bool append_patterns(const Json& json, int depth, bool& spelled, std::vector<std::string>& patterns) {
  if (!json.is_object() || depth > kMaximumDepth || spelled) return false;
  const JsonView view(json, "pre_tokenizer");
  const std::string type = view.string_or("type", "");
  if (type == "Sequence") {
    const Json* list = view.find("pretokenizers");
    return list && std::all_of(list->begin(), list->end(), [&](const Json& item) {
             return append_patterns(item, depth + 1, spelled, patterns);
           });
  }
  if (type == "ByteLevel") {
    if (view.boolean_or("add_prefix_space", true)) return false;
    spelled = true;
    if (view.boolean_or("use_regex", true)) patterns.emplace_back(kGpt2Pattern);
    return true;
  }
  if (type == "Digits") {
    patterns.emplace_back(view.boolean_or("individual_digits", false) ? kDigit : kDigits);
    return true;
  }
  if (type != "Split") return false;
  const std::string behavior = view.string_or("behavior", "");
  const bool invert = view.boolean_or("invert", false);
  const JsonView pattern = view.object("pattern");
  if (!pattern.has("Regex")) return false;
  // Patterns that leave nothing between their matches may as well drop it.
  const std::string regex = canonical(pattern.string("Regex"));
  const bool covers = regex.ends_with(R"(|\s+)");
  if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert && covers)) return false;
  patterns.push_back(regex);
  return true;
}

}  // namespace

const std::vector<GgufPretokenizer>& gguf_pretokenizers() {
  static const std::vector<GgufPretokenizer> table = make_table();
  return table;
}

const GgufPretokenizer* find_gguf_pretokenizer(std::string_view name) {
  for (const auto& row : gguf_pretokenizers()) {
    if (std::find(row.names.begin(), row.names.end(), name) != row.names.end()) return &row;
  }
  return nullptr;
}

std::vector<std::string> gguf_pretokenizer_names() {
  std::vector<std::string> names;
  for (const auto& row : gguf_pretokenizers()) names.insert(names.end(), row.names.begin(), row.names.end());
  return names;
}

Json pretokenizer_json(const GgufPretokenizer& pretokenizer) {
  Json steps = Json::array();
  bool gpt2_last = false;
  for (size_t i = 0; i < pretokenizer.patterns.size(); ++i) {
    gpt2_last = i + 1 == pretokenizer.patterns.size() && pretokenizer.patterns[i] == kGpt2Pattern;
    if (gpt2_last && !pretokenizer.marks_spaces) break;  // ByteLevel cuts by it
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", std::string(pretokenizer.patterns[i])}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  if (!pretokenizer.marks_spaces) {
    steps.push_back({{"type", "ByteLevel"},
                     {"add_prefix_space", false},
                     {"trim_offsets", true},
                     {"use_regex", gpt2_last}});
  }
  if (steps.size() == 1) return steps[0];
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

std::optional<std::vector<std::string>> pretokenizer_patterns(const Json& json) {
  std::vector<std::string> patterns;
  bool spelled = false;
  if (!append_patterns(json, 0, spelled, patterns) || !spelled) return std::nullopt;
  return patterns;
}

}  // namespace qkv
