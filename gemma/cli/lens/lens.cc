#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <gemma/checkpoint/output_file.h>
#include <gemma/cli/interrupt.h>
#include <gemma/cli/json_text.h>
#include <gemma/cli/lens/lens.h>
#include <gemma/cli/lens/lens_page.h>
#include <gemma/cli/lens/lens_table.h>
#include <gemma/cli/model_options.h>
#include <gemma/cli/output.h>
#include <gemma/cli/points.h>
#include <gemma/cli/progress.h>
#include <gemma/cli/text_file.h>
#include <gemma/models/activations.h>
#include <gemma/models/logit_lens.h>

namespace gemma::cli {
namespace {

struct LensOptions {
  ModelOptions model;
  std::string text;
  std::string html;  // Empty: none.
  int64_t count = 5;
  bool json = false;
};

constexpr int64_t kMostOnAPage = 256;  // Tokens: patterns grow with their square.

LensTable make_table(const LensOptions& options, const LanguageModel& model) {
  LensTable table{.tokens = model->tokenizer().encode(options.text), .rows = {}, .patterns = {}};
  const bool with_patterns = !options.html.empty();
  if (with_patterns && std::ssize(table.tokens) > kMostOnAPage) {
    throw std::invalid_argument(fmt::format(
        "--html {}: the text has {} tokens, but a page shows {} at most; give a shorter one",
        options.html, table.tokens.size(), kMostOnAPage));
  }
  std::vector<std::string> points{"hook_embed", "blocks.*.hook_resid_post"};
  if (with_patterns) points.emplace_back("blocks.*.attn.hook_pattern");
  check_points(model, "--html", points);
  const auto values =
      Activations(model, points).of(table.tokens, [](int64_t /*done*/, int64_t /*total*/) {
        check_interrupt();
      });
  const auto layers = model->config().num_hidden_layers;
  ProgressBar bar("Reading");
  const auto add_row = [&](const std::string& point) {
    check_interrupt();
    const auto likely = logit_lens(model, values.at(point), options.count);
    table.rows.push_back({likely.ids.cpu(), likely.probabilities.cpu()});
    bar(std::ssize(table.rows), layers + 1);
  };
  add_row("hook_embed");
  for (int64_t i = 0; i < layers; ++i) {
    add_row(fmt::format("blocks.{}.hook_resid_post", i));
    if (!with_patterns) continue;
    table.patterns.push_back(
        values.at(fmt::format("blocks.{}.attn.hook_pattern", i)).to(at::kCPU, at::kFloat));
  }
  return table;
}

// Of the terminal; else 100.
int64_t columns() {
  winsize size{};
  const bool is_terminal = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return is_terminal ? size.ws_col : 100;
}

void write_page(const std::string& path, const std::string& page) {
  OutputFile file(path, /*overwrite=*/true);
  file.write(std::as_bytes(std::span(page)));
  file.commit();
}

void lens(LensOptions options) {
  checked_utf8("lens", options.text);
  // Patterns of attention are computed by exact numerics alone.
  if (!options.html.empty() && options.model.numerics.empty()) options.model.numerics = "exact";
  const auto model = load_language_model(options.model);
  const InterruptGuard guard;
  const auto table = make_table(options, model);
  const auto& tokenizer = model->tokenizer();
  if (options.json) {
    show("{}\n", to_json(lens_json(table, tokenizer), /*indent=*/1));
  } else if (options.html.empty()) {
    write_output(lens_text(table, tokenizer, columns()));
  }
  if (!options.html.empty()) write_page(options.html, lens_page(table, tokenizer));
}

}  // namespace

void add_lens(CLI::App& app) {
  const auto options = std::make_shared<LensOptions>();
  auto* command =
      app.add_subcommand("lens", "Show what a model would say after each of its layers.");
  command->add_option("text", options->text, "The text; bos is put before it")->required();
  add_model_options(*command, options->model);
  command->add_option("--html", options->html,
                      "Write a page, with the patterns of attention, to this file; in exact "
                      "numerics");
  command
      ->add_option("-n,--count", options->count,
                   "How many of the likeliest tokens; the table in a terminal has the first")
      ->check(CLI::Range(1, 1'000))
      ->capture_default_str();
  command->add_flag("--json", options->json, "Print an object");
  command->callback([options] { lens(*options); });
}

}  // namespace gemma::cli
