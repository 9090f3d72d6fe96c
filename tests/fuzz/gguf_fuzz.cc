// The reader of GGUF on any bytes: it answers or throws std::runtime_error with one line, what it
// answers lies inside the bytes, and so does what is computed from it. Without LibTorch.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/checks.h"

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/gguf.h>
#include <gemma/checkpoint/gguf_blocks.h>

namespace {

using gemma::fuzz::require;
using gemma::fuzz::run;
using gemma::fuzz::touch;

void check_entry(const gemma::TensorEntry& entry, gemma::Bytes file) {
  require(entry.sizes.size() == entry.strides.size() && entry.sizes.size() <= 4);
  require(gemma::fits(entry.offset, entry.nbytes, file.size()));
  const auto bytes = file.subspan(entry.offset, entry.nbytes);
  touch(bytes);
  uint64_t elements = 1;
  for (const int64_t size : entry.sizes) {
    require(size >= 0);
    elements *= static_cast<uint64_t>(size);
  }
  if (entry.encoding == gemma::Encoding::kPlain) {
    require(elements == 0 ? entry.nbytes == 0 : entry.nbytes % elements == 0);
    return;
  }
  const auto& format = gemma::block_format(entry.encoding);
  require(elements % format.elements == 0);
  require(elements / format.elements * format.bytes == entry.nbytes);
  std::vector<float> values(elements);
  gemma::dequantize(entry.encoding, bytes, values);
}

template <typename T>
void get(const gemma::GgufMetadata& metadata, std::string_view key) {
  run([&] { metadata.get<T>(key); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const gemma::Bytes bytes = std::as_bytes(std::span(data, size));
  run([&] {
    const gemma::GgufFile file = gemma::read_gguf(bytes, "x");
    for (const auto& [key, value] : file.metadata.values()) {
      touch(value.bytes);
      get<int64_t>(file.metadata, key);
      get<double>(file.metadata, key);
      get<bool>(file.metadata, key);
      get<std::string>(file.metadata, key);
      get<std::vector<int64_t>>(file.metadata, key);
      get<std::vector<double>>(file.metadata, key);
      get<std::vector<bool>>(file.metadata, key);
      get<std::vector<std::string>>(file.metadata, key);
    }
    for (const auto& entry : file.tensors) check_entry(entry, bytes);
  });
  return 0;
}
