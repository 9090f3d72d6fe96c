#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <gemma/cli/bench/bench_table.h>
#include <gemma/cli/output.h>

namespace gemma::cli {
namespace {

using Json = nlohmann::ordered_json;

template <typename... Uses>
struct Overloaded : Uses... {
  using Uses::operator()...;
};

void print_line(const std::string& line) {
  show("{}\n", line);
  // A row may take minutes: it is to be seen when it is done.
  if (std::fflush(stdout) != 0) throw std::runtime_error("standard output cannot be written to");
}

std::string number(double value) { return fmt::format("{:.{}f}", value, value < 100 ? 2 : 1); }

std::string markdown(const Cell& cell) {
  return std::visit(Overloaded{
                        [](std::monostate) { return std::string(); },
                        [](const std::string& text) { return text; },
                        [](int64_t count) { return fmt::format("{}", count); },
                        [](double value) { return number(value); },
                        [](const Samples& samples) {
                          if (samples.empty()) return std::string();
                          return fmt::format("{} ({} - {})", number(samples.median()),
                                             number(samples.min()), number(samples.max()));
                        },
                    },
                    cell.value);
}

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string result = "\"";
  for (const auto c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
  return result + '"';
}

// Name and text of the columns that a cell makes.
std::vector<std::pair<std::string, std::string>> csv_columns(const Cell& cell) {
  return std::visit(
      Overloaded{
          [&](std::monostate) { return std::vector{std::pair(cell.key, std::string())}; },
          [&](const std::string& text) { return std::vector{std::pair(cell.key, quoted(text))}; },
          [&](int64_t count) { return std::vector{std::pair(cell.key, fmt::format("{}", count))}; },
          [&](double value) { return std::vector{std::pair(cell.key, fmt::format("{}", value))}; },
          [&](const Samples& samples) {
            const auto text = [](double value) { return fmt::format("{}", value); };
            const auto none = samples.empty();
            return std::vector{
                std::pair(cell.key, none ? "" : text(samples.median())),
                std::pair(cell.key + "_min", none ? "" : text(samples.min())),
                std::pair(cell.key + "_max", none ? "" : text(samples.max())),
            };
          },
      },
      cell.value);
}

Json json_of(const Cell& cell) {
  return std::visit(Overloaded{
                        [](std::monostate) { return Json(); },
                        [](const Samples& samples) {
                          if (samples.empty()) return Json();
                          return Json{{"median", samples.median()},
                                      {"min", samples.min()},
                                      {"max", samples.max()},
                                      {"samples", samples.values()}};
                        },
                        [](const auto& value) { return Json(value); },
                    },
                    cell.value);
}

}  // namespace

double Samples::median() const {
  auto sorted = values_;
  std::sort(sorted.begin(), sorted.end());
  const auto half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

double Samples::min() const { return *std::min_element(values_.begin(), values_.end()); }
double Samples::max() const { return *std::max_element(values_.begin(), values_.end()); }

double median_ratio(const Samples& numerators, const Samples& denominators) {
  Samples ratios;
  for (size_t i = 0; i < numerators.values().size(); ++i) {
    ratios.add(numerators.values()[i] / denominators.values()[i]);
  }
  return ratios.median();
}

void BenchTable::add(const std::vector<Cell>& row) {
  if (format_ == "json") {
    Json object;
    for (const auto& cell : row) object[cell.key] = json_of(cell);
    print_line((started_ ? ",\n" : "[\n") + object.dump(2));
  } else {
    std::vector<std::string> titles;
    std::vector<std::string> texts;
    for (const auto& cell : row) {
      if (format_ == "md") {
        titles.push_back(cell.title);
        texts.push_back(markdown(cell));
      } else {
        for (const auto& [name, text] : csv_columns(cell)) {
          titles.push_back(name);
          texts.push_back(text);
        }
      }
    }
    const bool md = format_ == "md";
    const auto line = [&](const std::vector<std::string>& columns) {
      print_line(md ? fmt::format("| {} |", fmt::join(columns, " | "))
                    : fmt::format("{}", fmt::join(columns, ",")));
    };
    if (!started_) line(titles);
    if (!started_ && md) line(std::vector<std::string>(titles.size(), "---"));
    line(texts);
  }
  started_ = true;
}

void BenchTable::finish() const {
  if (format_ == "json") print_line(started_ ? "]" : "[]");
}

}  // namespace gemma::cli
