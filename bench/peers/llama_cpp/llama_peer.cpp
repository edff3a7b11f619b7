// llama.cpp as a peer: a small program on its C API, so that the same file, tokens and threads can be timed
// and compared side by side with ours. Built by scripts/install-peers against the shared libraries of npm's
// @node-llama-cpp/linux-x64 and the headers that node-llama-cpp bundles. Every command prints one line of
// JSON.
//
//   llama-peer generate MODEL --ids 1,2,3 [--tokens 16]     greedy ids; milliseconds to load and to the first
//   token llama-peer logits MODEL --ids 1,2,3 --out FILE           raw f32 (tokens, vocabulary): no flash
//   attention, f32 cache llama-peer embed MODEL --ids 1,2,3 --out FILE            raw f32 (channels): pooled
//   as the file says llama-peer tokenize MODEL --text FILE                    ids llama-peer bench MODEL
//   [--prompt 512] [--tokens 64] [--depth 0] [--sequences 1] [--repeat 3] llama-peer quantize IN OUT TYPE
//   [--pure] [--imatrix FILE]   TYPE as llama.cpp numbers its file types (2: Q4_0, 15: Q4_K_M)
// Everywhere: --threads N (2), --flash on|off|auto, --no-repack.
#include <ggml-backend.h>
#include <ggml.h>
#include <llama.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

[[noreturn]] void fail(const std::string& sentence) {
  std::fprintf(stderr, "llama-peer: %s\n", sentence.c_str());
  std::exit(2);
}

struct Arguments {
  std::vector<std::string> words;
  std::map<std::string, std::string> flags;

  Arguments(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string word = argv[i];
      if (word.rfind("--", 0) != 0) {
        words.push_back(word);
      } else if (word == "--pure" || word == "--no-repack") {
        flags[word.substr(2)] = "1";
      } else {
        if (i + 1 == argc) fail("expected a value after " + word);
        flags[word.substr(2)] = argv[++i];
      }
    }
  }
  std::string text(const std::string& name, const std::string& fallback = "") const {
    const auto it = flags.find(name);
    return it == flags.end() ? fallback : it->second;
  }
  int number(const std::string& name, int fallback) const {
    return flags.count(name) > 0 ? std::stoi(flags.at(name)) : fallback;
  }
  std::vector<llama_token> ids() const {
    std::vector<llama_token> result;
    const std::string list = text("ids");
    for (size_t begin = 0; begin < list.size();) {
      const size_t end = std::min(list.find(',', begin), list.size());
      result.push_back(std::stoi(list.substr(begin, end - begin)));
      begin = end + 1;
    }
    if (result.empty()) fail("expected --ids 1,2,3");
    return result;
  }
};

llama_model* load_model(const Arguments& arguments) {
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  params.use_extra_bufts = arguments.flags.count("no-repack") == 0;
  llama_model* model = llama_model_load_from_file(arguments.words.at(1).c_str(), params);
  if (model == nullptr) fail("llama.cpp cannot load " + arguments.words.at(1));
  return model;
}

llama_context* make_context(llama_model* model, const Arguments& arguments, int context, int sequences,
                            bool exact) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(context);
  params.n_batch = static_cast<uint32_t>(std::max(512, context));
  params.n_ubatch = exact ? params.n_batch : 512;
  params.n_seq_max = static_cast<uint32_t>(sequences);
  params.n_threads = params.n_threads_batch = arguments.number("threads", 2);
  const std::string flash = arguments.text("flash", exact ? "off" : "auto");
  params.flash_attn_type = flash == "on"    ? LLAMA_FLASH_ATTN_TYPE_ENABLED
                           : flash == "off" ? LLAMA_FLASH_ATTN_TYPE_DISABLED
                                            : LLAMA_FLASH_ATTN_TYPE_AUTO;
  if (exact) params.type_k = params.type_v = GGML_TYPE_F32;
  llama_context* created = llama_init_from_model(model, params);
  if (created == nullptr) fail("llama.cpp cannot make a context of " + std::to_string(context) + " tokens");
  return created;
}

