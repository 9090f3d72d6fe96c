#include <algorithm>
#include <array>
#include <span>
#include <stdexcept>
#include <string_view>
#include <tuple>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/checkpoint/crc32.h>
#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/safetensors_writer.h>
#include <gemma/config/dtype_name.h>
#include <gemma/engine/model_digest.h>
#include <gemma/engine/session_file.h>

namespace gemma {
namespace {

constexpr int64_t kVersion = 1;
constexpr auto kHeader = "session";  // Version, digest of the model, tokens that are done.
constexpr auto kTokens = "tokens";
constexpr auto kGenerated = "generated";  // 1 for a token that was generated.
constexpr auto kFirstBlocks = "first_blocks";
constexpr auto kImages = "images";  // Their first tokens.
constexpr auto kChecksum = "crc32";

// What each file has.
constexpr std::array kNames{kHeader, kTokens, kGenerated, kFirstBlocks, kImages, kChecksum};

std::string image_name(size_t index) { return fmt::format("images.{}", index); }
std::string keys_name(size_t layer) { return fmt::format("layers.{}.keys", layer); }
std::string values_name(size_t layer) { return fmt::format("layers.{}.values", layer); }
std::string rg_lru_name(size_t layer) { return fmt::format("layers.{}.rg_lru_state", layer); }
std::string conv1d_name(size_t layer) { return fmt::format("layers.{}.conv1d_state", layer); }

Bytes bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

at::Tensor longs(const std::vector<int64_t>& numbers) { return at::tensor(numbers, at::kLong); }

// Of some tensors and their names, in this order.
uint32_t checksum(const NamedTensors& tensors) {
  uint32_t crc = 0;
  for (const auto& [name, tensor] : tensors) {
    crc = crc32(std::as_bytes(std::span(name)), crc);
    crc = crc32(bytes_of(tensor), crc);
  }
  return crc;
}

// A file that is open.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path)
      : file_(Checkpoint::open(path)), path_(path.string()) {
    for (const auto* name : kNames) {
      if (!file_.contains(name)) {
        refuse(
            fmt::format("is not a session, as it has no tensor \"{}\"; give what "
                        "Session.save wrote",
                        name));
      }
    }
  }

  [[noreturn]] void refuse(std::string_view what) const { refuse_file(path_, what); }

  [[noreturn]] void refuse_damaged(std::string_view what) const {
    refuse(fmt::format("{}: the file is damaged; save the session again", what));
  }

  // All are there, and as they were written.
  void check_sum() const {
    NamedTensors tensors;
    for (const auto& entry : file_.entries()) {
      if (entry.name != kChecksum) tensors.emplace_back(entry.name, file_.tensor(entry.name));
    }
    if (numbers(kChecksum, 1)[0] != checksum(tensors)) refuse_damaged("its checksum is another");
  }

  at::Tensor tensor(const std::string& name, at::ScalarType dtype, at::IntArrayRef sizes) const {
    const auto& found = entry(name);
    if (found.dtype != dtype || at::IntArrayRef(found.sizes) != sizes) {
      refuse_damaged(fmt::format("\"{}\" is {} [{}], not {} [{}]", name, dtype_name(found.dtype),
                                 fmt::join(found.sizes, ", "), dtype_name(dtype),
                                 fmt::join(sizes.vec(), ", ")));
    }
    return file_.tensor(name);
  }

  // int64; as many as there are, unless it is said.
  std::vector<int64_t> numbers(const std::string& name, int64_t count = -1) const {
    if (count < 0) count = rows_of(name);
    const auto found = tensor(name, at::kLong, {count}).contiguous();
    const auto* begin = found.const_data_ptr<int64_t>();
    return {begin, begin + count};
  }

  // Tensors.
  size_t size() const { return file_.entries().size(); }

  at::ScalarType dtype_of(const std::string& name) const { return entry(name).dtype; }
  int64_t rows_of(const std::string& name) const {
    const auto& sizes = entry(name).sizes;
    return sizes.empty() ? 0 : sizes[0];
  }

 private:
  const TensorEntry& entry(const std::string& name) const {
    const auto* found = file_.find(name);
    if (found == nullptr) refuse_damaged(fmt::format("there is no \"{}\"", name));
    return *found;
  }

