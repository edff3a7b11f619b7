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

TYPED_TEST(SsmKernelTest, Ssd) {
  using T = TypeParam;
  struct Size {
    int64_t tokens, heads, head_dim, states;
  };
  for (const auto& [tokens, heads, head_dim, states] :
       {Size{1, 1, 1, 1}, {5, 2, 3, 4}, {16, 1, 16, 16}, {33, 3, 8, 20}, {96, 2, 40, 17}, {95, 1, 64, 32}}) {
    for (const bool going_on : {true, false}) {
      SCOPED_TRACE(::testing::Message() << tokens << " tokens, " << heads << " heads of " << head_dim << ", "
                                        << states << " states, going on " << going_on);
      reference::Ssd<double> in;
      in.heads = heads;
      in.head_dim = head_dim;
      in.states = states;
      in.softplus = false;
      const int64_t width = heads * head_dim;
      in.x = rounded<T>(normal_values(tokens * width, 1));
      in.dt = normal_values(tokens * heads, 2);
      for (double& v : in.dt) v = static_cast<double>(static_cast<float>(std::exp(v - 1)));
      in.dt[in.dt.size() / 2] = 40;  // one token that forgets everything
      in.a = normal_values(heads, 3);
      for (double& v : in.a) v = static_cast<double>(static_cast<float>(-std::exp(v)));
      in.b = rounded<T>(normal_values(tokens * states, 4));
      in.c = rounded<T>(normal_values(tokens * states, 5));
      if (going_on) in.skip = normal_values(heads, 6);
      const Doubles dy = rounded<T>(normal_values(tokens * width, 7));
      const Doubles before = going_on ? normal_values(heads * states * head_dim, 8) : Doubles();
      const Doubles dafter = going_on ? normal_values(heads * states * head_dim, 9) : Doubles();
      Doubles h = before;
      const Doubles y = reference::ssd(in, {0, tokens}, &h);
      const auto g = reference::ssd_gradients(in, dy, before, dafter);

      const auto x = stored<T>(in.x), b = stored<T>(in.b), c = stored<T>(in.c), dy_t = stored<T>(dy);
      const auto dt = stored<float>(in.dt), a = stored<float>(in.a), skip = stored<float>(in.skip);
      const auto before_f = stored<float>(before), dafter_f = stored<float>(dafter);
      this->for_each_isa([&](const TypedKernels<T>& k) {
        const AlignedScratch scratch(k.ssm.ssd_scratch_bytes(head_dim, states));
        std::vector<T> out(x.size()), dx(x.size());
        std::vector<float> state(h.size()), dstate(h.size()), decay(static_cast<size_t>(heads)),
            again = decay;
        SsdChunk<T> s;
        s.x = x.data();
        s.b = b.data();
        s.c = c.data();
        s.y = out.data();
        s.dt = dt.data();
        s.a = a.data();
        if (going_on) s.skip = skip.data();
        s.tokens = tokens;
        s.heads = heads;
        s.head_dim = head_dim;
        s.states = states;
        s.x_stride = width;
        s.bc_stride = states;
        s.dt_stride = heads;
        const auto bound = [](const Doubles& values) { return 5e-6 * (0.1 + largest(values)); };
        const float* h0 = going_on ? before_f.data() : nullptr;
        // Added to what is carried over the chunk.
        const auto carried = [&](const std::vector<float>& added, const Doubles& from) {
          Doubles all = widened(added);
          for (size_t i = 0; i < from.size(); ++i)
            all[i] += decay[i / static_cast<size_t>(states * head_dim)] * from[i];
          return all;
        };
        k.ssm.ssd_state(s, state.data(), decay.data(), scratch.memory);
        ASSERT_TRUE(near(carried(state, before), h, 0, bound(h)));
        k.ssm.ssd_output(s, h0, scratch.memory);
        ASSERT_TRUE(near(widened(out), y, kRounding<T>, bound(y)));
        std::vector<float> walked = before_f;
        walked.resize(h.size());
        out.assign(out.size(), T{});
        k.ssm.ssd_recurrent(s, walked.data());
        ASSERT_TRUE(near(widened(out), y, kRounding<T>, bound(y)));
        ASSERT_TRUE(near(widened(walked), h, 0, bound(h)));

        k.ssm.ssd_state_backward(s, dy_t.data(), dstate.data(), again.data(), scratch.memory);
        ASSERT_TRUE(same_bits(decay, again));
        ASSERT_TRUE(near(carried(dstate, dafter), g.dh, 0, bound(g.dh)));
        std::vector<float> db(b.size(), 5.0f), dc(c.size(), 5.0f), ddt(dt.size(), 5.0f), da(a.size(), 5.0f),
            dskip(a.size(), 5.0f);
        SsdGradients<T> gradients;
        gradients.dy = dy_t.data();
        gradients.dx = dx.data();
        gradients.db = db.data();
        gradients.dc = dc.data();
        gradients.ddt = ddt.data();
        gradients.da = da.data();
        if (going_on) gradients.dskip = dskip.data();
        k.ssm.ssd_backward(s, gradients, h0, going_on ? dafter_f.data() : nullptr, scratch.memory);
        ASSERT_TRUE(near(widened(dx), g.dx, kRounding<T>, bound(g.dx)));
        ASSERT_TRUE(near(widened(db), g.db, 0, bound(g.db)));
        ASSERT_TRUE(near(widened(dc), g.dc, 0, bound(g.dc)));
        ASSERT_TRUE(near(widened(ddt), g.dsteps, 0, bound(g.dsteps)));
        ASSERT_TRUE(near(widened(da), g.da, 0, bound(g.da)));
        if (going_on) {
          ASSERT_TRUE(near(widened(dskip), g.dskip, 0, bound(g.dskip)));
        }
      });
    }
  }
}

