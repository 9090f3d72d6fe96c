#include <string_view>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/errors.h>
#include <gemma/models/sparse_autoencoder.h>

namespace gemma {
namespace {

// Under the first of its names that the file has, in float32.
at::Tensor read_floats(const Checkpoint& file,
                       std::initializer_list<std::string_view> names,
                       int64_t dim) {
  for (const auto name : names) {
    const auto* const entry = file.find(name);
    if (entry == nullptr) continue;
    if (std::ssize(entry->sizes) == dim && at::isFloatingType(entry->dtype)) {
      return file.tensor(name).to(at::kFloat);
    }
    refuse_file(file.path(), fmt::format("tensor '{}' must have {} dimensions, of floats; is this "
                                         "an autoencoder of one layer?",
                                         name, dim));
  }
  refuse_file(file.path(), fmt::format("has no tensor '{}'; give the params of a Gemma Scope",
                                       fmt::join(names, "' or '")));
}

void check_sizes(const Checkpoint& file,
                 std::string_view name,
                 const at::Tensor& tensor,
                 at::IntArrayRef want) {
  if (tensor.sizes() == want) return;
  refuse_file(file.path(), fmt::format("tensor '{}' is [{}], but must be [{}], by w_enc", name,
                                       fmt::join(tensor.sizes(), ", "), fmt::join(want, ", ")));
}

}  // namespace

SparseAutoencoder::SparseAutoencoder(const Checkpoint& file)
    : w_enc_(read_floats(file, {"w_enc", "W_enc"}, 2)),
      b_enc_(read_floats(file, {"b_enc"}, 1)),
      threshold_(read_floats(file, {"threshold"}, 1)),
      w_dec_(read_floats(file, {"w_dec", "W_dec"}, 2)),
      b_dec_(read_floats(file, {"b_dec"}, 1)) {
  constexpr std::string_view kSkip = "affine_skip_connection";
  check_sizes(file, "b_enc", b_enc_, {num_features()});
  check_sizes(file, "threshold", threshold_, {num_features()});
  check_sizes(file, "w_dec", w_dec_, {num_features(), width()});
  check_sizes(file, "b_dec", b_dec_, {width()});
  if (!file.contains(kSkip)) return;
  skip_ = read_floats(file, {kSkip}, 2);
  check_sizes(file, kSkip, *skip_, {width(), width()});
}

at::Tensor SparseAutoencoder::encode(const at::Tensor& x) const {
  const auto sums = at::addmm(b_enc_, x.to(at::kFloat), w_enc_);
  return sums.relu() * (sums > threshold_);
}

at::Tensor SparseAutoencoder::decode(const at::Tensor& features, const at::Tensor& x) const {
  const auto told = at::addmm(b_dec_, features, w_dec_);
  return skip_ ? told + x.to(at::kFloat).matmul(*skip_) : told;
}

double explained_variance(const at::Tensor& values, const at::Tensor& told) {
  const auto exact = values.to(at::kDouble);
  const auto variance = (exact - exact.mean(0)).square().sum();
  return (1 - (exact - told).square().sum() / variance).item<double>();
}

}  // namespace gemma
