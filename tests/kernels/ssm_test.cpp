// The state-space kernels on every instruction set, on pieces of wider rows and around vector and chunk
// lengths.
#include "tests/kernels/kernel_testing.h"
#include "tests/support/ssm_reference.h"

namespace qkv::test {
namespace {

template <typename T>
class SsmKernelTest : public TypedKernelTest<T> {};
TYPED_TEST_SUITE(SsmKernelTest, StorageTypes);

double largest(const Doubles& values) {
  double result = 0;
  for (double v : values) result = std::max(result, std::abs(v));
  return result;
}

Doubles transposed(const Doubles& values, int64_t rows, int64_t cols) {
  Doubles result;
  for (int64_t c = 0; c < cols; ++c) {
    for (int64_t r = 0; r < rows; ++r) result.push_back(values[reference::at(r, cols, c)]);
  }
  return result;
}

// 64-byte aligned, exactly as large as asked for.
struct AlignedScratch {
  explicit AlignedScratch(size_t bytes) : memory(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {}
  ~AlignedScratch() { std::free(memory); }
  AlignedScratch(const AlignedScratch&) = delete;
  AlignedScratch& operator=(const AlignedScratch&) = delete;
  void* memory;
};

TYPED_TEST(SsmKernelTest, CausalConv) {
  using T = TypeParam;
  constexpr int64_t tokens = 9;
  for (const int64_t channels : {1, 5, 8, 16, 17, 33}) {
    for (const int64_t taps : {1, 2, 4}) {
      SCOPED_TRACE(::testing::Message() << channels << " channels, " << taps << " taps");
      const Doubles x = rounded<T>(normal_values(tokens * channels, 1)),
                    w = normal_values(channels * taps, 2);
      const Doubles bias = normal_values(channels, 3), past = normal_values((taps - 1) * channels, 4);
      const Doubles dy = rounded<T>(normal_values(tokens * channels, 5));
      const auto x_t = stored<T>(x), dy_t = stored<T>(dy);
      const auto w_f = stored<float>(transposed(w, channels, taps)), bias_f = stored<float>(bias),
                 past_f = stored<float>(past);
      for (const bool silu : {true, false}) {
        const auto reference = [&](const Doubles& x_, const Doubles& w_, const Doubles& b_) {
          return reference::causal_conv1d(x_, w_, b_, {0, tokens}, channels, taps, silu, past);
        };
        const Doubles y = reference(x, w, bias);
        const auto gradient = [&](auto&& f, const Doubles& point) {
          return reference::finite_difference<double>(
              [&](const Doubles& p) { return reference::inner(f(p), dy); }, point);
        };
        const Doubles dx = gradient([&](const Doubles& p) { return reference(p, w, bias); }, x);
        const Doubles dw =
            transposed(gradient([&](const Doubles& p) { return reference(x, p, bias); }, w), channels, taps);
        const Doubles db = gradient([&](const Doubles& p) { return reference(x, w, p); }, bias);
        this->for_each_isa([&](const TypedKernels<T>& k) {
          CausalConvSequence<T> s;
          s.x = x_t.data();
          s.past = past_f.data();
          s.w = w_f.data();
          s.bias = bias_f.data();
          s.tokens = tokens;
          s.channels = channels;
          s.taps = taps;
          s.silu = silu;
          std::vector<T> out(x_t.size()), dx_t(x_t.size());
          std::vector<float> dw_f(w_f.size(), 0.0f), db_f(bias_f.size(), 0.0f),
              ring(static_cast<size_t>(taps * channels));
          // In two parts, as two threads would.
          for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 4}, {4, tokens}}) {
            k.ssm.causal_conv(s, out.data(), begin, end);
            k.ssm.causal_conv_backward(s, dy_t.data(), dx_t.data(), dw_f.data(), db_f.data(), begin, end,
                                       ring.data());
          }
          ASSERT_TRUE(near(widened(out), y, kRounding<T>, 2e-6 * (1 + largest(y))));
          ASSERT_TRUE(near(widened(dx_t), dx, kRounding<T>, 3e-6 * (1 + largest(dx))));
          ASSERT_TRUE(near(widened(dw_f), dw, 0, 3e-6 * (1 + largest(dw))));
          ASSERT_TRUE(near(widened(db_f), db, 0, 3e-6 * (1 + largest(db))));
        });
      }
    }
  }
}