  Checkpoint file_;
  std::string path_;
};

// The images that begin among the tokens [begin, end), counted from `begin`.
std::vector<ImageTokens> images_among(const std::vector<ImageTokens>& images,
                                      int64_t begin,
                                      int64_t end) {
  std::vector<ImageTokens> found;
  for (const auto& image : images) {
    if (image.first >= begin && image.first < end) {
      found.push_back({image.first - begin, image.embeddings});
    }
  }
  return found;
}

std::vector<ImageTokens> read_images(const Reader& file,
                                     const EngineModelImpl& model,
                                     int64_t tokens) {
  std::vector<ImageTokens> images;
  int64_t done = 0;
  for (const auto first : file.numbers(kImages)) {
    const auto name = image_name(images.size());
    const auto dtype = file.dtype_of(name);
    const auto rows = file.rows_of(name);
    auto embeddings = file.tensor(name, dtype, {rows, model.hidden_size()}).clone();
    if (!at::isFloatingType(dtype) || first < done || rows > tokens - first) {
      file.refuse_damaged(fmt::format("\"{}\" is not among the tokens", name));
    }
    done = first + rows;
    images.push_back({first, std::move(embeddings)});
  }
  return images;
}

// Tokens and images.
Text read_text(const Reader& file, const EngineModelImpl& model) {
  const auto tokens = file.numbers(kTokens);
  const auto count = std::ssize(tokens);
  const auto flags = file.tensor(kGenerated, at::kByte, {count}).contiguous();
  const std::span generated(flags.const_data_ptr<uint8_t>(), tokens.size());
  const auto is_token = [&](int64_t token) { return token >= 0 && token < model.vocab_size(); };
  if (!std::ranges::all_of(tokens, is_token)) file.refuse_damaged("a token is not the model's");
  const auto images = read_images(file, model, count);
  Text text;
  size_t images_fed = 0;
  for (size_t begin = 0; begin < tokens.size();) {
    if (generated[begin] != 0) {
      text.add(tokens[begin++]);
      continue;
    }
    auto end = begin;
    while (end < tokens.size() && generated[end] == 0) ++end;
    const auto among = images_among(images, static_cast<int64_t>(begin), static_cast<int64_t>(end));
    if (!among.empty() && among.back().end() > static_cast<int64_t>(end - begin)) {
      file.refuse_damaged("an image has tokens that were generated");
    }
    text.feed(std::span(tokens).subspan(begin, end - begin), among);
    images_fed += among.size();
    begin = end;
  }
  if (images_fed != images.size()) file.refuse_damaged("an image has tokens that were generated");
  return text;
}

// What of a kind's blocks is written: [blocks, K, kPositions, D].
at::Tensor written(const at::Tensor& cache, const at::Tensor& blocks, int64_t width, int64_t done) {
  auto copy =
      cache.index_select(0, blocks.to(cache.device())).narrow(3, 0, width).cpu().contiguous();
  const auto used = done % BlockCache::kPositions;
  // What another text left in the rest is nobody's business.
  if (used > 0) copy.select(0, -1).narrow(1, used, BlockCache::kPositions - used).zero_();
  return copy;
}

// Keys and values of the tokens that are done.
void read_caches(const Reader& file,
                 const StateStore& store,
                 std::span<const LayerKeeps> layers,
                 SavedSession& saved) {
  saved.first = file.numbers(kFirstBlocks, std::ssize(store.kinds()));
  saved.keys.resize(layers.size());
  saved.values.resize(layers.size());
  for (size_t kind = 0; kind < store.kinds().size(); ++kind) {
    const auto& [first, of_kind] = std::tie(saved.first[kind], store.kinds()[kind]);
    if (first < 0 || first > BlockCache::blocks_for(saved.length) ||
        first * BlockCache::kPositions > of_kind.first_seen(saved.length)) {
      file.refuse_damaged(fmt::format("keys and values begin with block {}", first));
    }
    if (saved.length == 0) continue;
    for (const auto layer : of_kind.layers) {
      const auto dtype = store.blocks_of(layer).k.scalar_type();
      const auto found = file.dtype_of(keys_name(layer));
      if (found != dtype && (found == at::kFloat || found == at::kBFloat16)) {
        file.refuse(
            fmt::format("holds keys and values as {}, but this engine's are {}; make it "
                        "with kv_dtype {}",
                        dtype_name(found), dtype_name(dtype), dtype_name(found)));
      }
      const auto& [kv_heads, width, _] = std::get<KeysKept>(layers[layer]);
      const std::vector<int64_t> sizes{saved.blocks(kind), kv_heads, BlockCache::kPositions, width};
      saved.keys[layer] = file.tensor(keys_name(layer), dtype, sizes);
      saved.values[layer] = file.tensor(values_name(layer), dtype, sizes);
    }
  }
}

// The states after these.
void read_states(const Reader& file,
                 const StateStore& store,
                 std::span<const LayerKeeps> layers,
                 SavedSession& saved) {
  saved.states.resize(layers.size());
  for (const auto layer : store.slots().layers) {
    const auto& [width, inputs] = std::get<StateKept>(layers[layer]);
    saved.states[layer] = {file.tensor(rg_lru_name(layer), at::kFloat, {width}),
                           file.tensor(conv1d_name(layer), at::kFloat, {inputs, width})};
  }
}

}  // namespace

