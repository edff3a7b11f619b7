// Shapes, dtypes, views, copies and conversions.
#include "tests/tensor/tensor_testing.h"

namespace qkv::test {
namespace {

TEST(Shapes, CountAndPrint) {
  EXPECT_EQ(Shape().elements(), 1);
  EXPECT_EQ(Shape({2, 3, 4}).elements(), 24);
  EXPECT_EQ(Shape({2, 3, 4}).rows(), 6);
  EXPECT_EQ(Shape({2, 3, 4}).cols(), 4);
  EXPECT_EQ(Shape({2, 3, 4})[-1], 4);
  EXPECT_EQ(Shape({2, 3}).str(), "(2, 3)");
  EXPECT_FALSE(Shape({2, 3}) == Shape({3, 2}));
  EXPECT_FALSE(Shape({2}) == Shape({2, 1}));
  EXPECT_EQ(Shape({0, 3}).elements(), 0);
  EXPECT_THROW(Shape({-1}), Error);
  EXPECT_THROW(Shape({1, 1, 1, 1, 1}), Error);
  EXPECT_THROW(Shape({int64_t{1} << 40, int64_t{1} << 40}), Error);
  EXPECT_THROW(Shape({0, int64_t{1} << 62, 4}), Error) << "overflow hidden behind a zero";
}

TEST(DTypes, NamesAndBytesAgree) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    const DTypeTraits& row = traits(type);
    EXPECT_EQ(row.type, type);
    EXPECT_EQ(dtype_from_name(row.name), type) << row.name;
    if (!row.safetensors.empty()) {
      EXPECT_EQ(dtype_from_safetensors(row.safetensors), type) << row.name;
    }
    if (row.gguf >= 0) {
      EXPECT_EQ(dtype_from_gguf(row.gguf), type) << row.name;
    }
    EXPECT_EQ(dtype_bytes(type, static_cast<uint64_t>(row.block_length) * 3),
              static_cast<uint64_t>(row.block_bytes) * 3);
    if (is_block(type)) {
      EXPECT_THROW(dtype_bytes(type, 1), Error) << row.name;
    }
  }
  EXPECT_EQ(dtype_bytes(DType::q8_0, 64), 68u);
  EXPECT_EQ(dtype_bytes(DType::q4_k, 256), 144u);
  EXPECT_EQ(dtype_bytes(DType::q6_k, 256), 210u);
  EXPECT_EQ(dtype_from_name("bfloat16"), DType::bf16);
  EXPECT_FALSE(dtype_from_name("bf17").has_value());
  EXPECT_FALSE(dtype_from_safetensors("").has_value());
  EXPECT_FALSE(dtype_from_gguf(-1).has_value());
  EXPECT_FALSE(dtype_from_gguf(9999).has_value());
}

