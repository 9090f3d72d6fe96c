#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/checkpoint/safetensors_writer.h>
#include <gemma/models/sparse_autoencoder.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::random_tensor;
using testing::tensors_close;

using Tensors = std::map<std::string, at::Tensor>;

Checkpoint file_with(const Tensors& tensors) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "params.safetensors";
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) {
    specs.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  }
  SafetensorsWriter file(path, std::move(specs), /*overwrite=*/true);
  for (const auto& [name, tensor] : tensors) file.add(name, tensor);
  file.finish();
  return Checkpoint::open(path);
}

// Two numbers, three features: the first number, the second, and less the first.
Tensors small() {
  return {{"w_enc", at::tensor({1.F, 0.F, -1.F, 0.F, 1.F, 0.F}).reshape({2, 3})},
          {"b_enc", at::tensor({0.F, 0.5F, 0.F})},
          {"threshold", at::tensor({1.F, 1.F, 0.F})},
          {"w_dec", at::tensor({1.F, 0.F, 0.F, 1.F, -1.F, 0.F}).reshape({3, 2})},
          {"b_dec", at::tensor({0.25F, 0.F})}};
}

TEST(SparseAutoencoder, HasFeaturesAboveTheirThresholdAlone) {
  const SparseAutoencoder sae(file_with(small()));
  EXPECT_EQ(sae.width(), 2);
  EXPECT_EQ(sae.num_features(), 3);
  const auto x = at::tensor({1.F, 0.5F, 2.F, 2.F, -3.F, -1.F}).reshape({3, 2});
  const auto features = sae.encode(x);
  // 1 and 0.5 + 0.5 are at the threshold, which is not above it.
  const auto want = at::tensor({0.F, 0.F, 0.F, 2.F, 2.5F, 0.F, 0.F, 0.F, 3.F}).reshape({3, 3});
  EXPECT_TRUE(tensors_close(features, want));
  const auto told = at::tensor({0.25F, 0.F, 2.25F, 2.5F, -2.75F, 0.F}).reshape({3, 2});
  EXPECT_TRUE(tensors_close(sae.decode(features, x), told));
}

TEST(SparseAutoencoder, OfATranscoderAddsItsInputByTheSkip) {
  auto tensors = small();
  tensors["affine_skip_connection"] = at::tensor({0.F, 1.F, 0.F, 0.F}).reshape({2, 2});
  const SparseAutoencoder sae(file_with(tensors));
  const auto x = at::tensor({7.F, 1.F}).reshape({1, 2});
  // Google's: x @ affine_skip_connection, so that the first number becomes the second.
  EXPECT_TRUE(
      tensors_close(sae.decode(at::zeros({1, 3}), x), at::tensor({0.25F, 7.F}).reshape({1, 2})));
}

TEST(SparseAutoencoder, TellsHowMuchOfTheVarianceItTells) {
  const auto values = random_tensor({5, 2}, /*seed=*/1);
  EXPECT_DOUBLE_EQ(explained_variance(values, values), 1);
  EXPECT_NEAR(explained_variance(values, values.mean(0, /*keepdim=*/true)), 0, 1e-6);
}

TEST(SparseAutoencoder, RefusesWhatIsNone) {
  const auto refusal = [](const std::string& name, const at::Tensor& tensor) {
    auto tensors = small();
    tensors.erase(name);
    if (tensor.defined()) tensors[name] = tensor;
    return message_of<std::runtime_error>([&] { const SparseAutoencoder sae(file_with(tensors)); });
  };
  EXPECT_TRUE(contains(refusal("threshold", {}), "has no tensor 'threshold'"));
  EXPECT_TRUE(contains(refusal("w_enc", at::zeros({2, 3, 4})), "'w_enc' must have 2 dimensions"));
  EXPECT_TRUE(contains(refusal("b_dec", at::zeros({2}, at::kLong)), "of floats"));
  EXPECT_TRUE(
      contains(refusal("w_dec", at::zeros({2, 3})), "'w_dec' is [2, 3], but must be [3, 2]"));
}

}  // namespace
}  // namespace gemma
