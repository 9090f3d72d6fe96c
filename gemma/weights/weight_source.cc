#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <c10/util/strides.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/not_a_model.h>
#include <gemma/config/dtype_name.h>
#include <gemma/modules/module.h>
#include <gemma/weights/big_vision_layout.h>
#include <gemma/weights/gguf/gguf_layout.h>
#include <gemma/weights/hf/hf_griffin.h>
#include <gemma/weights/hf/hf_layout.h>
#include <gemma/weights/layout.h>
#include <gemma/weights/row_blocks.h>
#include <gemma/weights/weight_source.h>

namespace gemma {
namespace {

// The part as a tensor of its own: the sizes and strides behind those that `at` goes into.
TensorEntry part_of(const Checkpoint& checkpoint, const Recipe& recipe, const Part& part) {
  const auto* const whole = checkpoint.find(part.name);
  if (whole == nullptr) {
    refuse_file(checkpoint.path(),
                fmt::format("has no tensor '{}', which belongs to '{}': download it again",
                            part.name, recipe.name));
  }
  auto entry = *whole;
  for (const auto index : part.at) {
    if (entry.sizes.empty() || index >= entry.sizes.front()) {
      refuse_file(
          checkpoint.file_of(part.name),
          fmt::format("tensor '{}' is [{}], which has no [{}] for '{}'", part.name,
                      fmt::join(whole->sizes, ", "), fmt::join(part.at, ", "), recipe.name));
    }
    entry.sizes.erase(entry.sizes.begin());
    entry.strides.erase(entry.strides.begin());
  }
  return entry;
}

torch::Tensor tensor_of(const Checkpoint& checkpoint, const Part& part) {
  if (part.at.empty()) return checkpoint.tensor(part.name);
  auto tensor = checkpoint.rows(part.name, part.at.front(), 1).select(0, 0);
  for (size_t i = 1; i < part.at.size(); ++i) tensor = tensor.select(0, part.at[i]);
  return tensor;
}

// Rows one after another: everything but their number is the first part's.
void check_joins(const Checkpoint& checkpoint, const TensorEntry& first, const TensorEntry& next) {
  const auto row = [](const TensorEntry& entry) { return at::IntArrayRef(entry.sizes).slice(1); };
  if (!first.sizes.empty() && first.sizes.size() == next.sizes.size() && row(first) == row(next) &&
      first.dtype == next.dtype) {
    return;
  }
  refuse_file(checkpoint.file_of(next.name),
              fmt::format("tensor '{}' is {} [{}], which does not go with '{}', {} [{}]", next.name,
                          dtype_name(next.dtype), fmt::join(next.sizes, ", "), first.name,
                          dtype_name(first.dtype), fmt::join(first.sizes, ", ")));
}

void check_is_matrix(const Checkpoint& checkpoint, const TensorEntry& entry) {
  if (entry.sizes.size() == 2) return;
  refuse_file(
      checkpoint.file_of(entry.name),
      fmt::format("tensor '{}' is [{}], not a matrix", entry.name, fmt::join(entry.sizes, ", ")));
}

// Whether a tensor of `sizes` can be seen as one of `wanted`.
void check_holds(const Checkpoint& checkpoint,
                 const TensorEntry& entry,
                 const std::vector<int64_t>& sizes,
                 const std::vector<int64_t>& wanted,
                 const Recipe& recipe) {
  if (c10::multiply_integers(sizes) == c10::multiply_integers(wanted)) return;
  refuse_file(
      checkpoint.file_of(entry.name),
      fmt::format("tensor '{}', with those that belong to it, is [{}], of which '{}', [{}], "
                  "cannot be made",
                  entry.name, fmt::join(sizes, ", "), recipe.name, fmt::join(wanted, ", ")));
}

// `sizes` in the recipe's order.
std::vector<int64_t> ordered(const Checkpoint& checkpoint,
                             const TensorEntry& entry,
                             const std::vector<int64_t>& sizes,
                             const Recipe& recipe) {
  if (sizes.size() != recipe.order.size()) {
    refuse_file(checkpoint.file_of(entry.name),
                fmt::format("tensor '{}' is [{}], of which '{}' cannot be made: it has {} "
                            "dimensions there, not {}",
                            entry.name, fmt::join(entry.sizes, ", "), recipe.name, sizes.size(),
                            recipe.order.size()));
  }
  std::vector<int64_t> result;
  for (const auto dimension : recipe.order) {
    result.push_back(sizes[static_cast<size_t>(dimension)]);
  }
  return result;
}

// The shape of what the recipe makes.
std::vector<int64_t> sizes_of(const Checkpoint& checkpoint, const Recipe& recipe) {
  const auto first = part_of(checkpoint, recipe, recipe.parts.front());
  auto sizes = first.sizes;
  for (size_t i = 1; i < recipe.parts.size(); ++i) {
    const auto next = part_of(checkpoint, recipe, recipe.parts[i]);
    check_joins(checkpoint, first, next);
    sizes[0] += next.sizes[0];
  }
  if (recipe.rows) {
    check_is_matrix(checkpoint, first);
    sizes[0] = std::min(sizes[0], *recipe.rows);
  }
  const auto see_as = [&](const std::vector<int64_t>& wanted) {
    if (wanted.empty()) return;
    check_holds(checkpoint, first, sizes, wanted, recipe);
    sizes = wanted;
  };
  see_as(recipe.sizes);
  if (!recipe.order.empty()) sizes = ordered(checkpoint, first, sizes, recipe);
  see_as(recipe.shape);
  return sizes;
}

TensorEntry entry_of(const Checkpoint& checkpoint, const Recipe& recipe) {
  auto entry = part_of(checkpoint, recipe, recipe.parts.front());
  entry.name = recipe.name;
  if (recipe.is_alias()) return entry;
  entry.sizes = sizes_of(checkpoint, recipe);
  const auto strides = c10::contiguous_strides(entry.sizes);
  entry.strides.assign(strides.begin(), strides.end());
  entry.offset = 0;
  entry.encoding = Encoding::kPlain;
  entry.nbytes =
      static_cast<uint64_t>(c10::multiply_integers(entry.sizes)) * c10::elementSize(entry.dtype);
  return entry;
}

// The rows of all parts in one tensor.
torch::Tensor joined(const Checkpoint& checkpoint, const Recipe& recipe) {
  const auto& parts = recipe.parts;
  const auto first_part = part_of(checkpoint, recipe, parts.front());
  auto sizes = first_part.sizes;
  for (size_t i = 1; i < parts.size(); ++i) {
    sizes[0] += part_of(checkpoint, recipe, parts[i]).sizes[0];
  }
  auto target = uninitialized(sizes, first_part.dtype);
  int64_t row = 0;
  for (const auto& part : parts) {
    const auto source = tensor_of(checkpoint, part);
    for_row_blocks(source, [&](int64_t first, int64_t count) {
      target.narrow(0, row + first, count).copy_(source.narrow(0, first, count));
      checkpoint.release(part.name);
    });
    row += source.size(0);
  }
  return target;
}

torch::Tensor made(const Checkpoint& checkpoint, const Recipe& recipe) {
  const torch::NoGradGuard no_grad;
  auto tensor = recipe.parts.size() == 1 ? tensor_of(checkpoint, recipe.parts.front())
                                         : joined(checkpoint, recipe);
  if (recipe.rows && tensor.size(0) > *recipe.rows) tensor = tensor.narrow(0, 0, *recipe.rows);
  if (!recipe.sizes.empty()) tensor = tensor.reshape(recipe.sizes);
  if (!recipe.order.empty()) tensor = tensor.permute(recipe.order).contiguous();
  if (!recipe.shape.empty()) tensor = tensor.reshape(recipe.shape);
  if (recipe.plus != 0) tensor = tensor + recipe.plus;
  return tensor;
}

// The parts' bytes one after another; the file's own where there is one.
at::Tensor joined_blocks(const Checkpoint& checkpoint, const std::vector<Part>& parts) {
  if (parts.size() == 1) return checkpoint.blocks(parts.front().name);
  std::vector<at::Tensor> bytes;
  for (const auto& part : parts) bytes.push_back(checkpoint.blocks(part.name));
  auto all = at::cat(bytes);
  for (const auto& part : parts) checkpoint.release(part.name);
  return all;
}

bool has_same_numbers(const Checkpoint& checkpoint, const std::string& a, const std::string& b) {
  const auto &x = *checkpoint.find(a), &y = *checkpoint.find(b);
  if (x.sizes != y.sizes || x.sizes.empty()) return false;
  if (x.offset == y.offset && checkpoint.file_of(a) == checkpoint.file_of(b)) return true;
  constexpr int64_t kRows = 1024;
  for (int64_t first = 0; first < x.sizes[0]; first += kRows) {
    const auto block = [&](const std::string& name) {
      const auto rows = checkpoint.rows(name, first, std::min(kRows, x.sizes[0] - first));
      const auto numbers = rows.to(at::kFloat);
      checkpoint.release(name);
      return numbers;
    };
    if (!at::equal(block(a), block(b))) return false;
  }
  return true;
}

// What PyTorch puts into names where it wraps a module: torch.compile, FSDP, and checkpoints of
// activations.
constexpr std::array<std::string_view, 3> kWrappers = {"_orig_mod.", "_fsdp_wrapped_module.",
                                                       "_checkpoint_wrapped_module."};

std::string unwrapped(std::string name) {
  for (const auto wrapper : kWrappers) {
    size_t at = 0;
    while ((at = name.find(wrapper, at)) != std::string::npos) {
      const bool is_component = at == 0 || name[at - 1] == '.';
      if (is_component) {
        name.erase(at, wrapper.size());
      } else {
        at += wrapper.size();
      }
    }
  }
  return name;
}

// Names of a file as they are without wrappers, and without a prefix before all of them.
std::vector<std::string> names_without(const Checkpoint& checkpoint, std::string_view prefix) {
  std::vector<std::string> names;
  for (const auto& entry : checkpoint.entries()) {
    auto name = unwrapped(entry.name);
    if (name.starts_with(prefix)) name.erase(0, prefix.size());
    names.push_back(std::move(name));
  }
  return names;
}

// What the name of every model's embedding ends in, behind a dot or alone.
bool is_embedding(std::string_view name) {
  const auto dot = name.rfind('.', name.rfind('.') - 1);
  const auto end = dot == std::string_view::npos ? name : name.substr(dot + 1);
  return end == "embedder.weight" || end == "text_token_embedder.weight" ||
         end == "embedder.input_embedding" || end == "embed_tokens.weight";
}

// The embeddings of gemma_pytorch and of recurrentgemma.
constexpr std::array<std::string_view, 3> kOwnEmbeddings = {
    "embedder.weight", "text_token_embedder.weight", "embedder.input_embedding"};

// Whose names they are, of those two.
std::string_view own_name(bool is_griffin) {
  return is_griffin ? "recurrentgemma" : "gemma_pytorch";
}

// Those names, where a file has them behind something else.
std::optional<Layout> own_layout(const Checkpoint& checkpoint,
                                 const std::vector<std::string>& names) {
  const auto embedding = std::ranges::find_first_of(names, kOwnEmbeddings);
  if (embedding == names.end()) return std::nullopt;
  Layout layout{.name = own_name(*embedding == kOwnEmbeddings.back()), .recipes = {}};
  for (size_t i = 0; i < names.size(); ++i) {
    layout.recipes.push_back({.name = names[i], .parts = {checkpoint.entries()[i].name}});
  }
  return layout;
}

// DataParallel, Lightning, PEFT and others put a prefix before all names: "module.", "model.",
// "base_model.model.", one or several. It ends where the name of the embedding is one that a layout
// knows.
std::optional<Layout> layout_behind_prefix(const Checkpoint& checkpoint) {
  const auto names = names_without(checkpoint, "");
  const auto embedding = std::ranges::find_if(names, is_embedding);
  if (embedding == names.end()) return std::nullopt;
  const auto other = std::find_if(std::next(embedding), names.end(), is_embedding);
  if (other != names.end()) {
    refuse_file(checkpoint.path(),
                fmt::format("has two embeddings, '{}' and '{}': save one model alone",
                            printable(*embedding), printable(*other)));
  }
  for (size_t begin = 0;; begin = embedding->find('.', begin) + 1) {
    const auto rest = names_without(checkpoint, embedding->substr(0, begin));
    if (auto layout = hf_griffin_layout(checkpoint, rest)) return layout;
    if (auto layout = hf_layout(checkpoint, rest)) return layout;
    if (auto layout = own_layout(checkpoint, rest)) return layout;
    if (embedding->find('.', begin) == std::string::npos) return std::nullopt;
  }
}

std::optional<Layout> find_layout(const Checkpoint& checkpoint) {
  if (auto layout = gguf_layout(checkpoint)) return layout;
  if (auto layout = big_vision_layout(checkpoint)) return layout;
  const bool is_own =
      std::ranges::any_of(kOwnEmbeddings, [&](auto name) { return checkpoint.contains(name); });
  const bool is_plain = std::ranges::none_of(checkpoint.entries(), [](const TensorEntry& entry) {
    return unwrapped(entry.name) != entry.name;
  });
  return is_own && is_plain ? std::nullopt : layout_behind_prefix(checkpoint);
}

}  // namespace

struct WeightSource::Contents {
  Checkpoint checkpoint;
  std::optional<Layout> layout;              // None: entries are the checkpoint's.
  std::vector<TensorEntry> entries;          // Of the recipes, in their order.
  std::map<std::string_view, size_t> index;  // Views of the recipes' names.

