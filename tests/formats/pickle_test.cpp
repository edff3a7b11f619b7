#include "qkv/formats/pickle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "qkv/core/error.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::error_of;
using ::testing::HasSubstr;

Pickle load(std::string_view bytes) {
  return Pickle(std::as_bytes(std::span(bytes)), "p");
}

// A tree as Python would print it; bytes as b<...>.
std::string text_of(PickleRef value) {
  if (as<PickleNone>(value) != nullptr) return "None";
  if (const auto* flag = as<bool>(value)) return *flag ? "True" : "False";
  if (const auto* integer = as<int64_t>(value)) return fmt::format("{}", *integer);
  if (const auto* number = as<double>(value)) return fmt::format("{:?<}", *number);
  if (const auto* text = as<std::string>(value)) return "'" + *text + "'";
  if (const auto* bytes = as<PickleBytes>(value)) return "b<" + bytes->data + ">";
  if (const auto* big = as<PickleBigInteger>(value)) return fmt::format("big({})", big->bytes.size());
  if (const auto* named = as<PickleName>(value)) return std::string(named->name);
  if (const auto* storage = as<PickleStorage>(value))
    return fmt::format("storage({}, {})", storage->key, storage->elements);
  std::string inner;
  if (const auto* sequence = as<PickleSequence>(value)) {
    for (const PickleRef item : sequence->items) inner += (inner.empty() ? "" : ", ") + text_of(item);
    return sequence->is_tuple ? "(" + inner + ")" : "[" + inner + "]";
  }
  if (const auto* dict = as<PickleDict>(value)) {
    for (const auto& [key, item] : dict->items)
      inner += (inner.empty() ? "" : ", ") + text_of(key) + ": " + text_of(item);
    return "{" + inner + "}";
  }
  return describe(value);
}

std::string loaded(std::string_view bytes) {
  return text_of(load(bytes).root());
}

#define BYTES(text) std::string_view(text, sizeof(text) - 1)

// The same value by Python 3.11's pickle.dumps in every protocol:
// {"a": [1, -2, 300, 70000, 2**40, -2**63], "t": (True, None, 1.5), "u": "\u00fc\n'", "b": b"\x00\xff"}
TEST(Pickle, ReadsEveryProtocol) {
  const std::string expected =
      "{'a': [1, -2, 300, 70000, 1099511627776, -9223372036854775808], 't': (True, None, 1.5), "
      "'u': '\xc3\xbc\n\'', 'b': b<" +
      std::string("\0\xff", 2) + ">}";
  constexpr std::string_view kProtocols[] = {
      BYTES("(dp0\012Va\012p1\012(lp2\012I1\012aI-2\012aI300\012aI70000\012aL1099511627776L\012aL-"
            "9223372036854775808L\012asVt\012p3\012(I01\012NF1.5\012tp4\012sVu\012p5\012V\374\\u000a'"
            "\012p6\012sVb\012p7\012c_codecs\012encode\012p8\012("
            "V\\u0000\377\012p9\012Vlatin1\012p10\012tp11\012Rp12\012s."),
      BYTES("}q\000(X\001\000\000\000aq\001]q\002(K\001J\376\377\377\377M,"
            "\001Jp\021\001\000L1099511627776L\012L-9223372036854775808L\012eX\001\000\000\000tq\003("
            "I01\012NG\077\370\000\000\000\000\000\000tq\004X\001\000\000\000uq\005X\004\000\000\000\303\274"
            "\012'q\006X\001\000\000\000bq\007c_codecs\012encode\012q\010("
            "X\003\000\000\000\000\303\277q\011X\006\000\000\000latin1q\012tq\013Rq\014u."),
      BYTES("\200\002}q\000(X\001\000\000\000aq\001]q\002(K\001J\376\377\377\377M,"
            "\001Jp\021\001\000\212\006\000\000\000\000\000\001\212\010\000\000\000\000\000\000\000\200eX\001"
            "\000\000\000tq\003\210NG\077\370\000\000\000\000\000\000\207q\004X\001\000\000\000uq\005X\004"
            "\000\000\000\303\274\012'q\006X\001\000\000\000bq\007c_"
            "codecs\012encode\012q\010X\003\000\000\000\000\303\277q\011X\006\000\000\000latin1q\012\206q\013"
            "Rq\014u."),
      BYTES("\200\003}q\000(X\001\000\000\000aq\001]q\002(K\001J\376\377\377\377M,"
            "\001Jp\021\001\000\212\006\000\000\000\000\000\001\212\010\000\000\000\000\000\000\000\200eX\001"
            "\000\000\000tq\003\210NG\077\370\000\000\000\000\000\000\207q\004X\001\000\000\000uq\005X\004"
            "\000\000\000\303\274\012'q\006X\001\000\000\000bq\007C\002\000\377q\010u."),
      BYTES("\200\004\225S\000\000\000\000\000\000\000}\224(\214\001a\224]\224(K\001J\376\377\377\377M,"
            "\001Jp\021\001\000\212\006\000\000\000\000\000\001\212\010\000\000\000\000\000\000\000\200e\214"
            "\001t\224\210NG\077\370\000\000\000\000\000\000\207\224\214\001u\224\214\004\303\274\012'"
            "\224\214\001b\224C\002\000\377\224u."),
      BYTES("\200\005\225S\000\000\000\000\000\000\000}\224(\214\001a\224]\224(K\001J\376\377\377\377M,"
            "\001Jp\021\001\000\212\006\000\000\000\000\000\001\212\010\000\000\000\000\000\000\000\200e\214"
            "\001t\224\210NG\077\370\000\000\000\000\000\000\207\224\214\001u\224\214\004\303\274\012'"
            "\224\214\001b\224C\002\000\377\224u."),
  };
  for (const std::string_view bytes : kProtocols) {
    const Pickle pickle = load(bytes);
    EXPECT_EQ(text_of(pickle.root()), expected);
    EXPECT_EQ(pickle.size(), bytes.size());
  }
}

