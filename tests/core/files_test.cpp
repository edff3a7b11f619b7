#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "qkv/core/atomic_file.h"
#include "qkv/core/error.h"
#include "qkv/core/json.h"
#include "qkv/core/mapped_file.h"
#include "tests/support/test_paths.h"

namespace qkv {
namespace {

using test::error_of;

size_t count_entries(const std::string& directory) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory), {}));
}

TEST(AtomicFile, AppearsOnlyOnCommit) {
  test::TemporaryDirectory dir;
  write_file(dir / "a", "old");
  {
    AtomicFile file(dir / "a");
    file.write("new");
  }
  EXPECT_EQ(read_file(dir / "a"), "old");
  EXPECT_EQ(count_entries(dir.path()), 1u) << "the temporary file is gone";
  write_file(dir / "a", "new");
  EXPECT_EQ(read_file(dir / "a"), "new");
}

TEST(AtomicFile, KeepsTheOrderOfSmallAndLargePieces) {
  test::TemporaryDirectory dir;
  std::string expected;
  AtomicFile file(dir / "a");
  for (const size_t size : {size_t{3}, size_t{1} << 20, size_t{5}, (size_t{1} << 20) - 1, size_t{7},
                            size_t{3} << 20, size_t{0}, size_t{1}}) {
    const std::string piece(size, static_cast<char>('a' + expected.size() % 26));
    file.write(piece);
    expected += piece;
    EXPECT_EQ(file.size(), expected.size());
  }
  file.commit();
  EXPECT_TRUE(read_file(dir / "a") == expected);
}

TEST(AtomicFile, NamesTheFullDisk) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP();
  test::TemporaryDirectory dir;
  const std::string message = error_of([&] { write_file("/nonexistent-directory/x", "data"); });
  EXPECT_NE(message.find("/nonexistent-directory/x: cannot create"), std::string::npos) << message;
}

TEST(AtomicDirectory, ReplacesWholeOrNotAtAll) {
  test::TemporaryDirectory dir;
  for (const char* content : {"one", "two"}) {
    AtomicDirectory target(dir / "model");
    write_file(target.path() + "/f", content);
    target.commit();
    EXPECT_EQ(read_file(dir / "model/f"), content);
  }
  {
    AtomicDirectory abandoned(dir / "model");
    write_file(abandoned.path() + "/f", "three");
  }
  EXPECT_EQ(read_file(dir / "model/f"), "two");
  EXPECT_EQ(count_entries(dir.path()), 1u);
}

TEST(MappedFile, RefusesDirectoriesAndAbsence) {
  test::TemporaryDirectory dir;
  EXPECT_NE(error_of([&] { MappedFile::open(dir.path()); }).find("regular file"), std::string::npos);
  EXPECT_NE(error_of([&] { MappedFile::open(dir / "none"); }).find("No such file"), std::string::npos);
  write_file(dir / "empty", "");
  EXPECT_TRUE(MappedFile::open(dir / "empty")->bytes().empty());
}

TEST(Json, ErrorsNameFileKeyAndValue) {
  const Json json = parse_json(R"({"a": {"b": "x"}, "n": 3, "big": 18446744073709551615})", "f.json");
  const JsonView view(json, "f.json");
  EXPECT_EQ(view.integer("n"), 3);
  EXPECT_EQ(error_of([&] { view.object("a").integer("b"); }),
            "f.json: key 'a.b': expected an integer, found \"x\"");
  EXPECT_EQ(error_of([&] { view.string("zz"); }), "f.json: key 'zz': expected a string, found nothing");
  EXPECT_EQ(error_of([&] {
              view.refuse_unknown({"a", "m", "bin"});
            }),
            "f.json: unknown key 'n'; did you mean 'a'?");
  EXPECT_NE(error_of([&] { view.integer("big"); }).find("below 2^63"), std::string::npos);
}

TEST(Json, RefusesBadTextWithAPosition) {
  EXPECT_NE(error_of([&] {
              parse_json("{\"a\": }", "f.json");
            }).find("f.json: not valid JSON: parse error at line 1"),
            std::string::npos);
  EXPECT_NE(error_of([&] { parse_json(std::string(100000, '['), "f.json"); }).find("deeper"),
            std::string::npos);
}

TEST(Yaml, ReadsScalarsByTheirKind) {
  test::TemporaryDirectory dir;
  write_file(dir / "c.yaml", "a: 1\nb: 2.5e-4\nc: true\nd: text\ne: [1, x]\nf:\n  g: '7'\nh: null\n");
  const Json json = load_yaml(dir / "c.yaml");
  EXPECT_EQ(dump_json(json), R"({"a":1,"b":0.00025,"c":true,"d":"text","e":[1,"x"],"f":{"g":"7"},"h":null})");
  save_yaml(dir / "d.yaml", json);
  EXPECT_EQ(load_yaml(dir / "d.yaml"), json);
  write_file(dir / "bad.yaml", "a: [1, 2\nb: 3\n");
  EXPECT_NE(error_of([&] { load_yaml(dir / "bad.yaml"); }).find("not valid YAML"), std::string::npos);
  write_file(dir / "twice.yaml", "a: 1\na: 2\n");
  EXPECT_NE(error_of([&] { load_yaml(dir / "twice.yaml"); }).find("line 2: key 'a' appears twice"),
            std::string::npos);
}

}  // namespace
}  // namespace qkv
