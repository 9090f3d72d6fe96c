#include <gemma/cli/run_options.h>
#include <gemma/generate/prompt_builder.h>
#include <gemma/weights/stop_tokens.h>

namespace gemma::cli {
namespace {

void add_gap_options(CLI::App& command, GapOptions& gap) {
  auto* prefix = command.add_option("--prefix", gap.prefix,
                                    "Text before a gap that is to be filled, for CodeGemma 2b, 7b");
  command.add_option("--suffix", gap.suffix, "Text after the gap");
  command
      .add_option(both("prefix_file"), gap.prefix_file,
                  "File with the text before the gap, all of it; - is standard input")
      ->excludes(prefix);
  command.add_option(both("suffix_file"), gap.suffix_file, "File with the text after the gap")
      ->excludes("--suffix");
  command
      .add_option(both("context_file"), gap.context_files,
                  "Another file that the model is to know of; may come several times")
      ->allow_extra_args(false);
}

void add_batch_options(CLI::App& command, RunOptions& options) {
  auto* prompts = command.add_option(
      "--prompts", options.prompts,
      "File with many texts, which are continued together: an object of JSON a line, with a prompt "
      "or messages");
  for (const auto* flag : {"--prefix", "--suffix", "--prefix_file", "--suffix_file"}) {
    prompts->excludes(flag);
  }
  auto* out = command.add_option(
      "--out", options.out,
      "File for the results of --prompts, a line each; where it has some, the rest is done");
  prompts->needs(out);
  out->needs(prompts);
  command.add_option(both("max_batch"), options.max_batch, "Texts of --prompts at a time")
      ->check(CLI::Range(1, 1024).description(""))
      ->capture_default_str();
}

}  // namespace

bool GapOptions::is_given() const {
  return prefix || suffix || !prefix_file.empty() || !suffix_file.empty();
}

std::optional<double> temperature_of(const RunOptions& options) {
  if (options.greedy || (options.gap.is_given() && !options.temperature)) return std::nullopt;
  return options.temperature.value_or(1.0);
}

std::vector<int64_t> stop_ids_of(const EngineModel& model, const std::string& ckpt) {
  if (model->numerics() == Numerics::kExact) return {};
  auto ids = stop_tokens(ckpt);
  for (const auto* piece : {"<end_of_turn>", "<start_function_response>"}) {
    if (!has_piece(model->tokenizer(), piece)) continue;
    ids.push_back(model->tokenizer().piece_to_id(piece));
  }
  return ids;
}

void add_run_options(CLI::App& command, RunOptions& options) {
  add_model_options(command, options.model);
  command.add_option(both("output_len"), options.output_len, "Tokens to generate")
      ->capture_default_str();
  command.add_option("--seed", options.seed, "Random seed")->capture_default_str();
  auto* prompt = command.add_option("--prompt", options.prompt, "Text to continue");
  prompt->capture_default_str();
  auto* prompt_file =
      command
          .add_option(both("prompt_file"), options.prompt_file,
                      "File with the text to continue, less a newline at its end; - is standard "
                      "input")
          ->excludes(prompt);
  auto* image =
      command
          .add_option("--image", options.images,
                      "A JPEG or PNG file for the prompt, where it says <image>, else in front; "
                      "may come several times")
          ->allow_extra_args(false);
  command
      .add_option(
          "--boxes", options.boxes,
          "File for the places that a PaliGemma answers with: the image with frames (.png), "
          "or a list (.json)")
      ->needs(image);
  add_gap_options(command, options.gap);
  add_batch_options(command, options);
  for (const auto* flag : {"--prefix", "--suffix", "--prefix_file", "--suffix_file", "--prompts"}) {
    for (auto* other : {prompt, prompt_file, image}) command.get_option(flag)->excludes(other);
  }
  command
      .add_option("--temperature", options.temperature,
                  "0 takes the likeliest token, as a gap and a PaliGemma do by default")
      ->default_str("1");
  command.add_option(both("top_p"), options.top_p, "Probability that the candidates add up to")
      ->capture_default_str();
  command.add_option(both("top_k"), options.top_k, "Number of candidates")->capture_default_str();
  command.add_flag("--greedy", options.greedy, "Always take the likeliest token");
  command
      .add_option("--steer", options.steer,
                  "POINT=FILE[:TENSOR][*FACTOR]: a vector that is added to the values of a point, "
                  "such as blocks.12.hook_resid_post; may come several times")
      ->allow_extra_args(false);
  add_guess_options(command, options.guess);
}

}  // namespace gemma::cli
