#include <cstddef>
#include <optional>
#include <random>
#include <span>
#include <string>

#include <gtest/gtest.h>

#include <gemma/server/base64.h>

namespace gemma::server {
namespace {

std::string encoded(const std::string& bytes) { return to_base64(std::as_bytes(std::span(bytes))); }

TEST(Base64Test, IsThatOfTheStandard) {
  // RFC 4648, section 10.
  EXPECT_EQ(encoded(""), "");
  EXPECT_EQ(encoded("f"), "Zg==");
  EXPECT_EQ(encoded("fo"), "Zm8=");
  EXPECT_EQ(encoded("foo"), "Zm9v");
  EXPECT_EQ(encoded("foob"), "Zm9vYg==");
  EXPECT_EQ(encoded("foobar"), "Zm9vYmFy");
  EXPECT_EQ(encoded("\xfb\xff\xfe"), "+//+");
}

TEST(Base64Test, BytesComeBack) {
  std::minstd_rand random(1);
  for (size_t size = 0; size < 200; ++size) {
    std::string bytes;
    for (size_t i = 0; i < size; ++i) bytes += static_cast<char>(random() & 0xff);
    EXPECT_EQ(from_base64(encoded(bytes)), bytes);
  }
}

TEST(Base64Test, RefusesWhatNoBytesBecome) {
  for (const auto* text : {"Zg", "Zg=", "Zg===", "Z===", "====", "=", "Zg==Zg==", "Zm9v\n", " Zm9v",
                           "Zm-_", "Zh==", "Zm9=", "Zm=v", "Zm9v====", "\xff\xff\xff\xff"}) {
    EXPECT_EQ(from_base64(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace gemma::server
