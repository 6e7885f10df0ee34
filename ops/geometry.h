// Arithmetic that the CPU and the CUDA kernels share, forward and backward: IoU, where a RoI's samples lie, which level
// it is pooled from. Written so that every step is one rounded operation: the compiler must not fuse a multiplication
// and an addition here (-ffp-contract=off, --fmad=false), or results at the IoU threshold would depend on the machine.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define FRDET_HD __host__ __device__ __forceinline__
#else
#define FRDET_HD inline
#endif

namespace frdet {

template <class T>
FRDET_HD T min2(T a, T b) {
  return b < a ? b : a;
}

template <class T>
FRDET_HD T max2(T a, T b) {
  return a < b ? b : a;
}

template <class T>
struct Box {
  T x1, y1, x2, y2, area;
};

template <class T>
FRDET_HD Box<T> make_box(T x1, T y1, T x2, T y2) {
  return {x1, y1, x2, y2, (x2 - x1) * (y2 - y1)};
}

template <class T>
FRDET_HD T intersection(const Box<T>& a, const Box<T>& b) {
  const T w = min2(a.x2, b.x2) - max2(a.x1, b.x1);
  const T h = min2(a.y2, b.y2) - max2(a.y1, b.y1);
  return max2(w, T(0)) * max2(h, T(0));
}

// NaN if an area is NaN, or if both boxes are empty. NaN is never above a threshold.
template <class T>
FRDET_HD T iou(const Box<T>& a, const Box<T>& b) {
  const T inter = intersection(a, b);
  return inter / (a.area + b.area - inter);
}

// One axis of a RoI on a feature map. Bin b holds the samples start + b * bin + (i + 0.5) * bin / grid, 0 <= i < grid.
// The number of samples is a floating-point number because a huge RoI has more of them than an integer can count.
template <class T>
struct RoiAxis {
  T start, bin, grid;
};

// `low` and `high` are the RoI's borders in image pixels. A border that is not finite gives no samples, hence zeros.
template <class T>
FRDET_HD RoiAxis<T> make_axis(T low, T high, T scale, int64_t bins, int64_t sampling_ratio, bool aligned) {
  const T offset = aligned ? T(0.5) : T(0);
  const T start = low * scale - offset;
  T size = high * scale - offset - start;
  if (!aligned) size = max2(size, T(1));
  const T bin = size / T(bins);
  T grid = sampling_ratio > 0 ? T(sampling_ratio) : std::ceil(bin);
  if (!(std::isfinite(start) && std::isfinite(size)) || !(grid > T(0))) grid = T(0);
  return {start, bin, grid};
}

template <class T>
FRDET_HD T bin_start(const RoiAxis<T>& axis, int64_t b) {
  return axis.start + T(b) * axis.bin;
}

// Numbers [first, last] of the samples of bin b that may lie on the map of `size` pixels; others are skipped. Even a
// huge RoI has only about 2 * size samples there.
struct SampleRange {
  int64_t first, last;
};

template <class T>
FRDET_HD SampleRange samples_on_map(const RoiAxis<T>& axis, int64_t b, int64_t size) {
  if (axis.grid <= T(8)) return {0, static_cast<int64_t>(axis.grid) - 1};
  const double base = bin_start(axis, b), step = double(axis.bin) / double(axis.grid);
  double first = (-1.0 - base) / step, last = (double(size) - base) / step;
  if (step < 0) {
    const double swapped = first;
    first = last;
    last = swapped;
  }
  first = max2(std::floor(first) - 2.0, 0.0);
  last = min2(std::ceil(last) + 2.0, double(axis.grid) - 1.0);
  if (!(first <= last)) return {0, -1};
  return {static_cast<int64_t>(first), static_cast<int64_t>(last)};
}

template <class T>
struct Sample {
  int64_t low, high;      // the two pixels beside it
  T low_part, high_part;  // and their weights; both 0 where the sample is off the map
};

// A sample up to one pixel off the map has the value of the border; farther off it counts as 0.
template <class T>
FRDET_HD Sample<T> sample_at(const RoiAxis<T>& axis, int64_t b, int64_t i, int64_t size) {
  T at = bin_start(axis, b) + (T(i) + T(0.5)) * axis.bin / axis.grid;
  if (!(at >= T(-1) && at <= T(size))) return {0, 0, T(0), T(0)};
  at = max2(at, T(0));
  const int64_t low = static_cast<int64_t>(at);
  if (low >= size - 1) return {size - 1, size - 1, T(1), T(0)};
  const T high_part = at - T(low);
  return {low, low + 1, T(1) - high_part, high_part};
}

// The level rule of FPN, equation 1, with the two small numbers that its implementations add; clamped to [0, levels -
// 1]. The logarithm is taken in double precision: correctly rounded, so CPU and CUDA agree on a RoI at a border.
struct LevelRule {
  float canonical_size, canonical_level, eps_inside, eps_outside;
  int64_t min_level, levels;
};

template <class T>
FRDET_HD int64_t choose_level(const LevelRule& rule, T x1, T y1, T x2, T y2) {
  if (rule.levels == 1) return 0;
  const T side = std::sqrt(max2((x2 - x1) * (y2 - y1), T(0)));
  const T ratio = side / T(rule.canonical_size) + T(rule.eps_inside);
  T level = static_cast<T>(std::log2(static_cast<double>(ratio)));
  level = std::floor(level + T(rule.canonical_level) + T(rule.eps_outside)) - T(rule.min_level);
  if (!(level > T(0))) return 0;
  return level < T(rule.levels - 1) ? static_cast<int64_t>(level) : rule.levels - 1;
}

}  // namespace frdet