  explicit Contents(Checkpoint opened)
      : checkpoint(std::move(opened)), layout(find_layout(checkpoint)) {
    if (!layout) return;
    for (const auto& recipe : layout->recipes) {
      const auto [known, is_new] = index.try_emplace(recipe.name, entries.size());
      if (!is_new) {
        refuse_file(
            checkpoint.path(),
            fmt::format("has tensors '{}' and '{}', which both are '{}': which one is meant?",
                        layout->recipes[known->second].parts.front().name,
                        recipe.parts.front().name, recipe.name));
      }
      entries.push_back(entry_of(checkpoint, recipe));
    }
  }
};

WeightSource WeightSource::open(const std::filesystem::path& path) {
  refuse_shard(path);
  return Checkpoint::open(path);
}

WeightSource::WeightSource(Checkpoint checkpoint)
    : contents_(std::make_shared<const Contents>(std::move(checkpoint))) {}

const Checkpoint& WeightSource::checkpoint() const { return contents_->checkpoint; }

const std::vector<TensorEntry>& WeightSource::entries() const {
  return contents_->layout ? contents_->entries : contents_->checkpoint.entries();
}

const TensorEntry* WeightSource::find(std::string_view name) const {
  if (!contents_->layout) return contents_->checkpoint.find(name);
  const auto found = contents_->index.find(name);
  return found == contents_->index.end() ? nullptr : &contents_->entries[found->second];
}

size_t WeightSource::index_of(std::string_view name) const {
  const auto found = contents_->index.find(name);
  if (found == contents_->index.end()) {
    refuse_file(path(), fmt::format("has no tensor for '{}'", name));
  }
  return found->second;
}

torch::Tensor WeightSource::tensor(std::string_view name) const {
  if (!contents_->layout) return contents_->checkpoint.tensor(name);
  const auto i = index_of(name);
  return made(contents_->checkpoint, contents_->layout->recipes[i]);
}

std::optional<BlockMatrix> WeightSource::blocks(std::string_view name) const {
  const auto& checkpoint = contents_->checkpoint;
  const auto recipe = contents_->layout
                          ? contents_->layout->recipes[index_of(name)]
                          : Recipe{.name = std::string(name), .parts = {Part(std::string(name))}};
  if (!recipe.only_joins()) return std::nullopt;
  BlockLayout layout{.parts = {}, .columns = 0, .dtype = at::kFloat};
  for (const auto& part : recipe.parts) {
    const auto& entry = *checkpoint.find(part.name);
    if (entry.encoding == Encoding::kPlain || entry.sizes.size() != 2 || entry.nbytes == 0) {
      return std::nullopt;
    }
    layout.parts.push_back({entry.encoding, entry.sizes[0]});
    layout.columns = entry.sizes[1];
  }
  return BlockMatrix{joined_blocks(checkpoint, recipe.parts), std::move(layout)};
}

bool WeightSource::is_view(std::string_view name) const {
  if (find(name)->encoding != Encoding::kPlain) return false;
  if (!contents_->layout) return true;
  const auto& recipe = contents_->layout->recipes[index_of(name)];
  return recipe.parts.size() == 1 && recipe.order.empty() && recipe.plus == 0;
}

torch::Tensor WeightSource::rows(std::string_view name, int64_t first, int64_t count) const {
  if (!contents_->layout) return contents_->checkpoint.rows(name, first, count);
  const auto& recipe = contents_->layout->recipes[index_of(name)];
  return recipe.is_alias() ? contents_->checkpoint.rows(recipe.parts.front().name, first, count)
                           : tensor(name).narrow(0, first, count);
}

void WeightSource::release(std::string_view name) const {
  if (!contents_->layout) return contents_->checkpoint.release(name);
  for (const auto& part : contents_->layout->recipes[index_of(name)].parts) {
    contents_->checkpoint.release(part.name);
  }
}

void WeightSource::check_complete() const {
  refuse_adapter_beside(path());
  if (!contents_->layout || !contents_->layout->unembedding) return;
  const auto& [head, embedding] = *contents_->layout->unembedding;
  if (has_same_numbers(contents_->checkpoint, head, embedding)) return;
  refuse_file(contents_->checkpoint.file_of(head),
              fmt::format("tensor '{}' is not '{}' again: it is not a Gemma, or was trained with "
                          "tie_word_embeddings false, which this cannot hold",
                          head, embedding));
}

const std::string& WeightSource::file_of(std::string_view name) const {
  if (!contents_->layout) return contents_->checkpoint.file_of(name);
  return contents_->checkpoint.file_of(
      contents_->layout->recipes[index_of(name)].parts.front().name);
}

const std::string& WeightSource::name_in_file(std::string_view name) const {
  if (contents_->layout) return contents_->layout->recipes[index_of(name)].parts.front().name;
  const auto* const entry = find(name);
  if (entry == nullptr) refuse_file(path(), fmt::format("has no tensor '{}'", name));
  return entry->name;
}

const std::string& WeightSource::path() const { return contents_->checkpoint.path(); }

std::string_view WeightSource::layout() const {
  return contents_->layout ? contents_->layout->name : own_name(contains(kOwnEmbeddings.back()));
}

}  // namespace gemma
