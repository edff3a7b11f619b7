#include "qkv/tensor/gemm.h"

#include <fmt/format.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "qkv/core/error.h"
#include "qkv/core/parallel.h"
#include "qkv/kernels/kernels.h"
#include "qkv/tensor/allocator.h"

namespace qkv {
namespace {

// Keeps oneDNN to the instruction set in use, so that QKV_ISA governs the whole program. Must run before its first product.
dnnl::engine& engine() {
  static dnnl::engine instance = [] {
    const bool amx = amx_usable();
    switch (active_isa()) {
      case Isa::scalar: dnnl::set_max_cpu_isa(dnnl::cpu_isa::sse41); break;
      case Isa::avx2: dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2); break;
      case Isa::avx512:
        dnnl::set_max_cpu_isa(amx ? dnnl::cpu_isa::avx512_core_amx : dnnl::cpu_isa::avx512_core_bf16);
        break;
      case Isa::neon: break;
    }
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return instance;
}

dnnl::stream& stream() {
  thread_local dnnl::stream instance(engine());
  return instance;
}

struct Key {
  int64_t m, n, k, a_stride, b_stride, c_stride;
  uint32_t flags;  // transpositions, types, accumulation
  int threads;     // a primitive splits its work when it is made
  bool operator==(const Key&) const = default;
};

struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t h = 0x9E3779B97F4A7C15ULL;
    for (uint64_t word : {static_cast<uint64_t>(key.m), static_cast<uint64_t>(key.n), static_cast<uint64_t>(key.k),
                          static_cast<uint64_t>(key.a_stride), static_cast<uint64_t>(key.b_stride),
                          static_cast<uint64_t>(key.c_stride), uint64_t{key.flags}, static_cast<uint64_t>(key.threads)}) {
      h = (h ^ word) * 0xFF51AFD7ED558CCDULL;
      h ^= h >> 32;
    }
    return h;
  }
};

dnnl::memory::data_type dnnl_type(DType type) {
  return type == DType::f32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

struct Product {
  dnnl::memory::desc a, b, c;
  dnnl::matmul primitive;
};

dnnl::memory::desc describe_operand(int64_t rows, int64_t cols, DType type, int64_t stride, bool transposed) {
  const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, stride} : dnnl::memory::dims{stride, 1};
  return dnnl::memory::desc({rows, cols}, dnnl_type(type), strides);
}

// Primitives by shape. Generation meets every context length, so the cache is emptied when it grows past its bound.
class ProductCache {
 public:
  std::shared_ptr<const Product> get(const Key& key, FunctionRef<Product()> make) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = products_.find(key);
    if (it == products_.end()) {
      if (products_.size() >= kBound) products_.clear();
      it = products_.emplace(key, std::make_shared<const Product>(make())).first;
    }
    return it->second;
  }

 private:
  static constexpr size_t kBound = 512;
  std::mutex mutex_;
  std::unordered_map<Key, std::shared_ptr<const Product>, KeyHash> products_;
};