NamedTensors session_tensors(const Text& text,
                             const StateStore& store,
                             const EngineModelImpl& model) {
  const torch::NoGradGuard no_grad;
  const auto layers = model.kept_by_layers();
  std::vector<uint8_t> generated;
  for (int64_t i = 0; i < text.size(); ++i) generated.push_back(text.is_generated(i) ? 1 : 0);
  std::vector<int64_t> images;
  for (const auto& image : text.images()) images.push_back(image.first);
  NamedTensors tensors{{kHeader, longs({kVersion, model_digest(model), text.done()})},
                       {kTokens, longs(text.tokens())},
                       {kGenerated, at::tensor(generated, at::kByte)},
                       {kImages, longs(images)}};
  for (size_t i = 0; i < images.size(); ++i) {
    tensors.emplace_back(image_name(i), text.images()[i].embeddings.detach().cpu().contiguous());
  }
  std::vector<int64_t> first_blocks(store.kinds().size());
  for (size_t kind = 0; kind < store.kinds().size() && text.done() > 0; ++kind) {
    const auto [table, first] = text.sequence->table(kind);
    first_blocks[kind] = first;
    const auto count = static_cast<size_t>(BlockCache::blocks_for(text.done()) - first);
    const auto blocks = at::tensor(at::ArrayRef<int32_t>(table.data(), count));
    for (const auto layer : store.kinds()[kind].layers) {
      const auto& [k, v] = store.blocks_of(layer);
      const auto width = std::get<KeysKept>(layers[layer]).head_dim;
      tensors.emplace_back(keys_name(layer), written(k, blocks, width, text.done()));
      tensors.emplace_back(values_name(layer), written(v, blocks, width, text.done()));
    }
  }
  for (const auto layer : store.slots().layers) {
    if (text.done() == 0) break;
    const auto& [rg_lru, conv1d] = store.states_of(layer);
    const auto slot = *text.sequence->slot();
    tensors.emplace_back(rg_lru_name(layer), rg_lru[slot].cpu().clone());
    tensors.emplace_back(conv1d_name(layer), conv1d[slot].cpu().clone());
  }
  tensors.emplace_back(kFirstBlocks, longs(first_blocks));
  return tensors;
}

void write_session_file(const std::filesystem::path& path, const NamedTensors& tensors) {
  auto all = tensors;
  all.emplace_back(kChecksum, longs({checksum(tensors)}));
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : all) {
    specs.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  }
  SafetensorsWriter file(path, std::move(specs), /*overwrite=*/true);
  for (const auto& [name, tensor] : all) file.add(name, tensor);
  file.finish();
}

SavedSession read_session_file(const std::filesystem::path& path,
                               const StateStore& store,
                               const EngineModelImpl& model) {
  const Reader file(path);
  file.check_sum();
  const auto header = file.numbers(kHeader, 3);
  if (header[0] != kVersion) {
    file.refuse(fmt::format("is version {} of a session, but this program reads version {}",
                            header[0], kVersion));
  }
  if (header[1] != model_digest(model)) {
    file.refuse("was saved from a model with other weights or another config; load it there");
  }
  SavedSession saved;
  saved.text = read_text(file, model);
  saved.length = header[2];
  if (saved.length < 0 || saved.length > saved.text.size() ||
      saved.length > model.max_positions() || saved.text.is_inside_image(saved.length)) {
    file.refuse_damaged(fmt::format("{} of {} tokens are done", saved.length, saved.text.size()));
  }
  const auto layers = model.kept_by_layers();
  read_caches(file, store, layers, saved);
  if (saved.length > 0) read_states(file, store, layers, saved);
  const auto caches = saved.length > 0 ? 2 * layers.size() : 0;
  if (file.size() != kNames.size() + saved.text.images().size() + caches) {
    file.refuse_damaged("it holds more than its session");
  }
  return saved;
}

Sequence restore_sequence(const SavedSession& saved, const std::shared_ptr<StateStore>& store) {
  const torch::NoGradGuard no_grad;
  std::vector<Sequence::Table> tables(store->kinds().size());
  for (size_t kind = 0; kind < tables.size(); ++kind) {
    tables[kind].first = saved.first[kind];
    for (auto i = saved.blocks(kind); i > 0; --i) {
      tables[kind].blocks.push_back(store->kinds()[kind].pool.take());
    }
  }
  const auto slot = store->has_slots() && saved.length > 0
                        ? std::optional(store->slots().pool.take())
                        : std::nullopt;
  Sequence sequence(store, tables, slot, saved.length);
  const auto fill = [](const at::Tensor& block, const at::Tensor& from) {
    block.zero_();  // D is padded with zeros.
    block.narrow(2, 0, from.size(2)).copy_(from);
  };
  for (size_t kind = 0; kind < tables.size(); ++kind) {
    auto& of_kind = store->kinds()[kind];
    const auto& blocks = tables[kind].blocks;
    for (size_t i = 0; i < blocks.size(); ++i) {
      of_kind.pool.release(blocks[i]);  // The sequence shares it.
      for (const auto layer : of_kind.layers) {
        const auto& [k, v] = store->blocks_of(layer);
        fill(k[blocks[i]], saved.keys[layer][static_cast<int64_t>(i)]);
        fill(v[blocks[i]], saved.values[layer][static_cast<int64_t>(i)]);
      }
    }
  }
  if (!slot) return sequence;
  store->slots().pool.release(*slot);  // Likewise.
  for (const auto layer : store->slots().layers) {
    const auto& [rg_lru, conv1d] = store->states_of(layer);
    rg_lru[*slot].copy_(saved.states[layer].rg_lru_state);
    conv1d[*slot].copy_(saved.states[layer].conv1d_state);
  }
  return sequence;
}

}  // namespace gemma
