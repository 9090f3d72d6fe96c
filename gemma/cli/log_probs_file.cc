#include <array>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/cli/log_probs_file.h>

namespace gemma::cli {
namespace {

constexpr std::string_view kMagic = "gemma log-probs 1\n";

// Vocabulary, window, tokens.
using Numbers = std::array<int64_t, 3>;

Numbers numbers_of(const LogProbsText& text) {
  return {text.vocab_size, text.window, std::ssize(text.tokens)};
}

constexpr int64_t kTokenBytes = sizeof(int64_t);

}  // namespace

LogProbsWriter::LogProbsWriter(const std::string& path, const LogProbsText& text)
    : file_(path, /*overwrite=*/true) {
  const auto numbers = numbers_of(text);
  put(kMagic.data(), std::ssize(kMagic));
  put(numbers.data(), sizeof(numbers));
  put(text.tokens.data(), std::ssize(text.tokens) * kTokenBytes);
}

void LogProbsWriter::put(const void* data, int64_t size) {
  file_.write({static_cast<const std::byte*>(data), static_cast<size_t>(size)});
}

void LogProbsWriter::write(const at::Tensor& log_probs) {
  const auto rows = log_probs.to(at::kHalf).contiguous().cpu();
  put(rows.const_data_ptr(), static_cast<int64_t>(rows.nbytes()));
}

void LogProbsWriter::finish() { file_.commit(); }

LogProbsReader::LogProbsReader(const std::string& path, const LogProbsText& text)
    : path_(path), file_(path, std::ios::binary), vocab_size_(text.vocab_size) {
  if (!file_) {
    throw std::runtime_error(
        fmt::format("--kl {}: cannot be read: {}", path, std::strerror(errno)));
  }
  std::string magic(kMagic.size(), '\0');
  file_.read(magic.data(), std::ssize(magic));
  if (magic != kMagic) {
    throw std::runtime_error(
        fmt::format("--kl {}: is no file of log-probabilities; make one with --save", path));
  }
  Numbers numbers{};
  get(numbers.data(), sizeof(numbers));
  const auto want = numbers_of(text);
  const std::array names{"vocabulary", "window (--ctx-size)", "number of tokens"};
  for (size_t i = 0; i < names.size(); ++i) {
    if (numbers[i] == want[i]) continue;
    throw std::runtime_error(fmt::format("--kl {}: its {} is {}, but this run's is {}", path,
                                         names[i], numbers[i], want[i]));
  }
  std::vector<int64_t> tokens(text.tokens.size());
  get(tokens.data(), std::ssize(tokens) * kTokenBytes);
  if (tokens != text.tokens) {
    throw std::runtime_error(fmt::format("--kl {}: was made from another text", path));
  }
}

void LogProbsReader::get(void* data, int64_t size) {
  file_.read(static_cast<char*>(data), size);
  if (file_.gcount() != size) {
    throw std::runtime_error(
        fmt::format("--kl {}: ends too early; was the run that saved it interrupted?", path_));
  }
}

at::Tensor LogProbsReader::read(int64_t rows) {
  const auto halves = at::empty({rows, vocab_size_}, at::kHalf);
  get(halves.mutable_data_ptr(), static_cast<int64_t>(halves.nbytes()));
  return halves.to(at::kFloat);
}

}  // namespace gemma::cli
