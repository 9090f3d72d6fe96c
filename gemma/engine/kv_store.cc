#include <algorithm>
#include <stdexcept>
#include <unistd.h>

#include <ATen/ATen.h>
#include <c10/util/accumulate.h>
#include <fmt/format.h>

#include <gemma/config/dtype_name.h>
#include <gemma/engine/kv_store.h>
#include <gemma/modules/decoder_layer.h>

namespace gemma {
namespace {

int64_t machine_memory() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
}

}  // namespace

int64_t KVStore::Kind::first_seen(int64_t position) const {
  return window ? std::max<int64_t>(0, position - *window + 1) : 0;
}

int64_t KVStore::Kind::blocks(int64_t positions, int64_t chunk) const {
  const auto all = BlockCache::blocks_for(positions);
  if (!window) return all;
  // A chunk's first token sees a window back from itself, while its last is written already; both
  // may begin in the middle of a block.
  return std::min(all, BlockCache::blocks_for(*window) + BlockCache::blocks_for(chunk) + 1);
}

KVStore::KVStore(const LanguageModelImpl& model, const KVPlan& plan) {
  if (plan.dtype != torch::kFloat32 && plan.dtype != torch::kBFloat16) {
    throw std::invalid_argument(fmt::format(
        "engine: kv_dtype is {}, but must be float32 or bfloat16", dtype_name(plan.dtype)));
  }
  const auto& layers = *model.model->layers;
  const auto options =
      at::TensorOptions().dtype(plan.dtype).device(model.embedder->weight.device());
  const auto sizes_of = [](const GemmaAttentionImpl& attention, int64_t blocks) {
    return std::vector<int64_t>{blocks, attention.num_kv_heads(), BlockCache::kPositions,
                                BlockCache::padded(attention.head_dim())};
  };
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto& attention = *layers.ptr<DecoderLayerImpl>(i)->self_attn;
    const auto same = [&](const Kind& kind) { return kind.window == attention.window(); };
    auto kind = std::ranges::find_if(kinds_, same);
    if (kind == kinds_.end()) {
      kind = kinds_.emplace(kinds_.end());
      kind->window = attention.window();
    }
    kind->layers.push_back(i);
    kind->block_bytes += 2 * c10::multiply_integers(sizes_of(attention, 1)) *
                         static_cast<int64_t>(c10::elementSize(plan.dtype));
  }
  divide(plan);
  caches_.resize(layers.size());
  for (const auto& kind : kinds_) {
    for (const auto i : kind.layers) {
      const auto sizes = sizes_of(*layers.ptr<DecoderLayerImpl>(i)->self_attn, kind.pool.size());
      caches_[i] = {at::empty(sizes, options), at::empty(sizes, options)};
    }
  }
}

// How many blocks each kind has.
void KVStore::divide(const KVPlan& plan) {
  std::vector<int64_t> blocks;
  int64_t wanted = 0, least = 0;
  for (const auto& kind : kinds_) {
    // Of the tokens that go through the model together, each belongs to one sequence.
    const auto window = kind.blocks(plan.positions, 1);
    blocks.push_back(kind.window
                         ? plan.sequences * window + kind.blocks(plan.positions, plan.chunk) -
                               window + plan.sequences
                         : plan.sequences * window);
    wanted += blocks.back() * kind.block_bytes;
    least += kind.blocks(std::min(plan.positions, plan.chunk), plan.chunk) * kind.block_bytes;
  }
  const auto bytes = plan.bytes.value_or(std::min(wanted, machine_memory() / 2));
  if (bytes < least) {
    throw std::invalid_argument(fmt::format("engine: kv_memory is {} bytes, but {} tokens need {}",
                                            bytes, std::min(plan.positions, plan.chunk), least));
  }
  for (size_t i = 0; i < kinds_.size(); ++i) {
    auto& kind = kinds_[i];
    auto count = blocks[i];
    if (bytes < wanted) {
      const auto share = static_cast<double>(bytes) / static_cast<double>(wanted);
      count = std::max(kind.blocks(std::min(plan.positions, plan.chunk), plan.chunk),
                       static_cast<int64_t>(share * static_cast<double>(count)));
    } else if (!kind.window) {
      count += (bytes - wanted) / kind.block_bytes;
    }
    kind.pool = BlockPool(count);
  }
}

void KVStore::copy(const Kind& kind, int32_t from, int32_t to) {
  const torch::NoGradGuard no_grad;
  for (const auto layer : kind.layers) {
    const auto& [k, v] = caches_[layer];
    k[to].copy_(k[from]);
    v[to].copy_(v[from]);
  }
}

int64_t KVStore::bytes_free() const {
  int64_t bytes = 0;
  for (const auto& kind : kinds_) bytes += kind.pool.free() * kind.block_bytes;
  return bytes;
}

int64_t KVStore::bytes() const {
  int64_t total = 0;
  for (const auto& kind : kinds_) total += kind.pool.size() * kind.block_bytes;
  return total;
}

}  // namespace gemma