TEST(Tensors, ViewsShareAndClonesDoNot) {
  Tensor t = Tensor::from(std::vector<float>{0, 1, 2, 3, 4, 5}, {3, 2});
  Tensor view = t.view({2, 3}), row = t.row_view(1, 2), clone = t.clone();
  EXPECT_TRUE(view.same_storage(t));
  EXPECT_EQ(values_of(row), (Doubles{2, 3}));
  row.fill(9);
  EXPECT_EQ(values_of(t), (Doubles{0, 1, 9, 9, 4, 5}));
  EXPECT_EQ(values_of(clone), (Doubles{0, 1, 2, 3, 4, 5}));
  t.copy_from(clone);
  EXPECT_EQ(values_of(view), (Doubles{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(t.row_view(3, 3).elements(), 0);
  EXPECT_THROW(t.row_view(2, 4), Error);
  EXPECT_THROW(t.row_view(2, 1), Error);
  EXPECT_THROW(t.view({4}), Error);
  EXPECT_THROW(t.copy_from(view), Error);
  EXPECT_THROW(t.data<bf16>(), Error);
  EXPECT_THROW(t.item(), Error);
  EXPECT_THROW(Tensor().shape(), Error);
  EXPECT_THROW(Tensor().data<float>(), Error);
  EXPECT_THROW(Tensor::from(std::vector<float>{1, 2}, {3}), Error);
  EXPECT_EQ(describe(t), "f32 (3, 2)");
  EXPECT_EQ(describe(Tensor()), "nothing");
}

TEST(Tensors, ConvertBetweenFloatingTypes) {
  const Doubles values = {0, -0.5, 1, 3.140625, 60000, -1e-3, 2};
  const Tensor wide = tensor_of(values, {7});
  for (DType to : {DType::f64, DType::bf16, DType::f16}) {
    for (DType then : {DType::f64, DType::bf16, DType::f16, DType::f32}) {
      const Tensor t = wide.to(to).to(then);
      EXPECT_EQ(t.dtype(), then);
      EXPECT_TRUE(close(t, values, 0x1p-8)) << name(to) << " " << name(then);
    }
  }
  EXPECT_TRUE(wide.to(DType::f32).is_same(wide));
  EXPECT_EQ(Tensor::from(std::vector<double>{1.5, -2}, {2}).to_floats(), (std::vector<float>{1.5f, -2.0f}));
  EXPECT_THROW(Tensor::empty({4}, DType::f32).to(DType::i32), Error);
  EXPECT_THROW(Tensor::empty({32}, DType::nf4).to_floats(), Error);
  const Tensor large = random_tensor({100003}, 1);  // over several threads
  EXPECT_TRUE(close(large.to(DType::bf16), values_of(large), 0x1p-8));
}

TEST(Tensors, IntegersBecomeFloats) {
  const auto floats_of = [](const auto& values, DType type) {
    const auto* data = reinterpret_cast<const std::byte*>(values.data());
    return Tensor::borrowed(data, {static_cast<int64_t>(values.size())}, type, nullptr).to_floats();
  };
  using Floats = std::vector<float>;
  EXPECT_EQ(floats_of(std::vector<int64_t>{-3, 16777217}, DType::i64), (Floats{-3, 16777216}))
      << "rounded to even";
  EXPECT_EQ(floats_of(std::vector<int32_t>{-3, 70000}, DType::i32), (Floats{-3, 70000}));
  EXPECT_EQ(floats_of(std::vector<int16_t>{-3, 300}, DType::i16), (Floats{-3, 300}));
  EXPECT_EQ(floats_of(std::vector<int8_t>{-3, 127}, DType::i8), (Floats{-3, 127}));
  EXPECT_EQ(floats_of(std::vector<uint64_t>{3, uint64_t{1} << 63}, DType::u64), (Floats{3, 0x1p63f}));
  EXPECT_EQ(floats_of(std::vector<uint32_t>{3, 0x80000000u}, DType::u32), (Floats{3, 0x1p31f}));
  EXPECT_EQ(floats_of(std::vector<uint16_t>{3, 65535}, DType::u16), (Floats{3, 65535}));
  EXPECT_EQ(floats_of(std::vector<uint8_t>{3, 255}, DType::u8), (Floats{3, 255}));
  EXPECT_EQ(floats_of(std::vector<uint8_t>{0, 1}, DType::boolean), (Floats{0, 1}));
}

TEST(Tensors, BorrowedMemoryStaysAlive) {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3});
  const std::weak_ptr<std::vector<float>> watch = owner;
  const uint64_t start = memory_use().current;
  {
    const Tensor t =
        Tensor::borrowed(reinterpret_cast<const std::byte*>(owner->data()), {3}, DType::f32, owner);
    owner.reset();
    EXPECT_FALSE(watch.expired());
    EXPECT_EQ(values_of(t), (Doubles{1, 2, 3}));
    EXPECT_EQ(memory_use().current, start);
  }
  EXPECT_TRUE(watch.expired());
}

}  // namespace
}  // namespace qkv::test
