#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/crc32.h>
#include <gemma/cli/activation_shards.h>
#include <gemma/cli/activations.h>
#include <gemma/cli/embeddings_file.h>
#include <gemma/cli/interrupt.h>
#include <gemma/cli/model_options.h>
#include <gemma/cli/output.h>
#include <gemma/cli/points.h>
#include <gemma/cli/progress.h>
#include <gemma/cli/text_file.h>
#include <gemma/config/config.h>
#include <gemma/models/activations.h>

namespace gemma::cli {
namespace {

struct ActivationsOptions {
  ModelOptions model;
  bool list = false;
  std::string prompt, prompt_file;  // Empty: none.
  std::vector<std::string> points;
  std::string out;
  std::string out_dtype;  // Empty: as computed.
  int64_t shard_tokens = 65'536;
  bool npy = false;
  bool truncate = false;
};

using TokenLists = std::vector<std::vector<int64_t>>;

void list_points(const ActivationsOptions& options) {
  auto model = load_language_model(options.model);
  for (const auto& names : model->tap_names()) show("{}\n", fmt::join(names, "  "));
}

std::vector<EmbedText> texts_of(const ActivationsOptions& options) {
  if (options.prompt.empty() == options.prompt_file.empty()) {
    throw std::invalid_argument("activations: give either --prompt or --prompt_file");
  }
  if (!options.prompt_file.empty()) return read_embed_texts("--prompt_file", options.prompt_file);
  return {{"0", checked_utf8("--prompt", options.prompt)}};
}

// bos first; cut to what the model sees if that is allowed.
TokenLists tokens_of(const std::vector<EmbedText>& texts,
                     const LanguageModel& model,
                     bool truncate) {
  const auto most = static_cast<size_t>(model->max_positions());
  TokenLists tokens;
  for (const auto& text : texts) {
    tokens.push_back(model->tokenizer().encode(text.text));
    if (tokens.back().size() <= most) continue;
    if (!truncate) {
      throw std::invalid_argument(fmt::format(
          "activations: text {} has {} tokens, but the model sees {} at most; --truncate cuts it",
          text.id, tokens.back().size(), most));
    }
    tokens.back().resize(most);
  }
  return tokens;
}

// Two runs whose values can stand in one directory say the same here.
nlohmann::ordered_json run_of(const ActivationsOptions& options, const TokenLists& tokens) {
  uint32_t sum = 0;
  for (const auto& text : tokens) {
    const auto size = text.size();
    sum = crc32(std::as_bytes(std::span(&size, 1)), sum);
    sum = crc32(std::as_bytes(std::span(text)), sum);
  }
  return {{"ckpt", options.model.ckpt},
          {"numerics", numerics_of(options.model) == Numerics::kFast ? "fast" : "exact"},
          {"dtype", options.model.dtype},
          {"points", options.points},
          {"out_dtype", options.out_dtype},
          {"form", options.npy ? "npy" : "safetensors"},
          {"shard_tokens", options.shard_tokens},
          {"texts", tokens.size()},
          {"crc32_of_tokens", sum}};
}

std::optional<at::ScalarType> out_dtype_of(const ActivationsOptions& options) {
  if (options.out_dtype.empty()) return std::nullopt;
  return dtype_from_string(options.out_dtype);
}

bool is_one_file(const ActivationsOptions& options) {
  return options.out.ends_with(".safetensors");
}

// The values of texts from `first` on, until they are a shard.
ActivationShard next_shard(Activations& activations,
                           const ActivationsOptions& options,
                           const TokenLists& tokens,
                           int64_t first,
                           ProgressBar& bar) {
  ActivationShard shard(out_dtype_of(options));
  const auto check = [](int64_t /*done*/, int64_t /*total*/) { check_interrupt(); };
  for (auto i = first; i < std::ssize(tokens); ++i) {
    const auto& text = tokens[static_cast<size_t>(i)];
    shard.add(i, text, activations.of(text, check));
    bar(i + 1, std::ssize(tokens));
    if (shard.tokens() >= options.shard_tokens) break;
  }
  return shard;
}

void write_file(Activations& activations,
                const ActivationsOptions& options,
                const TokenLists& tokens) {
  const auto total = std::accumulate(
      tokens.begin(), tokens.end(), size_t{0},
      [](size_t sum, const std::vector<int64_t>& text) { return sum + text.size(); });
  if (std::cmp_greater(total, options.shard_tokens)) {
    throw std::invalid_argument(
        fmt::format("--out {}: the texts have {} tokens, but a file holds --shard_tokens, {}; name "
                    "a directory",
                    options.out, total, options.shard_tokens));
  }
  ProgressBar bar("Reading");
  next_shard(activations, options, tokens, /*first=*/0, bar).write_safetensors(options.out);
}

void write_directory(Activations& activations,
                     const ActivationsOptions& options,
                     const TokenLists& tokens) {
  ActivationDirectory directory(options.out, run_of(options, tokens));
  const auto done = directory.texts_done();
  if (done > 0) note("{} of {} are done already\n", done, tokens.size());
  ProgressBar bar("Reading");
  while (directory.texts_done() < std::ssize(tokens)) {
    directory.write(next_shard(activations, options, tokens, directory.texts_done(), bar),
                    options.npy);
  }
}

void activations(const ActivationsOptions& options) {
  if (options.list) return list_points(options);
  if (options.points.empty() || options.out.empty()) {
    throw std::invalid_argument("activations: give --points and --out, or --list");
  }
  if (options.npy && is_one_file(options)) {
    throw std::invalid_argument(
        fmt::format("--out {}: --npy writes a directory; name one", options.out));
  }
  if (const auto dtype = out_dtype_of(options); options.npy && dtype == at::kBFloat16) {
    throw std::invalid_argument(
        "--out_dtype bfloat16: NumPy has no such dtype; use float16 or float32, or leave --npy "
        "out");
  }
  const auto texts = texts_of(options);
  if (texts.empty()) {
    throw std::runtime_error(fmt::format("{}: has no texts; give one a line", options.prompt_file));
  }
  const auto model = load_language_model(options.model);
  const auto tokens = tokens_of(texts, model, options.truncate);
  check_points(model, "--points", options.points);
  Activations computed(model, options.points);
  const InterruptGuard guard;
  is_one_file(options) ? write_file(computed, options, tokens)
                       : write_directory(computed, options, tokens);
}

}  // namespace

void add_activations(CLI::App& app) {
  const auto options = std::make_shared<ActivationsOptions>();
  auto* command = app.add_subcommand(
      "activations", "Write what a model computes at chosen points while it reads texts.");
  add_model_options(*command, options->model);
  command->add_flag("--list", options->list, "Print the names of the points, one point a line");
  command->add_option("--prompt", options->prompt, "A text; bos is put before it");
  command->add_option(both("prompt_file"), options->prompt_file,
                      "A text in each line, or objects {\"text\": …} in a file *.jsonl; - is "
                      "standard input");
  command->add_option("--points", options->points,
                      "Names, or patterns of them in quotes: 'blocks.*.hook_resid_post'");
  command->add_option("--out", options->out,
                      "A file *.safetensors, or a directory of such files; the same command again "
                      "goes on with a directory");
  command->add_option(both("out_dtype"), options->out_dtype,
                      "Of the values in files: float32, bfloat16 or float16; as they are computed "
                      "when omitted");
  command
      ->add_option(both("shard_tokens"), options->shard_tokens,
                   "A file has so many tokens, and those that its last text has more; the values "
                   "of one file are in memory")
      ->check(CLI::Range(1, 1'000'000'000).description(""))
      ->capture_default_str();
  command->add_flag("--npy", options->npy, "Write each file as a directory of .npy files");
  command->add_flag("--truncate", options->truncate, "Cut texts that are too long");
  command->callback([options] { activations(*options); });
}

}  // namespace gemma::cli
