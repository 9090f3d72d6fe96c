#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace gemma::cli {

/// Measurements of one thing.
class Samples {
 public:
  void add(double value) { values_.push_back(value); }
  double median() const;
  double min() const;
  double max() const;
  const std::vector<double>& values() const { return values_; }
  bool empty() const { return values_.empty(); }

 private:
  std::vector<double> values_;
};

/// One measured value in each repetition divided by another of the same repetition -> the median.
double median_ratio(const Samples& numerators, const Samples& denominators);

struct Cell {
  std::string key;    // In CSV and JSON.
  std::string title;  // In Markdown.
  std::variant<std::monostate, std::string, int64_t, double, Samples> value;
};

/// Prints rows, all of the same columns, to standard output as they come.
class BenchTable {
 public:
  /// "md", "csv" or "json".
  explicit BenchTable(std::string format) : format_(std::move(format)) {}

  void add(const std::vector<Cell>& row);
  /// After the last row.
  void finish() const;

 private:
  std::string format_;
  bool started_ = false;
};

}  // namespace gemma::cli
