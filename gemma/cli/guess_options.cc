#include <stdexcept>

#include <fmt/format.h>

#include <gemma/cli/guess_options.h>

namespace gemma::cli {

void add_guess_options(CLI::App& command, GuessOptions& options) {
  constexpr int kMost = 15;
  command
      .add_option(both("prompt_lookup"), options.prompt_lookup,
                  "Most tokens to guess at a time, from where the text said before what it says "
                  "now: the same text, sooner where it repeats itself")
      ->check(CLI::Range(0, kMost).description(""))
      ->capture_default_str();
  auto* draft = command.add_option(
      "--draft", options.draft,
      "Checkpoint of a smaller model of the same vocabulary, which guesses: the same text, sooner "
      "where it is right");
  command
      .add_option(both("draft_tokens"), options.draft_tokens, "Tokens that it guesses at a time")
      ->check(CLI::Range(1, kMost).description(""))
      ->needs(draft)
      ->capture_default_str();
}

void check_guesses(const GuessOptions& options,
                   const ModelOptions& model_options,
                   const OpenCheckpoint& checkpoint) {
  if (!options.are_given()) return;
  const auto* const flag = options.draft.empty() ? "--prompt_lookup" : "--draft";
  if (numerics_of(model_options) != Numerics::kFast) {
    throw std::invalid_argument(
        fmt::format("{} needs fast numerics, in which a guess changes no text; use --numerics fast "
                    "on the CPU",
                    flag));
  }
  if (checkpoint.recurrentgemma) {
    throw std::invalid_argument(
        fmt::format("{}: a RecurrentGemma takes no guesses, as its states cannot go back", flag));
  }
}

std::optional<EngineModel> load_draft(const GuessOptions& options,
                                      const ModelOptions& model_options) {
  if (options.draft.empty()) return std::nullopt;
  ModelOptions of_draft;
  of_draft.ckpt = options.draft;
  of_draft.with_tokenizer = false;
  of_draft.device = model_options.device;
  of_draft.numerics = model_options.numerics;
  return load_model(of_draft);
}

}  // namespace gemma::cli
