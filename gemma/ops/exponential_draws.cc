#include <algorithm>
#include <mutex>
#include <tuple>
#include <utility>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/DistributionsHelper.h>
#include <ATen/ops/empty.h>

#include <gemma/ops/cpu/kernels.h>
#include <gemma/ops/exponential_draws.h>

namespace gemma {
namespace {

constexpr int64_t kBlock = at::MERSENNE_STATE_N;

using Words = std::unique_ptr<uint32_t[]>;

uint32_t tempered(uint32_t word) {
  word ^= word >> 11;
  word ^= (word << 7) & 0x9d2c5680U;
  word ^= (word << 15) & 0xefc60000U;
  return word ^ (word >> 18);
}

// What ATen's distributions ask of a generator, with an answer ready.
struct FixedGenerator {
  uint64_t random64() const { return value; }
  uint32_t random() const { return static_cast<uint32_t>(value); }
  uint64_t value;
};

float exponential(uint32_t first, uint32_t second) {
  FixedGenerator generator{(uint64_t{tempered(first)} << 32) | tempered(second)};
  at::exponential_distribution<double> distribution(1.0);
  return static_cast<float>(distribution(&generator));
}

// Takes the words of `count` draws, two each, out of the generator -> memory that holds them, and
// the index in it at which they begin.
std::pair<Words, int64_t> take_words(at::CPUGeneratorImpl& generator, int64_t count) {
  auto engine = generator.engine();
  auto state = engine.data();
  // The engine counts what is left of its block, one too many.
  const auto first = kBlock + 1 - state.left_;
  const auto end = first + 2 * count;
  const auto size = std::max(cpu::round_up(end, kBlock), kBlock);
  auto words = std::make_unique_for_overwrite<uint32_t[]>(static_cast<size_t>(size));
  std::copy(state.state_.begin(), state.state_.end(), words.get());
  cpu::kernels().twist(words.get(), size);
  std::copy_n(words.get() + size - kBlock, kBlock, state.state_.begin());
  const auto used = end - (size - kBlock);
  state.left_ = static_cast<int>(kBlock + 1 - used);
  state.next_ = static_cast<uint32_t>(used);
  engine.set_data(state);
  generator.set_engine(engine);
  return {std::move(words), first};
}

// Whether exponential_() of this LibTorch is made as it is here: some builds use MKL's generators.
bool follows_the_sequence() {
  constexpr int64_t kCount = 1000;
  constexpr uint64_t kSeed = 20;
  auto theirs = at::detail::createCPUGenerator(kSeed);
  auto ours = at::detail::createCPUGenerator(kSeed);
  const auto want = at::empty({1, kCount}, at::kFloat).exponential_(1.0, theirs);
  auto& generator = *at::check_generator<at::CPUGeneratorImpl>(ours);
  const auto [words, first] = take_words(generator, kCount);
  for (int64_t i = 0; i < kCount; ++i) {
    if (exponential(words[first + 2 * i], words[first + 2 * i + 1]) !=
        want.const_data_ptr<float>()[i]) {
      return false;
    }
  }
  return generator.random64() == at::check_generator<at::CPUGeneratorImpl>(theirs)->random64();
}

}  // namespace

ExponentialDraws::ExponentialDraws(int64_t count, at::Generator generator) {
  if (!generator.defined()) generator = at::detail::getDefaultCPUGenerator();
  static const bool known = follows_the_sequence();
  if (!known) {
    const auto all = at::empty({1, count}, at::kFloat).exponential_(1.0, generator);
    drawn_.assign(all.const_data_ptr<float>(), all.const_data_ptr<float>() + count);
    return;
  }
  const std::lock_guard lock(generator.mutex());
  std::tie(words_, first_) =
      take_words(*at::check_generator<at::CPUGeneratorImpl>(generator), count);
}

float ExponentialDraws::at(int64_t index) const {
  if (!drawn_.empty()) return drawn_[index];
  return exponential(words_[first_ + 2 * index], words_[first_ + 2 * index + 1]);
}

}  // namespace gemma
