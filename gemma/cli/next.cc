#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <gemma/cli/interrupt.h>
#include <gemma/cli/json_text.h>
#include <gemma/cli/model_options.h>
#include <gemma/cli/next.h>
#include <gemma/cli/output.h>
#include <gemma/generate/log_probs.h>

namespace gemma::cli {
namespace {

struct NextOptions {
  ModelOptions model;
  std::string text;
  int64_t count = 10;
  bool json = false;
};

struct Candidate {
  int64_t id;
  std::string piece;
  double probability;
};

std::vector<Candidate> candidates_of(const EngineModel& model,
                                     const std::vector<int64_t>& tokens,
                                     const NextOptions& options) {
  // Log-probabilities are told of tokens that are there: one more has those of what follows.
  auto asked = tokens;
  asked.push_back(0);
  at::Tensor last;
  log_probs(model, model->tokenizer().bos_id(), asked,
            {.window = std::ssize(asked) + 1, .kv_dtype = kv_dtype_of(options.model)},
            [&](std::span<const int64_t> /*tokens*/, const at::Tensor& values) {
              check_interrupt();
              last = values[-1].to(at::kDouble).cpu();
            });
  const auto [values, ids] = last.exp().topk(std::min(options.count, last.size(0)));
  std::vector<Candidate> candidates;
  for (int64_t i = 0; i < ids.size(0); ++i) {
    const auto id = ids[i].item<int64_t>();
    candidates.push_back({id, model->tokenizer().id_to_piece(id), values[i].item<double>()});
  }
  return candidates;
}

// As long as a probability is large, in eighths of a character.
std::string bar(double probability) {
  constexpr int kWidth = 40;
  constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const auto eighths = static_cast<int>(std::lround(probability * kWidth * 8));
  std::string text;
  for (int i = 0; i < eighths / 8; ++i) text += "█";
  return text + kEighths[eighths % 8];
}

void print_table(const std::vector<Candidate>& candidates) {
  show("{:>4}  {:>7}  {:>8}  {}\n", "rank", "id", "prob", "piece");
  for (size_t i = 0; i < candidates.size(); ++i) {
    const auto& [id, piece, probability] = candidates[i];
    show("{:>4}  {:>7}  {:>6.2f} %  {:<20}  {}\n", i + 1, id, 100 * probability, to_json(piece),
         bar(probability));
  }
}

void print_json(const std::vector<Candidate>& candidates) {
  auto rows = nlohmann::ordered_json::array();
  for (size_t i = 0; i < candidates.size(); ++i) {
    rows.push_back({{"rank", i + 1},
                    {"id", candidates[i].id},
                    {"piece", candidates[i].piece},
                    {"probability", candidates[i].probability}});
  }
  show("{}\n", to_json(rows, /*indent=*/2));
}

void next(const NextOptions& options) {
  const auto model = load_model(options.model);
  const auto tokens = model->tokenizer().encode(options.text, /*bos=*/false);
  const auto most = model->max_positions();
  if (std::ssize(tokens) + 2 > most) {
    throw std::invalid_argument(fmt::format(
        "next: the text has {} tokens, but the model sees {} at most", tokens.size(), most - 2));
  }
  const InterruptGuard guard;
  const auto candidates = candidates_of(model, tokens, options);
  options.json ? print_json(candidates) : print_table(candidates);
}

}  // namespace

void add_next(CLI::App& app) {
  const auto options = std::make_shared<NextOptions>();
  auto* command = app.add_subcommand(
      "next", "Show the tokens that a model expects after a text, and how much.");
  command->add_option("text", options->text, "The text; bos is put before it")->required();
  add_model_options(*command, options->model);
  command->add_option("-n,--count", options->count, "How many of the likeliest tokens")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_flag("--json", options->json, "Print a list of objects");
  command->callback([options] {
    options->model.takes_recurrentgemma = true;
    next(*options);
  });
}

}  // namespace gemma::cli
