#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/cli/gemma_scope.h>
#include <gemma/cli/interrupt.h>
#include <gemma/cli/json_text.h>
#include <gemma/cli/model_options.h>
#include <gemma/cli/output.h>
#include <gemma/cli/points.h>
#include <gemma/cli/sae.h>
#include <gemma/cli/text_file.h>
#include <gemma/models/activations.h>
#include <gemma/models/sparse_autoencoder.h>

namespace gemma::cli {
namespace {

struct SaeOptions {
  ModelOptions model;
  std::string sae, point, prompt;  // No point: that of the autoencoder's config.
  int64_t count = 10;
  bool json = false;
};

// [T, E]: the heads of hook_z side by side.
at::Tensor rows_of(const Activations::Values& values, const std::string& point) {
  return values.at(point).flatten(1).to(at::kCPU, at::kFloat);
}

// What is active in a token, most first.
nlohmann::ordered_json features_of(const at::Tensor& features, int64_t count) {
  auto list = nlohmann::ordered_json::array();
  const auto [values, ids] = features.topk(std::min(count, features.size(0)));
  for (int64_t i = 0; i < ids.size(0) && values[i].item<float>() > 0; ++i) {
    list.push_back({{"feature", ids[i].item<int64_t>()}, {"activation", values[i].item<float>()}});
  }
  return list;
}

nlohmann::ordered_json look(const SaeOptions& options,
                            const SparseAutoencoder& sae,
                            const GemmaScopePoints& points) {
  const auto model = load_language_model(options.model);
  const auto& tokenizer = model->tokenizer();
  const auto tokens = tokenizer.encode(options.prompt);
  check_points(model, "--point", {points.in, points.out});
  Activations activations(model, {points.in, points.out});
  const InterruptGuard guard;
  const auto values =
      activations.of(tokens, [](int64_t /*done*/, int64_t /*total*/) { check_interrupt(); });
  const auto x = rows_of(values, points.in);
  if (x.size(1) != sae.width()) {
    throw std::invalid_argument(
        fmt::format("--sae {}: is for values of {} numbers, but {} of this model has {}",
                    options.sae, sae.width(), points.in, x.size(1)));
  }
  const auto features = sae.encode(x);
  const auto active = (features > 0).sum(-1);
  auto rows = nlohmann::ordered_json::array();
  for (int64_t i = 0; i < std::ssize(tokens); ++i) {
    const auto id = tokens[static_cast<size_t>(i)];
    rows.push_back({{"position", i},
                    {"id", id},
                    {"piece", tokenizer.id_to_piece(id)},
                    {"active", active[i].item<int64_t>()},
                    {"features", features_of(features[i], options.count)}});
  }
  nlohmann::ordered_json result{
      {"point", points.in}, {"target", points.out}, {"width", sae.num_features()}};
  // bos, whose residual is far larger than that of any text, was left out when they were trained.
  if (tokens.size() > 2) {
    const auto told = sae.decode(features, x);
    result["explained_variance"] =
        explained_variance(rows_of(values, points.out).slice(0, 1), told.slice(0, 1));
  }
  result["tokens"] = std::move(rows);
  return result;
}

void print_features(const nlohmann::ordered_json& result) {
  show("point      {}\n", result["point"].get<std::string>());
  if (result["target"] != result["point"]) {
    show("target     {}\n", result["target"].get<std::string>());
  }
  show("features   {}\n", result["width"].get<int64_t>());
  if (result.contains("explained_variance")) {
    show("explained  {:.2f} % of the variance, without bos\n",
         100 * result["explained_variance"].get<double>());
  }
  show("\n{:>4}  {:<16}  {:>6}  {}\n", "pos", "piece", "active", "feature:activation");
  for (const auto& token : result["tokens"]) {
    std::string line;
    for (const auto& feature : token["features"]) {
      line += fmt::format("  {}:{:.1f}", feature["feature"].get<int64_t>(),
                          feature["activation"].get<double>());
    }
    show("{:>4}  {:<16}  {:>6}{}\n", token["position"].get<int64_t>(), to_json(token["piece"]),
         token["active"].get<int64_t>(), line);
  }
}

void sae(const SaeOptions& options) {
  checked_utf8("--prompt", options.prompt);
  const SparseAutoencoder autoencoder(Checkpoint::open(options.sae));
  const auto points = gemma_scope_points(options.sae, options.point);
  const auto result = look(options, autoencoder, points);
  options.json ? show("{}\n", to_json(result, /*indent=*/2)) : print_features(result);
}

}  // namespace

void add_sae(CLI::App& app) {
  const auto options = std::make_shared<SaeOptions>();
  auto* command = app.add_subcommand(
      "sae", "Show the features that a sparse autoencoder sees in each token of a text.");
  add_model_options(*command, options->model);
  command
      ->add_option("--sae", options->sae,
                   "params.npz of Gemma Scope, or params.safetensors of Gemma Scope 2")
      ->required();
  command->add_option("--point", options->point,
                      "Whose values it reads, such as blocks.12.hook_resid_post; what the "
                      "config.json beside the params says when omitted");
  command->add_option("--prompt", options->prompt, "The text; bos is put before it")->required();
  command->add_option("-n,--count", options->count, "How many features of a token, at most")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_flag("--json", options->json, "Print an object");
  command->callback([options] { sae(*options); });
}

}  // namespace gemma::cli