// Channels [before, before + channels) of rows that are wider on both sides.
struct Piece {
  static constexpr int64_t before = 3, after = 2;
  int64_t channels;
  int64_t stride() const { return before + channels + after; }
  template <typename E>
  std::vector<E> widen(const std::vector<E>& values, E outside) const {
    std::vector<E> wide(values.size() / static_cast<size_t>(channels) * static_cast<size_t>(stride()),
                        outside);
    for (size_t i = 0; i < values.size(); ++i) {
      const auto row = static_cast<int64_t>(i) / channels, column = static_cast<int64_t>(i) % channels;
      wide[static_cast<size_t>(row * stride() + before + column)] = values[i];
    }
    return wide;
  }
  // The values inside; fails the test if one outside is not `outside` any more.
  template <typename E>
  Doubles narrow(const std::vector<E>& wide, E outside) const {
    Doubles values;
    for (size_t i = 0; i < wide.size(); ++i) {
      const int64_t column = static_cast<int64_t>(i) % stride() - before;
      if (column >= 0 && column < channels) {
        values.push_back(static_cast<double>(to_float(wide[i])));
      } else {
        EXPECT_EQ(to_float(wide[i]), to_float(outside)) << "written outside the piece at " << i;
      }
    }
    return values;
  }
};

TYPED_TEST(SsmKernelTest, SelectiveScan) {
  using T = TypeParam;
  struct Size {
    int64_t tokens, channels, states;
  };
  for (const auto& [tokens, channels, states] :
       {Size{1, 1, 1}, {5, 7, 3}, {64, 16, 4}, {65, 17, 5}, {130, 33, 16}, {63, 8, 9}}) {
    for (const bool full : {true, false}) {
      SCOPED_TRACE(::testing::Message() << tokens << " tokens, " << channels << " channels, " << states
                                        << " states, full " << full);
      reference::Scan<double> in;
      in.channels = channels;
      in.states = states;
      in.softplus = full;
      in.u = rounded<T>(normal_values(tokens * channels, 1));
      in.delta = rounded<T>(normal_values(tokens * channels, 2, full ? 2 : 0.3));
      in.b = rounded<T>(normal_values(tokens * states, 3));
      in.c = rounded<T>(normal_values(tokens * states, 4));
      in.a = normal_values(channels * states, 5);
      for (double& v : in.a) v = static_cast<double>(static_cast<float>(-std::exp(v)));
      if (full) {
        in.skip = normal_values(channels, 6);
        in.bias = normal_values(channels, 7);
        in.z = rounded<T>(normal_values(tokens * channels, 8));
      }
      const Doubles dout = rounded<T>(normal_values(tokens * channels, 9));
      Doubles h;
      const Doubles y = reference::selective_scan(in, {0, tokens}, &h);
      const auto g = reference::selective_scan_gradients(in, {0, tokens}, dout);

      const Piece piece{channels};
      const T t_mark = from_float<T>(-8.0f);
      const auto rows = [&](const Doubles& values) { return piece.widen(stored<T>(values), t_mark); };
      const auto floats = [&](const Doubles& values) { return piece.widen(stored<float>(values), -8.0f); };
      const auto u = rows(in.u), delta = rows(in.delta), z = rows(in.z), dout_t = rows(dout);
      const auto b = stored<T>(in.b), c = stored<T>(in.c);
      const auto a = floats(transposed(in.a, channels, states)), skip = floats(in.skip),
                 bias = floats(in.bias);
      this->for_each_isa([&](const TypedKernels<T>& k) {
        const AlignedScratch scratch(k.ssm.scan_scratch_bytes(channels, states));
        auto out = rows(Doubles(in.u.size())), du = out, ddelta = out, dz = out;
        auto state = floats(Doubles(in.a.size())), da = state;
        auto boundaries =
            floats(Doubles(in.a.size() * static_cast<size_t>((tokens + kScanChunk - 1) / kScanChunk)));
        auto dskip = floats(Doubles(static_cast<size_t>(channels))), dbias = dskip;
        std::vector<float> db(in.b.size(), 5.0f), dc(in.b.size(), 5.0f);
        ScanSequence<T> s;
        s.u = u.data() + Piece::before;
        s.delta = delta.data() + Piece::before;
        s.b = b.data();
        s.c = c.data();
        s.out = out.data() + Piece::before;
        s.a = a.data() + Piece::before;
        if (full) {
          s.z = z.data() + Piece::before;
          s.skip = skip.data() + Piece::before;
          s.delta_bias = bias.data() + Piece::before;
        }
        s.state = state.data() + Piece::before;
        s.boundaries = boundaries.data() + Piece::before;
        s.tokens = tokens;
        s.channels = channels;
        s.states = states;
        s.stride = piece.stride();
        s.bc_stride = states;
        s.softplus = full;
        k.ssm.scan_forward(s, scratch.memory);
        // Float recurrences: a few roundings of 2^-24 per token that has not decayed.
        const auto bound = [](const Doubles& values) { return 5e-6 * (0.1 + largest(values)); };
        ASSERT_TRUE(near(piece.narrow(out, t_mark), y, kRounding<T>, bound(y)));
        ASSERT_TRUE(near(piece.narrow(state, -8.0f), transposed(h, channels, states), 0, bound(h)));
        ScanGradients<T> gradients;
        gradients.dout = dout_t.data() + Piece::before;
        gradients.du = du.data() + Piece::before;
        gradients.ddelta = ddelta.data() + Piece::before;
        gradients.db = db.data();
        gradients.dc = dc.data();
        gradients.da = da.data() + Piece::before;
        if (full) {
          gradients.dz = dz.data() + Piece::before;
          gradients.dskip = dskip.data() + Piece::before;
          gradients.ddelta_bias = dbias.data() + Piece::before;
        }
        k.ssm.scan_backward(s, gradients, scratch.memory);
        ASSERT_TRUE(near(piece.narrow(du, t_mark), g.du, kRounding<T>, bound(g.du)));
        ASSERT_TRUE(near(piece.narrow(ddelta, t_mark), g.ddelta, kRounding<T>, bound(g.ddelta)));
        ASSERT_TRUE(near(piece.narrow(da, -8.0f), transposed(g.da, channels, states), 0, bound(g.da)));
        ASSERT_TRUE(near(widened(db), g.db, 0, bound(g.db)));
        ASSERT_TRUE(near(widened(dc), g.dc, 0, bound(g.dc)));
        if (full) {
          ASSERT_TRUE(near(piece.narrow(dz, t_mark), g.dz, kRounding<T>, bound(g.dz)));
          ASSERT_TRUE(near(piece.narrow(dskip, -8.0f), g.dskip, 0, bound(g.dskip)));
          ASSERT_TRUE(near(piece.narrow(dbias, -8.0f), g.dbias, 0, bound(g.dbias)));
        }
      });
    }
  }
}