TEST(Pickle, StopsAtItsEnd) {
  const Pickle pickle = load("K\x07.rest");
  EXPECT_EQ(text_of(pickle.root()), "7");
  EXPECT_EQ(pickle.size(), 3u);
}

TEST(Pickle, ReadsOldAndRareOpcodes) {
  EXPECT_EQ(loaded("I01\n."), "True");
  EXPECT_EQ(loaded("I-12\n."), "-12");
  EXPECT_EQ(loaded("L123L\n."), "123");
  EXPECT_EQ(loaded("F0.25\n."), "0.25");
  EXPECT_EQ(loaded("S'it\\'s \\x41\\n'\n."), "'it's A\n'");
  EXPECT_EQ(loaded("S'\\xff'\n."), "b<\xff>");
  EXPECT_EQ(loaded("Va\\u00e9\\U0001F600\xe9\n."), "'a\xc3\xa9\xf0\x9f\x98\x80\xc3\xa9'");
  EXPECT_EQ(loaded(BYTES("U\x02hi.")), "'hi'");
  EXPECT_EQ(loaded(BYTES("T\x02\0\0\0hi.")), "'hi'");
  EXPECT_EQ(loaded("(I1\nI2\nl."), "[1, 2]");
  EXPECT_EQ(loaded("(I1\nI2\nd."), "{1: 2}");
  EXPECT_EQ(loaded("I1\n(I2\n1."), "1") << "POP_MARK";
  EXPECT_EQ(loaded("I1\n(0."), "1") << "POP takes a mark that is on top";
  EXPECT_EQ(loaded("I1\n2\x86."), "(1, 1)");
  EXPECT_EQ(loaded(BYTES("\x8f(K\x01K\x02\x90.")), "[1, 2]") << "a set";
  EXPECT_EQ(loaded(BYTES("(K\x01\x91.")), "[1]") << "a frozenset";
  EXPECT_EQ(loaded(BYTES("\x96\x02\0\0\0\0\0\0\0ab.")), "b<ab>") << "a bytearray";
  EXPECT_EQ(loaded(BYTES("\x8a\x09\0\0\0\0\0\0\0\0\1.")), "big(9)") << "2**64";
  EXPECT_EQ(loaded(BYTES("\x8a\x00.")), "0");
  EXPECT_EQ(loaded(BYTES("\x8a\x01\xff.")), "-1");
  EXPECT_EQ(loaded(BYTES("\x8b\x02\0\0\0\x00\x80.")), "-32768");
  EXPECT_EQ(loaded("I5\np3\n0g3\n."), "5") << "text forms of the memo";
}

