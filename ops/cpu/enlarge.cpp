// Bilinear enlarging of an image, with the bits of Pillow's: rows first, to 8 bits, then columns, in fixed point.
//
// A line of 3 interleaved channels becomes one line a channel: in the second step, the larger one, neighbours in memory
// share their weights, and the result is laid out as the network takes it.
#include <algorithm>
#include <cmath>

#include "../common.h"
#include "kernels.h"

namespace frdet::cpu {
namespace {

// Output i of a line of `out` pixels lies between input i0 and the next one. Pillow normalises the two weights in
// double precision and rounds each to a whole number of 2^-kWeightBits; they sum to 1 within two of these units, so
// that nothing leaves 0 ... 255.
std::vector<Blend> blends_of(int64_t in, int64_t out) {
  std::vector<Blend> blends(out);
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  for (int64_t i = 0; i < out; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(centre - 0.5), 0);
    const int64_t end = std::min<int64_t>(static_cast<int64_t>(centre + 1.5), in);
    double weight[2] = {0, 0}, sum = 0;
    for (int64_t t = 0; t < end - first; ++t)
      sum += weight[t] = std::max(1.0 - std::abs(static_cast<double>(first + t) - centre + 0.5), 0.0);
    const auto fixed = [&](double w) { return static_cast<int32_t>(0.5 + w / sum * (1 << kWeightBits)); };
    blends[i] = {static_cast<int32_t>(first), fixed(weight[0]), fixed(weight[1])};
  }
  return blends;
}

Tensor enlarge(const Tensor& image_in, int64_t height, int64_t width) {
  check(image_in.dim() == 3 && image_in.size(2) == 3, "enlarge: the image has the shape ", shape_of(image_in),
        ", expected (H, W, 3)");
  check(image_in.scalar_type() == ScalarType::Byte, "enlarge: the image is ", name_of(image_in.scalar_type()),
        ", expected uint8");
  const int64_t in_height = image_in.size(0), in_width = image_in.size(1);
  constexpr int64_t kLargest = int64_t(1) << 24;
  check(0 < in_height && in_height <= height && height < kLargest && 0 < in_width && in_width <= width &&
            width < kLargest,
        "enlarge: from ", shape_of(image_in), " to (", height, ", ", width, "), expected sides that do not shrink");
  const Tensor image = torch::stable::contiguous(image_in);
  const Tensor result = torch::stable::new_empty(image, {3, height, width});
  const std::vector<Blend> down = blends_of(in_height, height), across = blends_of(in_width, width);
  std::vector<uint8_t> line(3 * in_width + kLineEnd), pair(6 * width);
  kernels().enlarge.enlarge(data<uint8_t>(image), in_height, in_width, down.data(), across.data(), line.data(),
                            pair.data(), mutable_data<uint8_t>(result), height, width);
  return result;
}

}  // namespace
}  // namespace frdet::cpu

STABLE_TORCH_LIBRARY_IMPL(frdet, CPU, m) { m.impl("enlarge", TORCH_BOX(&frdet::cpu::enlarge)); }
