#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <vector>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <gemma/image/resize.h>

// Pillow, src/libImaging/Resample.c: two passes, along rows and along columns, each with weights in
// 22-bit fixed point and rounded to 8 bits. Pillow holds all weights in memory; here they are made
// for one output pixel at a time, as of a long thin image they are more than its pixels.

namespace gemma {
namespace {

constexpr int64_t kChannels = 3;
constexpr int kPrecisionBits = 32 - 8 - 2;
constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);

// A bump around 0, which ends at -support and support.
struct Filter {
  double support;
  double (*height)(double x);
};

constexpr Filter kBilinear = {1.0, [](double x) { return std::max(1.0 - std::abs(x), 0.0); }};

// Of Keys' cubics the one with a = -0.5.
constexpr Filter kBicubic = {2.0, [](double x) {
                               constexpr double a = -0.5;
                               x = std::abs(x);
                               if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
                               if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
                               return 0.0;
                             }};

// Weights are at least 0.5 before they are rounded up, so that the sum of a triangle's at most
// doubles, and 255 * 2^23 + kHalf fits an int32, as does what a cubic exceeds 1 by; but a mean can
// exceed 255, and be below 0 where weights are.
uint8_t rounded(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

// A filter around the middle of each output pixel, in units of output pixels, or of input pixels
// where those are larger.
class Bumps {
 public:
  Bumps(const Filter& filter, int64_t in_size, int64_t out_size)
      : filter_(filter),
        in_size_(in_size),
        scale_(static_cast<double>(in_size) / static_cast<double>(out_size)),
        unit_(std::max(scale_, 1.0)),
        support_(filter.support * unit_) {}

  // The input pixels in [first, end) belong to output pixel `out`.
  int64_t first(int64_t out) const {
    return std::max<int64_t>(static_cast<int64_t>(middle(out) - support_ + 0.5), 0);
  }
  int64_t end(int64_t out) const {
    return std::min(static_cast<int64_t>(middle(out) + support_ + 0.5), in_size_);
  }

  // Those of the pixels in [first, end).
  void weights(int64_t out, std::vector<int32_t>& weights) const {
    weights.clear();
    const double sum = sum_of_heights(out);
    for (int64_t in = first(out); in < end(out); ++in) {
      const double share = height(out, in) / sum;
      const double half = share < 0 ? -0.5 : 0.5;
      weights.push_back(static_cast<int32_t>(half + share * (1 << kPrecisionBits)));
    }
  }

 private:
  double middle(int64_t out) const { return (static_cast<double>(out) + 0.5) * scale_; }
  // Pillow multiplies by the reciprocal, and adds whole numbers first.
  double height(int64_t out, int64_t in) const {
    return filter_.height((static_cast<double>(in) - middle(out) + 0.5) * (1.0 / unit_));
  }

  double sum_of_heights(int64_t out) const {
    double sum = 0;
    for (int64_t in = first(out); in < end(out); ++in) sum += height(out, in);
    return sum;
  }

  Filter filter_;
  int64_t in_size_;
  double scale_;
  double unit_;
  double support_;
};

// [height, in_width, 3] -> [height, width, 3].
at::Tensor resize_rows(const at::Tensor& pixels, int64_t width, const Filter& filter) {
  const int64_t height = pixels.size(0);
  const int64_t in_width = pixels.size(1);
  const Bumps bumps(filter, in_width, width);
  at::Tensor resized = at::empty({height, width, kChannels}, at::kByte);
  auto* const out = resized.mutable_data_ptr<uint8_t>();
  std::vector<int32_t> weights;
  for (int64_t x = 0; x < width; ++x) {
    bumps.weights(x, weights);
    const auto* in = pixels.const_data_ptr<uint8_t>() + bumps.first(x) * kChannels;
    for (int64_t y = 0; y < height; ++y, in += in_width * kChannels) {
      std::array<int32_t, kChannels> sums{kHalf, kHalf, kHalf};
      const uint8_t* pixel = in;
      for (const int32_t weight : weights) {
        for (size_t c = 0; c < sums.size(); ++c) sums[c] += pixel[c] * weight;
        pixel += kChannels;
      }
      std::ranges::transform(sums, out + (y * width + x) * kChannels, rounded);
    }
  }
  return resized;
}

// [in_height, width, 3] -> [height, width, 3].
at::Tensor resize_columns(const at::Tensor& pixels, int64_t height, const Filter& filter) {
  const int64_t row_size = pixels.size(1) * kChannels;
  const Bumps bumps(filter, pixels.size(0), height);
  at::Tensor resized = at::empty({height, pixels.size(1), kChannels}, at::kByte);
  auto* const out = resized.mutable_data_ptr<uint8_t>();
  std::vector<int32_t> weights;
  std::vector<int32_t> sums(static_cast<size_t>(row_size));
  for (int64_t y = 0; y < height; ++y) {
    bumps.weights(y, weights);
    std::ranges::fill(sums, kHalf);
    const auto* row = pixels.const_data_ptr<uint8_t>() + bumps.first(y) * row_size;
    for (const int32_t weight : weights) {
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += row[i] * weight;
      row += row_size;
    }
    std::ranges::transform(sums, out + y * row_size, rounded);
  }
  return resized;
}

Image resize(
    const Image& image, int64_t height, int64_t width, const Filter& filter, const char* who) {
  if (height < 1 || width < 1) {
    throw std::invalid_argument(
        fmt::format("{}: height {} and width {} must be at least 1 pixel", who, height, width));
  }
  // Pillow's rule for which pass leaves less to the other. Bits depend on it, and memory: between
  // the passes an image that is much longer than it is wide has to be short already.
  const int64_t lost_height = image.height() - height;
  const int64_t lost_width = image.width() - width;
  if (lost_height > 0 && lost_height > 2 * lost_width) {
    return Image(resize_rows(resize_columns(image.pixels(), height, filter), width, filter));
  }
  return Image(resize_columns(resize_rows(image.pixels(), width, filter), height, filter));
}

}  // namespace

Image resize_bilinear(const Image& image, int64_t height, int64_t width) {
  return resize(image, height, width, kBilinear, "resize_bilinear");
}

Image resize_bicubic(const Image& image, int64_t height, int64_t width) {
  return resize(image, height, width, kBicubic, "resize_bicubic");
}

}  // namespace gemma