// Adds `n` tokens at positions from `position` to sequences 0 .. sequences - 1; logits for the last of each,
// or for all.
void decode(llama_context* context, const llama_token* tokens, int n, int position, int sequences,
            bool all_logits) {
  llama_batch batch = llama_batch_init(n * sequences, 0, 1);
  for (int s = 0; s < sequences; ++s) {
    for (int i = 0; i < n; ++i) {
      const int at = batch.n_tokens++;
      batch.token[at] = tokens[i];
      batch.pos[at] = position + i;
      batch.n_seq_id[at] = 1;
      batch.seq_id[at][0] = s;
      batch.logits[at] = static_cast<int8_t>(all_logits || i + 1 == n);
    }
  }
  const int status = llama_decode(context, batch);
  if (status != 0) fail("llama_decode returned " + std::to_string(status));
  llama_batch_free(batch);
}

void write_floats(const std::string& path, const float* data, size_t n) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(n * sizeof(float)));
  if (!file) fail("cannot write " + path);
}

int generate(const Arguments& arguments) {
  const auto start = Clock::now();
  llama_model* model = load_model(arguments);
  std::vector<llama_token> tokens = arguments.ids();
  const int wanted = arguments.number("tokens", 16),
            vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
  const bool exact = arguments.text("flash", "off") == "off";
  llama_context* context = make_context(model, arguments, static_cast<int>(tokens.size()) + wanted, 1, exact);
  const double load = milliseconds_since(start);
  decode(context, tokens.data(), static_cast<int>(tokens.size()), 0, 1, false);
  double first = 0;
  std::string list;
  for (int i = 0; i < wanted; ++i) {
    const float* logits = llama_get_logits_ith(context, -1);
    llama_token next = static_cast<llama_token>(std::max_element(logits, logits + vocabulary) - logits);
    if (i == 0) first = milliseconds_since(start);
    list += (i > 0 ? "," : "") + std::to_string(next);
    if (i + 1 < wanted) decode(context, &next, 1, static_cast<int>(tokens.size()) + i, 1, false);
  }
  std::printf("{\"tokens\":[%s],\"load_ms\":%.3f,\"first_token_ms\":%.3f}\n", list.c_str(), load, first);
  return 0;
}

int logits(const Arguments& arguments) {
  llama_model* model = load_model(arguments);
  const std::vector<llama_token> tokens = arguments.ids();
  const int n = static_cast<int>(tokens.size()),
            vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
  llama_context* context = make_context(model, arguments, n + 1, 1, true);
  decode(context, tokens.data(), n, 0, 1, true);
  write_floats(arguments.text("out"), llama_get_logits(context),
               static_cast<size_t>(n) * static_cast<size_t>(vocabulary));
  std::printf("{\"rows\":%d,\"vocabulary\":%d}\n", n, vocabulary);
  return 0;
}

int embed(const Arguments& arguments) {
  llama_model* model = load_model(arguments);
  const std::vector<llama_token> tokens = arguments.ids();
  const int n = static_cast<int>(tokens.size()), channels = llama_model_n_embd(model);
  llama_context* context = make_context(model, arguments, n + 1, 1, true);
  llama_set_embeddings(context, true);
  decode(context, tokens.data(), n, 0, 1, true);
  const float* data = llama_get_embeddings_seq(context, 0);
  if (data == nullptr) data = llama_get_embeddings_ith(context, n - 1);
  write_floats(arguments.text("out"), data, static_cast<size_t>(channels));
  std::printf("{\"channels\":%d}\n", channels);
  return 0;
}

