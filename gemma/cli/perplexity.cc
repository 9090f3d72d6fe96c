#include <cmath>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <gemma/cli/interrupt.h>
#include <gemma/cli/log_probs_file.h>
#include <gemma/cli/model_options.h>
#include <gemma/cli/output.h>
#include <gemma/cli/perplexity.h>
#include <gemma/cli/text_file.h>
#include <gemma/generate/log_probs.h>

namespace gemma::cli {
namespace {

struct PerplexityOptions {
  ModelOptions model;
  std::string file;
  int64_t ctx_size = 512;
  std::string save;  // Empty: not.
  std::string kl;    // Empty: no comparison.
};

// Sums over positions.
struct Totals {
  double nll = 0, divergence = 0;
  int64_t agreeing = 0;
};

void add_likelihoods(std::span<const int64_t> tokens, const at::Tensor& log_probs, Totals& totals) {
  const auto ids = at::tensor(tokens, log_probs.options().dtype(at::kLong)).unsqueeze(1);
  totals.nll -= log_probs.gather(1, ids).to(at::kDouble).sum().item<double>();
}

// Of `log_probs` from `saved`: sum of p_saved * (log p_saved - log p).
void add_divergences(const at::Tensor& saved, const at::Tensor& log_probs, Totals& totals) {
  // Rounding to float16 moved the sum of the probabilities from 1; without this a run would be at a
  // distance from itself.
  const auto base = saved.log_softmax(-1);
  totals.divergence += (base.exp() * (base - log_probs))
                           .sum(-1, /*keepdim=*/false, at::kDouble)
                           .sum()
                           .item<double>();
  totals.agreeing += (saved.argmax(-1) == log_probs.argmax(-1)).sum().item<int64_t>();
}

void perplexity(const PerplexityOptions& options) {
  const auto content = read_text_file("perplexity", options.file);
  const auto kv_dtype = kv_dtype_of(options.model);
  const auto model = load_model(options.model);
  if (const auto most = model->max_positions(); options.ctx_size > most) {
    throw std::invalid_argument(fmt::format(
        "--ctx_size is {}, but the model sees {} tokens at most", options.ctx_size, most));
  }
  const auto& tokenizer = model->tokenizer();
  const LogProbsText text{.vocab_size = model->vocab_size(),
                          .window = options.ctx_size,
                          .tokens = tokenizer.encode(content, /*bos=*/false)};
  if (text.tokens.empty()) {
    throw std::runtime_error(
        fmt::format("perplexity: {} is empty; give a file with some text", options.file));
  }
  std::optional<LogProbsWriter> writer;
  std::optional<LogProbsReader> reader;
  if (!options.kl.empty()) reader.emplace(options.kl, text);
  if (!options.save.empty()) writer.emplace(options.save, text);
  const InterruptGuard guard;

  Totals totals;
  log_probs(model, tokenizer.bos_id(), text.tokens,
            {.window = options.ctx_size, .kv_dtype = kv_dtype},
            [&](std::span<const int64_t> tokens, const at::Tensor& values) {
              check_interrupt();
              const auto rows = values.cpu();
              add_likelihoods(tokens, rows, totals);
              if (reader) add_divergences(reader->read(rows.size(0)), rows, totals);
              if (writer) writer->write(rows);
            });
  if (writer) writer->finish();

  const auto count = static_cast<double>(text.tokens.size());
  show("tokens      {}\n", text.tokens.size());
  show("nll         {:.6f} a token\n", totals.nll / count);
  show("perplexity  {:.4f}\n", std::exp(totals.nll / count));
  if (!reader) return;
  show("KL          {:.3e} a token, from {}\n", totals.divergence / count, options.kl);
  show("same top    {:.2f} % of tokens\n", 100 * static_cast<double>(totals.agreeing) / count);
}

}  // namespace

void add_perplexity(CLI::App& app) {
  const auto options = std::make_shared<PerplexityOptions>();
  auto* command = app.add_subcommand("perplexity", "Measure how well a model expects a text.");
  command->add_option("file", options->file, "Text, UTF-8")->required();
  add_model_options(*command, options->model);
  command
      ->add_option("-c," + both("ctx_size"), options->ctx_size,
                   "Most tokens that the model sees together; the text is cut into windows of them")
      ->check(CLI::Range(2, 10'000'000))
      ->capture_default_str();
  command->add_option("--save", options->save,
                      "Write the log-probabilities to this file; large: two bytes for each token "
                      "of the text and of the vocabulary");
  command->add_option("--kl", options->kl, "Compare with the file that another run saved");
  command->callback([options] {
    options->model.takes_recurrentgemma = true;
    perplexity(*options);
  });
}

}  // namespace gemma::cli
