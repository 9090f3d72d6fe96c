#include "tests/saved_models.h"

#include <stdexcept>
#include <utility>

#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

namespace gemma::testing {
namespace {

std::string storage_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "FloatStorage";
    case at::kHalf:
      return "HalfStorage";
    case at::kBFloat16:
      return "BFloat16Storage";
    case at::kChar:
      return "CharStorage";
    case at::kDouble:
      return "DoubleStorage";
    case at::kLong:
      return "LongStorage";
    case at::kComplexFloat:
      return "ComplexFloatStorage";
    default:
      throw std::invalid_argument(c10::toString(dtype));
  }
}

}  // namespace

GemmaForCausalLM random_gemma3(uint64_t seed, bool quant, torch::Dtype dtype) {
  const DefaultDtypeGuard guard(dtype);
  auto config = tiny_config(Architecture::kGemma3);
  config.quant = quant;
  GemmaForCausalLM model(config);
  randomize(*model, seed);
  return model;
}

std::string saved(const StateDict& tensors, bool bare) {
  std::vector<std::string> items;
  std::vector<std::string> data;
  for (const auto& [name, tensor] : tensors) {
    const auto dense = tensor.contiguous();
    items.push_back(op::text(name));
    items.push_back(op::tensor({.sizes = dense.sizes().vec(),
                                .strides = dense.strides().vec(),
                                .key = std::to_string(data.size()),
                                .numel = dense.numel(),
                                .storage = storage_of(dense.scalar_type())}));
    data.emplace_back(static_cast<const char*>(dense.const_data_ptr()), dense.nbytes());
  }
  auto dict = op::ordered_dict(items);
  if (!bare) dict = op::dict({op::text("model_state_dict"), dict});
  return torch_file(pickle_of(dict), data);
}

StateDict copy_of(const torch::nn::Module& module) {
  auto copy = state_dict(module);
  for (auto& item : copy) item.second = item.second.clone();
  return copy;
}

at::Tensor& at_name(StateDict& tensors, std::string_view name) {
  for (auto& [key, tensor] : tensors) {
    if (key == name) return tensor;
  }
  throw std::out_of_range(std::string(name));
}

void rename(StateDict& tensors, std::string_view from, std::string_view to) {
  for (auto& item : tensors) {
    if (item.first == from) item.first = to;
  }
}

void drop(StateDict& tensors, std::string_view part) {
  std::erase_if(tensors,
                [part](const auto& item) { return item.first.find(part) != std::string::npos; });
}

void expect_state(const torch::nn::Module& module, const StateDict& want) {
  const auto got = state_dict(module);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].first, want[i].first);
    EXPECT_TRUE(tensors_equal(got[i].second, want[i].second)) << got[i].first;
  }
}

Unchanged::Unchanged(const torch::nn::Module& module) : module_(module), want_(copy_of(module)) {
  for (const auto& item : state_dict(module)) data_.push_back(item.second.data_ptr());
}

Unchanged::~Unchanged() {
  expect_state(module_, want_);
  size_t i = 0;
  for (const auto& item : state_dict(module_)) EXPECT_EQ(item.second.data_ptr(), data_[i++]);
}

}  // namespace gemma::testing
