#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <gemma/models/language_model.h>
#include <gemma/models/summary.h>

namespace gemma {
namespace {

constexpr std::string_view kNotKnown = "--";

int64_t parameters_of(const torch::nn::Module& module, bool recurse) {
  int64_t count = 0;
  for (const auto& parameter : module.parameters(recurse)) count += parameter.numel();
  return count;
}

// What comes out of a module of the stack, but for B and L; empty where that is not known.
std::string features_of(const torch::nn::Module& module,
                        const std::string& name,
                        const torch::nn::Module* parent) {
  if (const auto* norm = dynamic_cast<const RMSNormImpl*>(&module)) {
    const auto* attention = dynamic_cast<const GemmaAttentionImpl*>(parent);
    if (attention == nullptr) return fmt::format("{}", norm->weight.size(0));
    const auto heads = name == "query_norm" ? attention->num_heads() : attention->num_kv_heads();
    return fmt::format("{}, {}", heads, norm->weight.size(0));
  }
  int64_t size = 0;
  if (const auto* linear = dynamic_cast<const LinearImpl*>(&module)) {
    size = linear->rows();
  } else if (const auto* table = dynamic_cast<const EmbeddingImpl*>(&module)) {
    size = table->columns();
  } else if (const auto* mlp = dynamic_cast<const GemmaMLPImpl*>(&module)) {
    size = mlp->down_proj->rows();
  } else if (const auto* attention = dynamic_cast<const GemmaAttentionImpl*>(&module)) {
    size = attention->o_proj->rows();
  } else if (const auto* layer = dynamic_cast<const DecoderLayerImpl*>(&module)) {
    size = layer->input_layernorm->weight.size(0);
  } else if (const auto* stack = dynamic_cast<const GemmaModelImpl*>(&module)) {
    size = stack->config().hidden_size;
  }
  return size == 0 ? std::string() : fmt::format("{}", size);
}

// The lines of the table, one a module.
class Table {
 public:
  Table(const LanguageModelImpl& model, const SummaryOptions& options)
      : model_(model), options_(options), numbers_(static_cast<size_t>(options.depth) + 1) {
    add(model, "", nullptr, /*depth=*/0, /*in_stack=*/true);
  }

  std::string text() const {
    size_t width = kTitle.size();
    for (const auto& row : rows_) width = std::max(width, row.columns);
    const auto rule = std::string(width + 52, '=') + "\n";
    auto text = rule + fmt::format("{:<{}} {:<25} {}\n", kTitle, width, "Output Shape", "Param #");
    text += rule;
    for (const auto& row : rows_) {
      text += fmt::format("{}{:{}} {:<25} {}\n", row.name, "", width - row.columns, row.shape,
                          row.parameters);
    }
    return text + rule;
  }

 private:
  static constexpr std::string_view kTitle = "Layer (type (var_name):depth-idx)";

  struct Row {
    std::string name;
    size_t columns;  // That the name takes.
    std::string shape, parameters;
  };

  // `in_stack`: whether token ids, or what became of them, go through the module.
  void add(const torch::nn::Module& module,
           const std::string& name,
           const torch::nn::Module* parent,
           int64_t depth,
           bool in_stack) {
    const bool is_last = depth == options_.depth || module.named_children().is_empty();
    const auto count = parameters_of(module, /*recurse=*/is_last);
    auto row = named(module, name, depth);
    row.shape = in_stack ? shape_of(module, name, parent) : std::string(kNotKnown);
    row.parameters = count == 0 ? std::string(kNotKnown) : grouped(count);
    rows_.push_back(std::move(row));
    if (is_last) return;
    for (const auto& child : module.named_children()) {
      const auto* const part = child.value().get();
      const bool takes_tokens = part == model_.embedder.get() || part == model_.model.get() ||
                                part == model_.sampler.get();
      add(*part, child.key(), &module, depth + 1, depth == 0 ? takes_tokens : in_stack);
    }
  }

  // "│    └─Linear (qkv_proj): 3-1", as torchinfo numbers them.
  Row named(const torch::nn::Module& module, const std::string& name, int64_t depth) {
    const auto* const ours = dynamic_cast<const Module*>(&module);
    const auto signature = ours == nullptr ? std::string("ModuleList") : ours->signature();
    const auto type = signature.substr(0, signature.find('('));
    if (depth == 0) return {type, type.size(), {}, {}};
    const auto label =
        fmt::format("{} ({}): {}-{}", type, name, depth, ++numbers_[static_cast<size_t>(depth)]);
    std::string branch = depth == 1 ? "├─" : "└─";
    for (int64_t i = 1; i < depth; ++i) branch.insert(0, "│    ");
    return {branch + label, static_cast<size_t>(5 * (depth - 1) + 2) + label.size(), {}, {}};
  }

  std::string shape_of(const torch::nn::Module& module,
                       const std::string& name,
                       const torch::nn::Module* parent) const {
    if (&module == &model_ || &module == model_.sampler.get()) {
      return fmt::format("[{}, {}]", options_.batch_size, model_.config().vocab_size);
    }
    const auto features = features_of(module, name, parent);
    return features.empty()
               ? std::string(kNotKnown)
               : fmt::format("[{}, {}, {}]", options_.batch_size, options_.length, features);
  }

  const LanguageModelImpl& model_;
  SummaryOptions options_;
  std::vector<int64_t> numbers_;  // Modules so far, by depth.
  std::vector<Row> rows_;
};

void check(std::string_view name, int64_t value, int64_t least) {
  if (value >= least) return;
  throw std::invalid_argument(
      fmt::format("summary: {} is {}, but must be {} or more", name, value, least));
}

}  // namespace

std::string grouped(int64_t number) {
  auto text = fmt::format("{}", number);
  for (auto i = static_cast<int64_t>(text.size()) - 3; i > 0; i -= 3) {
    text.insert(static_cast<size_t>(i), 1, ',');
  }
  return text;
}

std::string summary(const LanguageModelImpl& model, const SummaryOptions& options) {
  check("batch_size", options.batch_size, 1);
  check("length", options.length, 1);
  check("depth", options.depth, 0);
  int64_t trainable = 0;
  double bytes = 0;
  for (const auto& parameter : model.parameters()) {
    if (parameter.requires_grad()) trainable += parameter.numel();
    bytes += static_cast<double>(parameter.nbytes());
  }
  const auto total = parameters_of(model, /*recurse=*/true);
  return Table(model, options).text() +
         fmt::format(
             "Total params: {}\nTrainable params: {}\nNon-trainable params: {}\n"
             "Params size (MB): {:.2f}\n",
             grouped(total), grouped(trainable), grouped(total - trainable), bytes / 1e6);
}

}  // namespace gemma
