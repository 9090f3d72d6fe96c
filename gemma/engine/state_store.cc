#include <algorithm>
#include <stdexcept>
#include <unistd.h>

#include <ATen/ATen.h>
#include <c10/util/accumulate.h>
#include <fmt/format.h>

#include <gemma/config/dtype_name.h>
#include <gemma/engine/state_store.h>

namespace gemma {
namespace {

int64_t machine_memory() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
}

std::vector<int64_t> sizes_of(const KeysKept& keys, int64_t blocks) {
  return {blocks, keys.num_kv_heads, BlockCache::kPositions, BlockCache::padded(keys.head_dim)};
}

}  // namespace

int64_t StateStore::Kind::first_seen(int64_t position) const {
  return window ? std::max<int64_t>(0, position - *window + 1) : 0;
}

int64_t StateStore::Kind::blocks(int64_t positions, int64_t chunk) const {
  const auto all = BlockCache::blocks_for(positions);
  if (!window) return all;
  // A chunk's first token sees a window back from itself, while its last is written already; both
  // may begin in the middle of a block.
  return std::min(all, BlockCache::blocks_for(*window) + BlockCache::blocks_for(chunk) + 1);
}

StateStore::StateStore(const EngineModelImpl& model, const StatePlan& plan) {
  if (plan.dtype != torch::kFloat32 && plan.dtype != torch::kBFloat16) {
    throw std::invalid_argument(fmt::format(
        "engine: kv_dtype is {}, but must be float32 or bfloat16", dtype_name(plan.dtype)));
  }
  const auto layers = model.kept_by_layers();
  for (size_t i = 0; i < layers.size(); ++i) {
    if (const auto* keys = std::get_if<KeysKept>(&layers[i])) {
      add(i, *keys, plan.dtype);
    } else {
      add(i, std::get<StateKept>(layers[i]));
    }
  }
  divide(plan);
  caches_.resize(layers.size());
  const auto empty = [&, device = model.device()](at::IntArrayRef sizes, torch::Dtype dtype) {
    return at::empty(sizes, at::TensorOptions().dtype(dtype).device(device));
  };
  for (const auto& kind : kinds_) {
    for (const auto i : kind.layers) {
      const auto sizes = sizes_of(std::get<KeysKept>(layers[i]), kind.pool.size());
      caches_[i] = BlockCache{empty(sizes, plan.dtype), empty(sizes, plan.dtype)};
    }
  }
  for (const auto i : slots_.layers) {
    const auto& [width, inputs] = std::get<StateKept>(layers[i]);
    const auto count = slots_.pool.size();
    caches_[i] = RecurrentCache{empty({count, width}, torch::kFloat32),
                                empty({count, inputs, width}, torch::kFloat32)};
  }
}

// Counts a layer's share of a block.
void StateStore::add(size_t layer, const KeysKept& keys, torch::Dtype dtype) {
  auto kind = std::ranges::find(kinds_, keys.window, &Kind::window);
  if (kind == kinds_.end()) {
    kind = kinds_.emplace(kinds_.end());
    kind->window = keys.window;
  }
  kind->layers.push_back(layer);
  kind->block_bytes +=
      2 * c10::multiply_integers(sizes_of(keys, 1)) * static_cast<int64_t>(c10::elementSize(dtype));
}

// Counts a layer's share of a slot.
void StateStore::add(size_t layer, const StateKept& state) {
  slots_.layers.push_back(layer);
  slots_.slot_bytes += (1 + state.conv_inputs) * state.width * static_cast<int64_t>(sizeof(float));
}

// How many blocks each kind has, and how many slots there are.
void StateStore::divide(const StatePlan& plan) {
  // While a sequence is continued it has two, and as many are for those that wait or were forked.
  constexpr int64_t kSlotsPerSequence = 4;
  const auto least_of = [&, tokens = std::min(plan.positions, plan.chunk)](const Kind& kind) {
    return kind.blocks(tokens, plan.chunk);
  };
  std::vector<int64_t> blocks;
  const auto slots = has_slots() ? kSlotsPerSequence * plan.sequences : 0;
  const auto least_slots = std::min<int64_t>(slots, 2);
  auto wanted = slots * slots_.slot_bytes, least = least_slots * slots_.slot_bytes;
  for (const auto& kind : kinds_) {
    // Of the tokens that go through the model together, each belongs to one sequence.
    const auto window = kind.blocks(plan.positions, 1);
    blocks.push_back(kind.window
                         ? plan.sequences * window + kind.blocks(plan.positions, plan.chunk) -
                               window + plan.sequences
                         : plan.sequences * window);
    wanted += blocks.back() * kind.block_bytes;
    least += least_of(kind) * kind.block_bytes;
  }
  const auto bytes = plan.bytes.value_or(std::min(wanted, machine_memory() / 2));
  if (bytes < least) {
    throw std::invalid_argument(fmt::format("engine: kv_memory is {} bytes, but {} tokens need {}",
                                            bytes, std::min(plan.positions, plan.chunk), least));
  }
  const auto share = static_cast<double>(bytes) / static_cast<double>(wanted);
  const auto of_share = [&](int64_t count, int64_t at_least) {
    return std::max(at_least, static_cast<int64_t>(share * static_cast<double>(count)));
  };
  // More bytes than are wanted are for longer sequences, where these need more.
  const bool grows = std::ranges::any_of(kinds_, [](const Kind& kind) { return !kind.window; });
  for (size_t i = 0; i < kinds_.size(); ++i) {
    auto& kind = kinds_[i];
    auto count = blocks[i];
    if (bytes < wanted || !grows) {
      count = of_share(count, least_of(kind));
    } else if (!kind.window) {
      count += (bytes - wanted) / kind.block_bytes;
    }
    kind.pool = BlockPool(count);
  }
  slots_.pool = BlockPool(bytes < wanted || !grows ? of_share(slots, least_slots) : slots);
}

void StateStore::copy(const Kind& kind, int32_t from, int32_t to) {
  const torch::NoGradGuard no_grad;
  for (const auto layer : kind.layers) {
    const auto& [k, v] = blocks_of(layer);
    k[to].copy_(k[from]);
    v[to].copy_(v[from]);
  }
}

int64_t StateStore::bytes_free() const {
  auto bytes = slots_.pool.free() * slots_.slot_bytes;
  for (const auto& kind : kinds_) bytes += kind.pool.free() * kind.block_bytes;
  return bytes;
}

int64_t StateStore::bytes() const {
  auto total = slots_.pool.size() * slots_.slot_bytes;
  for (const auto& kind : kinds_) total += kind.pool.size() * kind.block_bytes;
  return total;
}

}  // namespace gemma
