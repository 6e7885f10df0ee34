// The vector kernels of the CPU operators. kernels.cpp is compiled once for each instruction set; `kernels()` picks the
// best that the processor runs. Everything here takes plain pointers, so that no library template is compiled with
// instructions that an older processor lacks and then shared with code that runs there.
#pragma once

#include <cstdint>

namespace frdet::cpu {

// Number of boxes in a group, for any width of the vectors.
constexpr int64_t kGroup = 16;

// Boxes as one array a coordinate, padded to whole groups with boxes that overlap nothing.
template <class T>
struct BoxArrays {
  T *x1, *y1, *x2, *y2, *area;
};

template <class T>
struct BoxKernels {
  // Borders of each of the groups [begin, end).
  void (*bound)(BoxArrays<T> boxes, int64_t begin, int64_t end, BoxArrays<T> bounds);
  // Bit i: box i of group `group` has an IoU above `threshold` with (x1, y1, x2, y2, area).
  uint32_t (*above)(BoxArrays<T> boxes, int64_t group, const T* box, T threshold);
  // Clears, in alive[g] of the groups [begin, end), the boxes whose IoU with one of `count` kept boxes is above
  // `threshold`. `prune` skips a group whose borders a kept box does not overlap, which is correct for thresholds of
  // at least 0.
  void (*suppress)(BoxArrays<T> boxes, BoxArrays<T> bounds, uint32_t* alive, int64_t begin, int64_t end,
                   BoxArrays<T> kept, int64_t count, T threshold, bool prune);
};

struct MatchKernel {
  // Matches the boxes of the groups [begin, end) with `count` ground truths in groups of their own. Writes the best IoU
  // and its ground truth for each box, and into gt_iou (count) the best IoU of each ground truth with these boxes.
  void (*match)(BoxArrays<float> boxes, int64_t begin, int64_t end, BoxArrays<float> gts, int64_t count, float* iou,
                int32_t* index, float* gt_iou);
};

// out[c] = sum over t of weight[t] * base[offset[t] + c], for 0 <= c < n; added to out where `add`.
template <class T, class A>
using WeightedSum = void (*)(A* out, const T* base, const int64_t* offset, const A* weight, int64_t terms, int64_t n,
                             bool add);

// 16-bit floats are told apart by these types alone, so that this header needs none of torch's.
struct Bf16 {
  uint16_t bits;
};
struct Fp16 {
  uint16_t bits;
};

// A pixel of an enlarged line: w0 * line[i0] + w1 * line[i0 + 1], in units of 2^-kWeightBits.
constexpr int kWeightBits = 22;
struct Blend {
  int32_t i0, w0, w1;
};
constexpr int kLineEnd = 4;  // bytes after a line that may be read; their weight is 0

struct EnlargeKernel {
  // An image (height, width, 3) to three planes (3, out_height, out_width). `line` is memory for 3 * width + kLineEnd
  // bytes, `pair` for 6 * out_width: the two enlarged lines that the rows of the result lie between.
  void (*enlarge)(const uint8_t* image, int64_t height, int64_t width, const Blend* down, const Blend* across,
                  uint8_t* line, uint8_t* pair, uint8_t* out, int64_t out_height, int64_t out_width);
};

struct Kernels {
  const char* name;
  BoxKernels<float> box32;
  BoxKernels<double> box64;
  MatchKernel match;
  WeightedSum<float, float> sum32;
  WeightedSum<double, double> sum64;
  WeightedSum<Bf16, float> sum_bf16;
  WeightedSum<Fp16, float> sum_fp16;
  EnlargeKernel enlarge;
};

const Kernels& kernels();

}  // namespace frdet::cpu