TYPED_TEST(SsmKernelTest, SsdIsCausal) {
  using T = TypeParam;
  constexpr int64_t tokens = 40, changed = 21;
  this->for_each_isa([&](const TypedKernels<T>& k) {
    const auto run = [&](float later) {
      auto x = stored<T>(normal_values(tokens, 1)), b = stored<T>(normal_values(tokens, 2)),
           c = stored<T>(normal_values(tokens, 3));
      std::vector<float> dt(tokens, 0.1f), a = {-1.0f};
      for (size_t t = changed; t < tokens; ++t) {
        x[t] = b[t] = c[t] = from_float<T>(later);
        dt[t] = later;
      }
      std::vector<T> y(tokens);
      SsdChunk<T> s;
      s.x = x.data();
      s.b = b.data();
      s.c = c.data();
      s.y = y.data();
      s.dt = dt.data();
      s.a = a.data();
      s.tokens = tokens;
      s.heads = s.head_dim = s.states = s.x_stride = s.bc_stride = s.dt_stride = 1;
      const AlignedScratch scratch(k.ssm.ssd_scratch_bytes(1, 1));
      k.ssm.ssd_output(s, nullptr, scratch.memory);
      y.resize(changed);
      return y;
    };
    EXPECT_TRUE(same_bits(run(0.5f), run(1000.0f)));
  });
}

TYPED_TEST(SsmKernelTest, SsdSteps) {
  using T = TypeParam;
  for (const int64_t heads : {1, 7, 16, 24}) {
    constexpr int64_t rows = 3;
    reference::Ssd<double> in;
    in.heads = heads;
    in.least = static_cast<double>(0.2f);
    in.most = 2;
    in.dt = rounded<T>(normal_values(rows * heads, 1, 3));
    in.bias = normal_values(heads, 2);
    const Doubles ddt = normal_values(rows * heads, 3);
    const auto x = stored<T>(in.dt);
    const auto bias = stored<float>(in.bias), ddt_f = stored<float>(ddt);
    for (const bool softplus : {true, false}) {
      in.softplus = softplus;
      Doubles steps, dx, dbias(static_cast<size_t>(heads), 0.0);
      for (int64_t i = 0; i < rows * heads; ++i) {
        double slope = 0;
        steps.push_back(in.step(i / heads, i % heads, &slope));
        dx.push_back(slope * ddt[static_cast<size_t>(i)]);
        dbias[static_cast<size_t>(i % heads)] += dx.back();
      }
      this->for_each_isa([&](const TypedKernels<T>& k) {
        std::vector<float> out(x.size()), db(bias.size(), 0.0f);
        std::vector<T> dx_t(x.size());
        k.ssm.ssd_steps(x.data(), bias.data(), softplus, 0.2f, 2.0f, out.data(), rows, heads);
        ASSERT_TRUE(near(widened(out), steps, 2e-6, 1e-6));
        k.ssm.ssd_steps_backward(x.data(), bias.data(), softplus, 0.2f, 2.0f, ddt_f.data(), dx_t.data(),
                                 db.data(), rows, heads);
        ASSERT_TRUE(near(widened(dx_t), dx, kRounding<T> + 2e-6, 1e-6));
        ASSERT_TRUE(near(widened(db), dbias, 2e-6, 2e-6));
      });
    }
  }
}

}  // namespace
}  // namespace qkv::test