TEST(Pickle, KnowsTheNamesOfStateDicts) {
  EXPECT_EQ(loaded("ccollections\nOrderedDict\n)R."), "{}");
  EXPECT_EQ(loaded("ccollections\nOrderedDict\n(((VA\nI1\nlltR."), "{'A': 1}") << "as Python 2 writes it";
  EXPECT_EQ(loaded("ctorch\nSize\n((I2\nI3\nttR."), "(2, 3)");
  EXPECT_EQ(loaded("ctorch\ndevice\n(Vcuda\nI1\ntR."), "'cuda:1'");
  EXPECT_EQ(loaded("ctorch\nbfloat16\n."), "torch.bfloat16");
  EXPECT_EQ(loaded("ctorch.serialization\n_get_layout\n(Vtorch.strided\ntR."), "'torch.strided'");
  EXPECT_EQ(loaded("c__builtin__\nset\n((I1\nltR."), "[1]") << "Python 2's name";
  EXPECT_EQ(loaded("(Vstorage\nctorch.cuda\nFloatStorage\nV3\nVcuda:0\nI12\ntQ."), "storage(3, 12)");
  EXPECT_EQ(loaded("ctorch._utils\n_rebuild_tensor_v2\n(NI0\n))I00\nNtR."), "a tensor");
  EXPECT_EQ(
      loaded("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n"
             "(NI0\n))I00\nNt}tR."),
      "a tensor");
  EXPECT_EQ(loaded("ccollections\nOrderedDict\n)R}V_metadata\nNsb."), "{}") << "attributes are not items";
}

TEST(Pickle, ReadsNumpysScalars) {
  EXPECT_EQ(loaded(BYTES(
                "\200\002cnumpy.core.multiarray\nscalar\nq\000cnumpy\ndtype\nq\001X\002\000\000\000f8q\002"
                "\211\210\207q\003Rq\004(K\003X\001\000\000\000<q\005NNNJ\377\377\377\377J\377\377\377\377"
                "K\000tq\006bc_codecs\nencode\nq\007X\011\000\000\000\000\000\000\000\000\000\303\270?q\010"
                "X\006\000\000\000latin1q\011\206q\012Rq\013\206q\014Rq\015.")),
            "1.5");
  EXPECT_EQ(loaded(BYTES(
                "\200\004\214\025numpy.core.multiarray\224\214\006scalar\224\223\224\214\005numpy\224\214\005"
                "dtype\224\223\224\214\002i4\224\211\210\207\224R\224(K\003\214\001<\224NNNJ\377\377\377\377"
                "J\377\377\377\377K\000t\224bC\004\007\000\000\000\224\206\224R\224.")),
            "7");
}

struct Malformed {
  std::string_view bytes;
  std::string_view error;
};

