// CPU detection and the choice of a kernel table.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/kernels/block_reference.h"
#include "qkv/kernels/isa/tables.h"
#include "qkv/kernels/kernels.h"

namespace qkv {
namespace {

std::string cpu_model_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) {
      const size_t colon = line.find(": ");
      if (colon != std::string::npos) return line.substr(colon + 2);
    }
  }
  return "unknown CPU";
}

CpuFeatures detect() {
  CpuFeatures features;
  features.model = cpu_model_name();
#if defined(__x86_64__)
  // __builtin_cpu_supports checks that the operating system saves the registers, too.
  __builtin_cpu_init();
  features.avx2 = __builtin_cpu_supports("avx2") != 0;
  features.fma = __builtin_cpu_supports("fma") != 0;
  features.avx512 = __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                    __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
                    __builtin_cpu_supports("avx512cd") != 0;
  features.avx512_vnni = features.avx512 && __builtin_cpu_supports("avx512vnni") != 0;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) != 0) features.f16c = (c & (1u << 29)) != 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) {
    features.amx_bf16 = (d & (1u << 22)) != 0;
    features.avx512_fp16 = features.avx512 && (d & (1u << 23)) != 0;
    features.amx_tile = (d & (1u << 24)) != 0;
    features.amx_int8 = (d & (1u << 25)) != 0;
  }
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) {
    features.avx_vnni = features.avx2 && (a & (1u << 4)) != 0;
    features.avx512_bf16 = features.avx512 && (a & (1u << 5)) != 0;
  }
#elif defined(__aarch64__)
  features.neon = true;
#endif
  return features;
}

// Entries are nothing but function pointers, so one that is null in `upper` can be taken from `lower` word by word.
template <typename Table>
Table merged(const Table& upper, const Table& lower) {
  static_assert(sizeof(Table) % sizeof(void*) == 0);
  constexpr size_t count = sizeof(Table) / sizeof(void*);
  std::array<void*, count> high{}, low{};
  std::memcpy(high.data(), &upper, sizeof(Table));
  std::memcpy(low.data(), &lower, sizeof(Table));
  for (size_t i = 0; i < count; ++i) {
    if (high[i] == nullptr) high[i] = low[i];
  }
  Table result;
  std::memcpy(static_cast<void*>(&result), high.data(), sizeof(Table));
  return result;
}

#if defined(__x86_64__)
BlockKernels avx512_blocks() {
  const BlockKernels table = kernels_avx512_blocks();
  return cpu_features().avx512_vnni ? merged(kernels_avx512vnni_blocks(), table) : table;
}
#endif

struct Candidate {
  Isa isa;
  const Kernels* (*table)();
  BlockKernels (*blocks)();
  bool supported;
};

std::vector<Candidate> candidates() {
  const CpuFeatures& cpu = cpu_features();
  std::vector<Candidate> list = {{Isa::scalar, kernels_scalar, block_kernels_reference, true}};
#if defined(__x86_64__)
  list.push_back({Isa::avx2, kernels_avx2, kernels_avx2_blocks, cpu.avx2 && cpu.fma && cpu.f16c});
  list.push_back({Isa::avx512, kernels_avx512, avx512_blocks, cpu.avx512});
#elif defined(__aarch64__)
  list.push_back({Isa::neon, kernels_neon, kernels_neon_blocks, cpu.neon});
#endif
  std::erase_if(list, [](const Candidate& candidate) { return !candidate.supported; });
  return list;
}

struct Tables {
  std::vector<Isa> isas;
  std::vector<Kernels> tables;
};

const Tables& tables() {
  static const Tables instance = [] {
    Tables made;
    for (const auto& candidate : candidates()) {
      Kernels own = *candidate.table();
      own.blocks = candidate.blocks();
      made.tables.push_back(made.tables.empty() ? own : merged(own, made.tables.back()));
      made.isas.push_back(candidate.isa);
    }
    return made;
  }();
  return instance;
}

Isa choose() {
  const auto& isas = tables().isas;
  const char* wanted = std::getenv("QKV_ISA");
  if (wanted == nullptr || *wanted == '\0') return isas.back();
  std::vector<std::string> names;
  for (Isa isa : isas) {
    if (std::strcmp(isa_name(isa), wanted) == 0) return isa;
    names.emplace_back(isa_name(isa));
  }
  // "amx" means AVX-512 kernels with tiles allowed in the matrix products.
  if (std::strcmp(wanted, "amx") == 0 && cpu_features().amx_tile) return isas.back();
  fail("QKV_ISA: expected one of {} on this CPU, found '{}'{}", fmt::join(names, ", "), wanted, suggestion(wanted, names));
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar: return "scalar";
    case Isa::neon: return "neon";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
  }
  return "?";
}

std::vector<Isa> available_isas() { return tables().isas; }

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

const Kernels& kernels_for(Isa isa) {
  const auto& [isas, made] = tables();
  const auto it = std::find(isas.begin(), isas.end(), isa);
  require(it != isas.end(), "instruction set '{}' is not available on this CPU", isa_name(isa));
  return made[static_cast<size_t>(it - isas.begin())];
}

const Kernels& kernels() {
  static const Kernels& active = kernels_for(active_isa());
  return active;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::vector<std::string> CpuFeatures::names() const {
  std::vector<std::string> list;
  const auto add = [&](bool present, const char* name) {
    if (present) list.emplace_back(name);
  };
  add(avx2, "avx2");
  add(fma, "fma");
  add(f16c, "f16c");
  add(avx_vnni, "avx_vnni");
  add(avx512, "avx512");
  add(avx512_vnni, "avx512_vnni");
  add(avx512_bf16, "avx512_bf16");
  add(avx512_fp16, "avx512_fp16");
  add(amx_tile, "amx_tile");
  add(amx_bf16, "amx_bf16");
  add(amx_int8, "amx_int8");
  add(neon, "neon");
  return list;
}

bool amx_usable() {
  static const bool usable = [] {
    const char* wanted = std::getenv("QKV_ISA");
    if (wanted != nullptr && *wanted != '\0' && std::strcmp(wanted, "amx") != 0) return false;
#if defined(__x86_64__)
    constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return cpu_features().amx_tile && ::syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
  }();
  return usable;
}

}  // namespace qkv
