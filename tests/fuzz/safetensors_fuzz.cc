// The reader of safetensors on any bytes: it answers or throws std::runtime_error with one line,
// and what it answers lies inside the bytes, each of them in one tensor. Bytes that begin with a
// brace are a header, given its length and some data, for mutations that would not keep the length.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/checks.h"

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/safetensors.h>

namespace {

using gemma::fuzz::require;
using gemma::fuzz::run;

uint64_t elements_of(const gemma::TensorEntry& entry) {
  uint64_t elements = 1;
  for (size_t d = entry.sizes.size(); d-- > 0;) {
    require(entry.sizes[d] >= 0 && entry.strides[d] > 0);
    elements *= static_cast<uint64_t>(entry.sizes[d]);
  }
  return elements;
}

void read_and_check(gemma::Bytes file) {
  run([&] {
    uint64_t total = 0;
    for (const auto& entry : gemma::read_safetensors(file, "x")) {
      require(gemma::fits(entry.offset, entry.nbytes, file.size()));
      require(entry.nbytes == elements_of(entry) * c10::elementSize(entry.dtype));
      total += entry.nbytes;
    }
    const auto header = gemma::load<uint64_t>(file, 0, "header");
    require(total == file.size() - 8 - header);
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  read_and_check(bytes);
  if (size > 0 && data[0] == '{') {
    constexpr size_t kData = 24;
    const uint64_t length = size;
    std::vector<std::byte> file(sizeof(length) + size + kData);  // Of its own size, for ASan.
    std::memcpy(file.data(), &length, sizeof(length));
    std::ranges::copy(bytes, file.begin() + sizeof(length));
    read_and_check(file);
  }
  return 0;
}