TEST(Pickle, SaysWhatIsWrong) {
  const Malformed kCases[] = {
      {"", "byte 0: expected 1 more bytes of the pickle, found 0"},
      {"K", "byte 0: expected 1 more bytes of the pickle, found 0"},
      {".", "byte 0: expected a value on the stack, found none"},
      {"N(.", "byte 2: expected a value on the stack, found none"},
      {"cos\nsystem\n.",
       "byte 0: the class or function 'os.system' is refused: only tensors, numbers, texts and "
       "containers are read"},
      {BYTES("\x8c\x02os\x8c\x06system\x93."), "byte 12: the class or function 'os.system' is refused"},
      {"ctorch.storage\n_load_from_bytes\n.", "'torch.storage._load_from_bytes' is refused"},
      {"cbuiltins\neval\n.", "'builtins.eval' is refused"},
      {"ios\nsystem\n.", "'os.system' is refused"},
      {"(icollections\nOrderedDict\n.",
       "found the instance of a class of Python 2, 'collections.OrderedDict'"},
      {"(ccollections\nOrderedDict\no.", "expected an opcode that state dicts are made of, found 0x6f"},
      {"Px\n.", "found 0x50"},
      {BYTES("\x82\x01."), "found 0x82"},
      {BYTES("\x97."), "found 0x97"},
      {BYTES("\x80\x06."), "byte 0: expected a protocol of at most 5, found 6"},
      {"t.", "byte 0: expected a mark on the stack, found none"},
      {"a.", "expected a value on the stack, found none"},
      {"NNa.", "expected a list to append to, found None"},
      {")Na.", "expected a list to append to, found a sequence"},
      {"NNNs.", "expected a dictionary, found None"},
      {"}(NNNu.", "expected keys and values, found 3 items"},
      {"h\x01.", "byte 0: expected a memo index that was set, found 1"},
      {"g-1\n.", "expected a memo index that was set"},
      {BYTES("Nr\xff\xff\xff\x7f."), "byte 1: expected a memo index below 6, found 2147483647"},
      {"q\x01.", "expected a value on the stack, found none"},
      {BYTES("X\x01\0\0\0\xff."), "expected a text in UTF-8, found other bytes"},
      {BYTES("X\xff\xff\xff\xffx."), "byte 0: expected 4294967295 more bytes of the pickle, found 2"},
      {BYTES("\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), "expected 18446744073709551615 more bytes"},
      {"I12", "expected a line, found the end of the pickle"},
      {"I1x\n.", "expected an integer of 64 bits, found '1x'"},
      {"L99999999999999999999L\n.", "expected an integer of 64 bits"},
      {"Fx\n.", "expected a number, found 'x'"},
      {"Sx\n.", "expected a quoted text, found 'x'"},
      {"S'\\q'\n.", "expected an escape of Python, found '\\q'"},
      {"V\\uD800\n.", "expected a character's code, found '\\uD800'"},
      {"N)R.", "expected a function to call, found None"},
      {"ccollections\nOrderedDict\nNR.", "expected a tuple of arguments, found None"},
      {"ctorch\nfloat16\n)R.", "torch.float16: expected as a value, found a call"},
      {"ctorch._utils\n_rebuild_tensor_v2\n)R.",
       "torch._utils._rebuild_tensor_v2: expected at least 1 arguments, found 0"},
      {"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN)}tR.",
       "expected a function that rebuilds a tensor, found torch._tensor._rebuild_from_type_v2"},
      {"c_codecs\nencode\n(Vx\nVrot13\ntR.", "_codecs.encode: expected the codec latin1, found a text"},
      {"ccollections\nOrderedDict\n(I1\ntR.",
       "expected a dictionary or a list of pairs, found the integer 1"},
      {"NNb.", "expected a dictionary or a tensor to set attributes of, found None"},
      {"NQ.", "persistent id: expected that of a storage, found None"},
      {"(Vmodule\nNNNtQ.", "found a whole Python module (save its state_dict() instead)"},
      {"(Vstorage\nNV0\nVcpu\nI1\ntQ.", "persistent id: expected a storage type, found None"},
      {"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI-1\ntQ.",
       "expected an integer from 0 up, found the integer -1"},
      {"(Vstorage\nctorch\nFloatStorage\nV0\ntQ.", "persistent id: expected 5 or 6 items, found 3"},
      {"ctorch\nComplexFloatStorage\n.", "'torch.ComplexFloatStorage' is refused"},
  };
  for (const auto& [bytes, error] : kCases) {
    EXPECT_THAT(error_of([&] { load(bytes); }), HasSubstr(std::string(error))) << bytes;
    EXPECT_THAT(error_of([&] { load(bytes); }), ::testing::StartsWith("p: byte "));
  }
}

TEST(Pickle, DoesNotMultiplyWhatItReads) {
  // A text of 1000 bytes, turned into bytes a thousand times by name.
  std::string bytes = "c_codecs\nencode\np0\n(V" + std::string(1000, 'x') + "\nVlatin1\ntp1\n";
  for (int i = 0; i < 1000; ++i) bytes += "g0\ng1\nR0";
  EXPECT_THAT(error_of([&] { load(bytes + "."); }), HasSubstr("as many copied bytes as were read"));
}

TEST(Pickle, SurvivesEveryCutAndEveryFlippedByte) {
  const std::string whole(
      BYTES("\200\002}q\000(X\001\000\000\000aq\001]q\002(K\001J\376\377\377\377M,\001eX\001\000"
            "\000\000bq\003c_codecs\nencode\nq\004X\001\000\000\000yX\006\000\000\000latin1\206Ru."));
  ASSERT_EQ(error_of([&] { load(whole); }), "(no error)");
  for (size_t cut = 0; cut < whole.size(); ++cut)
    EXPECT_NE(error_of([&] { load(std::string_view(whole).substr(0, cut)); }), "(no error)");
  for (size_t i = 0; i < whole.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string flipped = whole;
      flipped[i] = static_cast<char>(value);
      try {
        load(flipped);
      } catch (const Error&) {  // any other exception fails the test
      }
    }
  }
}

}  // namespace
}  // namespace qkv
