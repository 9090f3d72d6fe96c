#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include <gemma/checkpoint/output_file.h>

namespace gemma::cli {

/// What the log-probabilities in a file are of. Two files, or a file and a run, can be compared
/// when theirs are equal.
struct LogProbsText {
  int64_t vocab_size;
  int64_t window;
  std::vector<int64_t> tokens;

  bool operator==(const LogProbsText&) const = default;
};

/// Writes log-probabilities as float16: a header, the tokens, a row of the vocabulary's size for
/// each. The file appears when it is finished. Throws std::runtime_error, naming the file, when
/// that fails.
class LogProbsWriter {
 public:
  LogProbsWriter(const std::string& path, const LogProbsText& text);
  /// The next rows, float32 [rows, V].
  void write(const at::Tensor& log_probs);
  void finish();

 private:
  void put(const void* data, int64_t size);
  OutputFile file_;
};

/// Reads them again. Throws std::runtime_error, naming the file, for one that is no such file, of
/// another text, vocabulary or window, or cut short.
class LogProbsReader {
 public:
  LogProbsReader(const std::string& path, const LogProbsText& text);
  /// The next rows, float32 [rows, V].
  at::Tensor read(int64_t rows);

 private:
  void get(void* data, int64_t size);
  std::string path_;
  std::ifstream file_;
  int64_t vocab_size_;
};

}  // namespace gemma::cli
