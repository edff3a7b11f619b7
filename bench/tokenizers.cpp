// Encoding a text with one thread, from a fresh tokenizer's first round to the last. One JSON line: tokens, a
// hash of the ids (FNV-1a over 32-bit words), seconds of each round.
//   bench_tokenizers TOKENIZER TEXT [ROUNDS]
//   bench_tokenizers TOKENIZER --save FOLDER     writes it as tokenizer.json, for peers that read nothing
//   else
// scripts/bench-tokenizers runs it beside its peers.
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/text/tokenizer.h"

namespace qkv {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void run(const Tokenizer& tokenizer, const std::string& text, int rounds) {
  std::vector<int32_t> ids;
  std::vector<double> seconds;
  for (int round = 0; round < rounds; ++round) {
    const double begin = now();
    ids = tokenizer.encode(text, {.add_special = false, .parse_special = false});
    seconds.push_back(now() - begin);
  }
  uint32_t hash = 2166136261u;
  for (const int32_t id : ids) hash = (hash ^ static_cast<uint32_t>(id)) * 16777619u;
  const Json json = {{"tokens", ids.size()}, {"hash", hash}, {"seconds", seconds}};
  std::printf("%s\n", dump_json(json).c_str());
}

}  // namespace
}  // namespace qkv

int main(int argc, char** argv) {
  try {
    qkv::require(argc >= 3, "expected bench_tokenizers TOKENIZER TEXT [ROUNDS], or TOKENIZER --save FOLDER");
    const auto tokenizer = qkv::load_tokenizer(argv[1]);
    if (std::string(argv[2]) == "--save") {
      qkv::require(argc == 4, "--save: expected a folder");
      tokenizer->save(argv[3]);
    } else {
      qkv::run(*tokenizer, qkv::read_file(argv[2]), argc > 3 ? std::atoi(argv[3]) : 5);
    }
    return 0;
  } catch (const qkv::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
