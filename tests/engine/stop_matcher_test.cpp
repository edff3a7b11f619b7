// Stop strings, whatever pieces the text comes in.
#include "qkv/engine/stop_matcher.h"

#include <gtest/gtest.h>

#include "tests/support/test_paths.h"

namespace qkv {
namespace {

struct Streamed {
  std::string text;
  bool matched;
};

// Pushes `text` in pieces of `size` bytes.
Streamed stream(const std::vector<std::string>& stops, const std::string& text, size_t size) {
  StopMatcher matcher(stops);
  std::string result;
  for (size_t i = 0; i < text.size(); i += size) {
    result += matcher.push(text.substr(i, size));
    // Nothing that has been passed on is part of a stop string.
    for (const auto& stop : stops) EXPECT_EQ(result.find(stop), std::string::npos);
  }
  return {result + matcher.finish(), matcher.matched()};
}

TEST(StopMatcher, EndsTheTextBeforeTheStopStringForEveryCut) {
  const std::string text = "one\n\nQ: two\nQ: three";
  for (size_t size = 1; size <= text.size(); ++size) {
    const Streamed result = stream({"\nQ:"}, text, size);
    EXPECT_EQ(result.text, "one\n") << size;
    EXPECT_TRUE(result.matched);
  }
}

TEST(StopMatcher, TheStopStringThatIsCompleteFirstWins) {
  for (size_t size = 1; size <= 8; ++size) {
    EXPECT_EQ(stream({"abcd", "bc"}, "xxabcdyy", size).text, "xxa") << size;
    EXPECT_EQ(stream({"c", "abc"}, "xxabcdyy", size).text, "xx") << size;  // both end at once: the longer
  }
}

TEST(StopMatcher, GivesBackWhatOnlyLookedLikeAStop) {
  for (size_t size = 1; size <= 6; ++size) {
    const Streamed result = stream({"<end>"}, "a<en b<end", size);
    EXPECT_EQ(result.text, "a<en b<end") << size;
    EXPECT_FALSE(result.matched);
  }
}

TEST(StopMatcher, OverlapsItself) {
  EXPECT_EQ(stream({"aab"}, "aaab", 1).text, "a");
}

TEST(StopMatcher, HoldsBackOnlyAPossibleBeginning) {
  StopMatcher matcher({"STOP"});
  EXPECT_EQ(matcher.push("Hello S"), "Hello ");
  EXPECT_EQ(matcher.push("T"), "");
  EXPECT_EQ(matcher.push("A"), "STA");
  EXPECT_EQ(matcher.push("no STOP more"), "no ");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, WithoutStopsEverythingPasses) {
  EXPECT_EQ(stream({}, "text", 3).text, "text");
}

TEST(StopMatcher, AnEmptyStopStringIsAnError) {
  EXPECT_EQ(test::error_of([] {
              StopMatcher({"a", ""});
            }),
            "stop string: expected text, found an empty string");
}

}  // namespace
}  // namespace qkv