int tokenize(const Arguments& arguments) {
  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  llama_model* model = llama_model_load_from_file(arguments.words.at(1).c_str(), params);
  if (model == nullptr) fail("llama.cpp cannot load " + arguments.words.at(1));
  std::ifstream file(arguments.text("text"), std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<llama_token> ids(text.size() + 8);
  const int n = llama_tokenize(llama_model_get_vocab(model), text.data(), static_cast<int32_t>(text.size()),
                               ids.data(), static_cast<int32_t>(ids.size()), true, true);
  if (n < 0) fail("llama_tokenize returned " + std::to_string(n));
  std::string list;
  for (int i = 0; i < n; ++i) list += (i > 0 ? "," : "") + std::to_string(ids[static_cast<size_t>(i)]);
  std::printf("{\"tokens\":[%s]}\n", list.c_str());
  return 0;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int bench(const Arguments& arguments) {
  llama_model* model = load_model(arguments);
  const int prompt = arguments.number("prompt", 512), tokens = arguments.number("tokens", 64),
            depth = arguments.number("depth", 0);
  const int sequences = arguments.number("sequences", 1), repeat = arguments.number("repeat", 3);
  const int per_sequence = std::max(prompt, depth + tokens) + 8;
  llama_context* context = make_context(model, arguments, per_sequence * sequences, sequences, false);
  const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
  std::vector<llama_token> ids(static_cast<size_t>(per_sequence));
  for (size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<llama_token>((i * 7919 + 13) % static_cast<size_t>(vocabulary));
  std::vector<double> prefill, decoding;
  for (int r = 0; r <= repeat; ++r) {  // the first round warms up
    if (prompt > 0) {
      llama_memory_clear(llama_get_memory(context), true);
      const auto start = Clock::now();
      decode(context, ids.data(), prompt, 0, 1, false);
      if (r > 0) prefill.push_back(prompt / (milliseconds_since(start) / 1000));
    }
    if (tokens > 0) {
      llama_memory_clear(llama_get_memory(context), true);
      for (int done = 0; done < depth; done += 256)
        decode(context, ids.data() + done, std::min(256, depth - done), done, sequences, false);
      const auto start = Clock::now();
      for (int i = 0; i < tokens; ++i)
        decode(context, ids.data() + depth + i, 1, depth + i, sequences, false);
      if (r > 0) decoding.push_back(tokens * sequences / (milliseconds_since(start) / 1000));
    }
  }
  std::printf("{\"prefill_rate\":%.3f,\"decode_rate\":%.3f}\n", prefill.empty() ? 0 : median(prefill),
              decoding.empty() ? 0 : median(decoding));
  return 0;
}

// The older importance file: int32 entries, then per entry a name, int32 calls, int32 values, floats. Values
// are sums over calls.
std::map<std::string, std::vector<float>> read_imatrix(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const auto number = [&] {
    int32_t value = 0;
    file.read(reinterpret_cast<char*>(&value), sizeof value);
    if (!file) fail("the importance file " + path + " is cut short");
    return value;
  };
  std::map<std::string, std::vector<float>> entries;
  for (int i = number(); i > 0; --i) {
    std::string name(static_cast<size_t>(number()), ' ');
    file.read(name.data(), static_cast<std::streamsize>(name.size()));
    const int calls = number();
    std::vector<float> values(static_cast<size_t>(number()));
    file.read(reinterpret_cast<char*>(values.data()),
              static_cast<std::streamsize>(values.size() * sizeof(float)));
    if (calls > 0) {
      for (float& value : values) value /= static_cast<float>(calls);
    }
    entries[name] = std::move(values);
  }
  return entries;
}

int quantize(const Arguments& arguments) {
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.nthread = arguments.number("threads", 2);
  params.ftype = static_cast<llama_ftype>(std::stoi(arguments.words.at(3)));
  params.allow_requantize = true;
  params.pure = arguments.flags.count("pure") > 0;
  const auto importance = arguments.text("imatrix").empty() ? std::map<std::string, std::vector<float>>{}
                                                            : read_imatrix(arguments.text("imatrix"));
  std::vector<llama_model_imatrix_data> rows;
  for (const auto& [name, values] : importance) rows.push_back({name.c_str(), values.data(), values.size()});
  rows.push_back({nullptr, nullptr, 0});
  if (!importance.empty()) params.imatrix = rows.data();
  const auto start = Clock::now();
  if (llama_model_quantize(arguments.words.at(1).c_str(), arguments.words.at(2).c_str(), &params) != 0)
    fail("llama.cpp could not quantize");
  std::printf("{\"milliseconds\":%.1f}\n", milliseconds_since(start));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv);
  if (arguments.words.size() < 2)
    fail("expected generate, logits, embed, tokenize, bench or quantize, and a model");
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
      },
      nullptr);
  ggml_backend_load_all_from_path(LLAMA_LIBRARIES);
  llama_backend_init();
  const std::map<std::string, int (*)(const Arguments&)> commands = {
      {"generate", generate}, {"logits", logits}, {"embed", embed},
      {"tokenize", tokenize}, {"bench", bench},   {"quantize", quantize}};
  const auto command = commands.find(arguments.words[0]);
  if (command == commands.end()) fail("unknown command " + arguments.words[0]);
  return command->second(arguments);
}