// Steps so long that everything is forgotten, rates that overflow the exponent, and NaN, which must come
// through.
TYPED_TEST(SsmKernelTest, ScanAtTheEndsOfTheRange) {
  using T = TypeParam;
  this->for_each_isa([&](const TypedKernels<T>& k) {
    const auto run = [&](float delta, float a) {
      const std::vector<T> u(3, from_float<T>(1.0f)), step(3, from_float<T>(delta)),
          b(3, from_float<T>(1.0f));
      std::vector<T> out(3);
      float state = 0;
      ScanSequence<T> s;
      s.u = u.data();
      s.delta = step.data();
      s.b = s.c = b.data();
      s.out = out.data();
      s.a = &a;
      s.state = &state;
      s.tokens = 3;
      s.channels = s.states = s.stride = s.bc_stride = 1;
      s.softplus = false;
      const AlignedScratch scratch(k.ssm.scan_scratch_bytes(1, 1));
      k.ssm.scan_forward(s, scratch.memory);
      return to_float(out[2]);
    };
    EXPECT_EQ(run(1000, -1000), 1000.0f);
    EXPECT_EQ(run(0, -3), 0.0f);
    EXPECT_GT(run(1000, 1), 1e30f);
    EXPECT_TRUE(std::isnan(run(std::nanf(""), -1)));
    EXPECT_TRUE(std::isnan(run(1, std::nanf(""))));
  });
}

}  // namespace
}  // namespace qkv::test