void run_onednn(int64_t m, int64_t n, int64_t k, const MatrixOperand& a, const MatrixOperand& b, void* c, DType c_type,
                int64_t c_stride, bool accumulate) {
  static ProductCache& cache = *new ProductCache;
  dnnl::engine& cpu = engine();
  const uint32_t flags = (a.transposed ? 1u : 0u) | (b.transposed ? 2u : 0u) | (a.type == DType::bf16 ? 4u : 0u) |
                         (c_type == DType::bf16 ? 8u : 0u) | (accumulate ? 16u : 0u);
  const auto product = cache.get(Key{m, n, k, a.stride, b.stride, c_stride, flags, num_threads()}, [&] {
    Product made{describe_operand(m, k, a.type, a.stride, a.transposed), describe_operand(k, n, b.type, b.stride, b.transposed),
                 describe_operand(m, n, c_type, c_stride, false), {}};
    dnnl::primitive_attr attributes;
    if (accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
#if DNNL_VERSION_MAJOR >= 3
    made.primitive = dnnl::matmul(dnnl::matmul::primitive_desc(cpu, made.a, made.b, made.c, attributes));
#else
    made.primitive = dnnl::matmul(dnnl::matmul::primitive_desc(dnnl::matmul::desc(made.a, made.b, made.c), attributes, cpu));
#endif
    return made;
  });
  product->primitive.execute(stream(), {{DNNL_ARG_SRC, dnnl::memory(product->a, cpu, const_cast<void*>(a.data))},
                                        {DNNL_ARG_WEIGHTS, dnnl::memory(product->b, cpu, const_cast<void*>(b.data))},
                                        {DNNL_ARG_DST, dnnl::memory(product->c, cpu, c)}});
  stream().wait();
}

// A packed float copy of a bf16 operand.
struct Widened {
  std::shared_ptr<std::byte> memory;
  MatrixOperand operand;
};

Widened widen(const MatrixOperand& operand, int64_t stored_rows, int64_t stored_cols) {
  Widened result{allocate(static_cast<uint64_t>(stored_rows * stored_cols) * sizeof(float)), operand};
  auto* out = reinterpret_cast<float*>(result.memory.get());
  const auto* in = static_cast<const bf16*>(operand.data);
  parallel_for(stored_rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) kernels().bf16_to_f32(in + r * operand.stride, out + r * stored_cols, stored_cols);
  });
  result.operand.data = out;
  result.operand.type = DType::f32;
  result.operand.stride = stored_cols;
  return result;
}

void run_widened(int64_t m, int64_t n, int64_t k, const MatrixOperand& a, const MatrixOperand& b, void* c, DType c_type,
                 int64_t c_stride, bool accumulate) {
  const Widened wide_a = a.transposed ? widen(a, k, m) : widen(a, m, k);
  const Widened wide_b = b.transposed ? widen(b, n, k) : widen(b, k, n);
  if (c_type == DType::f32) {
    run_onednn(m, n, k, wide_a.operand, wide_b.operand, c, c_type, c_stride, accumulate);
    return;
  }
  MatrixOperand out{c, DType::bf16, c_stride, false};
  Widened wide_c = accumulate ? widen(out, m, n)
                              : Widened{allocate(static_cast<uint64_t>(m * n) * sizeof(float)), MatrixOperand{nullptr, DType::f32, n, false}};
  auto* sums = reinterpret_cast<float*>(wide_c.memory.get());
  run_onednn(m, n, k, wide_a.operand, wide_b.operand, sums, DType::f32, n, accumulate);
  parallel_for(m, 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) kernels().f32_to_bf16(sums + r * n, static_cast<bf16*>(c) + r * c_stride, n);
  });
}

}  // namespace

bool bf16_products_are_native() {
  static const bool native = active_isa() == Isa::avx512 && amx_usable() && cpu_features().amx_bf16;
  return native;
}

void gemm(int64_t m, int64_t n, int64_t k, const MatrixOperand& a, const MatrixOperand& b, void* c, DType c_type,
          int64_t c_stride, bool accumulate) {
  require(a.type == b.type && (a.type == DType::f32 || a.type == DType::bf16) && (c_type == DType::f32 || c_type == DType::bf16),
          "gemm: expected both operands f32 or both bf16, found {} x {} -> {}", name(a.type), name(b.type), name(c_type));
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (accumulate) return;
    for (int64_t r = 0; r < m; ++r) {
      std::memset(static_cast<std::byte*>(c) + dtype_bytes(c_type, static_cast<uint64_t>(r * c_stride)), 0,
                  dtype_bytes(c_type, static_cast<uint64_t>(n)));
    }
    return;
  }
  if (a.type == DType::f32) {
    require(c_type == DType::f32, "gemm: f32 operands give f32, found {}", name(c_type));
    run_onednn(m, n, k, a, b, c, c_type, c_stride, accumulate);
  } else if (bf16_products_are_native()) {
    run_onednn(m, n, k, a, b, c, c_type, c_stride, accumulate);
  } else {
    run_widened(m, n, k, a, b, c, c_type, c_stride, accumulate);
  }
}

std::string gemm_library() {
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("oneDNN {}.{}.{}", version->major, version->minor, version->patch);
}

}  // namespace qkv
