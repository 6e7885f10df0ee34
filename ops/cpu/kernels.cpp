// See kernels.h. FRDET_ISA names the instruction set that this compilation is for.
#include "kernels.h"

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace frdet::cpu {
namespace FRDET_ISA {
namespace {

#include "lanes.h"

// ---- IoU -----------------------------------------------------------------------------------------------------------

template <class T>
struct Box {
  T x1, y1, x2, y2, area;
};

template <class T>
struct BoxVec {
  Vec<T> x1, y1, x2, y2, area;
};

template <class T>
inline BoxVec<T> load_boxes(const BoxArrays<T>& boxes, int64_t at) {
  return {load(boxes.x1 + at), load(boxes.y1 + at), load(boxes.x2 + at), load(boxes.y2 + at), load(boxes.area + at)};
}

template <class T>
inline BoxVec<T> splat_box(const BoxArrays<T>& boxes, int64_t i) {
  return {splat(boxes.x1[i]), splat(boxes.y1[i]), splat(boxes.x2[i]), splat(boxes.y2[i]), splat(boxes.area[i])};
}

template <class T>
inline Vec<T> intersection(const BoxVec<T>& a, const BoxVec<T>& b) {
  const Vec<T> zero = {};
  const Vec<T> w = vmax(vmin(a.x2, b.x2) - vmax(a.x1, b.x1), zero);
  const Vec<T> h = vmax(vmin(a.y2, b.y2) - vmax(a.y1, b.y1), zero);
  return w * h;
}

// Bit i: the IoU of a and b in lane i is above the threshold. The division, which decides, is made only where a
// comparison without it, loosened by more than the rounding of both, leaves it open.
template <class T>
inline uint32_t iou_above(const BoxVec<T>& a, const BoxVec<T>& b, T threshold) {
  const Vec<T> inter = intersection(a, b);
  const Vec<T> total = a.area + b.area - inter;
  const T loose = threshold - (threshold < 0 ? -threshold : threshold) * T(1e-5);
  if (threshold > 0 && !above(inter, splat(loose) * total)) return 0;
  return above(inter / total, splat(threshold));
}

template <class T>
uint32_t group_above(const BoxArrays<T>& boxes, int64_t group, const BoxVec<T>& box, T threshold) {
  uint32_t bits = 0;
  for (int i = 0; i < kGroup; i += Lanes<T>::kCount)
    bits |= iou_above(load_boxes(boxes, group * kGroup + i), box, threshold) << i;
  return bits;
}

template <class T>
uint32_t above_one(BoxArrays<T> boxes, int64_t group, const T* box, T threshold) {
  const BoxVec<T> one = {splat(box[0]), splat(box[1]), splat(box[2]), splat(box[3]), splat(box[4])};
  return group_above(boxes, group, one, threshold);
}

// Bit i: box i of the group overlaps `bound`.
template <class T>
inline uint32_t overlapping(const BoxArrays<T>& boxes, int64_t group, const BoxVec<T>& bound) {
  uint32_t bits = 0;
  for (int i = 0; i < kGroup; i += Lanes<T>::kCount) {
    const int64_t at = group * kGroup + i;
    bits |= (above(bound.x2, load(boxes.x1 + at)) & above(load(boxes.x2 + at), bound.x1) &
             above(bound.y2, load(boxes.y1 + at)) & above(load(boxes.y2 + at), bound.y1))
            << i;
  }
  return bits;
}

// Borders of `count` boxes from `at`. A NaN, which overlaps nothing, moves none.
template <class T>
inline Box<T> border_of(const BoxArrays<T>& boxes, int64_t at, int64_t count) {
  constexpr T kInfinity = __builtin_huge_val();
  Box<T> border = {kInfinity, kInfinity, -kInfinity, -kInfinity, 0};
  for (int64_t i = at; i < at + count; ++i) {
    border.x1 = boxes.x1[i] < border.x1 ? boxes.x1[i] : border.x1;
    border.y1 = boxes.y1[i] < border.y1 ? boxes.y1[i] : border.y1;
    border.x2 = boxes.x2[i] > border.x2 ? boxes.x2[i] : border.x2;
    border.y2 = boxes.y2[i] > border.y2 ? boxes.y2[i] : border.y2;
  }
  return border;
}

template <class T>
void bound(BoxArrays<T> boxes, int64_t begin, int64_t end, BoxArrays<T> bounds) {
  for (int64_t g = begin; g < end; ++g) {
    const Box<T> border = border_of(boxes, g * kGroup, kGroup);
    bounds.x1[g] = border.x1, bounds.y1[g] = border.y1, bounds.x2[g] = border.x2, bounds.y2[g] = border.y2;
  }
}

template <class T>
void suppress(BoxArrays<T> boxes, BoxArrays<T> bounds, uint32_t* alive, int64_t begin, int64_t end, BoxArrays<T> kept,
              int64_t count, T threshold, bool prune) {
  for (int64_t g = begin; g < end; ++g) {
    if (!alive[g]) continue;
    const BoxVec<T> border = {splat(bounds.x1[g]), splat(bounds.y1[g]), splat(bounds.x2[g]), splat(bounds.y2[g]), {}};
    for (int64_t k = 0; k < count && alive[g]; k += kGroup) {
      uint32_t candidates = prune ? overlapping(kept, k / kGroup, border) : 0xffff;
      if (count - k < kGroup) candidates &= (1u << (count - k)) - 1;
      for (; candidates; candidates &= candidates - 1)
        alive[g] &= ~group_above(boxes, g, splat_box(kept, k + __builtin_ctz(candidates)), threshold);
    }
  }
}

// ---- matching ------------------------------------------------------------------------------------------------------

void match(BoxArrays<float> boxes, int64_t begin, int64_t end, BoxArrays<float> gts, int64_t count, float* iou,
           int32_t* index, float* gt_iou) {
  constexpr int kCount = Lanes<float>::kCount;
  typedef int32_t IntVec __attribute__((vector_size(kBytes)));
  for (int64_t at = begin * kGroup; at < end * kGroup; at += kCount) {
    const BoxVec<float> box = load_boxes(boxes, at);
    const Box<float> around = border_of(boxes, at, kCount);
    const BoxVec<float> border = {splat(around.x1), splat(around.y1), splat(around.x2), splat(around.y2), {}};
    Vec<float> best = {};
    IntVec best_index = {};
    for (int64_t k = 0; k < count; k += kGroup) {
      uint32_t candidates = overlapping(gts, k / kGroup, border);
      if (count - k < kGroup) candidates &= (1u << (count - k)) - 1;
      for (; candidates; candidates &= candidates - 1) {
        const int64_t j = k + __builtin_ctz(candidates);
        const BoxVec<float> gt = splat_box(gts, j);
        const Vec<float> inter = intersection(gt, box);
        const Vec<float> ratio = inter / (gt.area + box.area - inter);
        // 0 / 0 and a NaN or infinite box give NaN, which is no better than anything.
        const IntVec is_better = ratio > best;
        best = is_better ? ratio : best;
        best_index = is_better ? IntVec{} + static_cast<int32_t>(j) : best_index;
        if (!above(ratio, splat(gt_iou[j]))) continue;
        for (int i = 0; i < kCount; ++i) gt_iou[j] = ratio[i] > gt_iou[j] ? ratio[i] : gt_iou[j];
      }
    }
    store(iou + at, best);
    __builtin_memcpy(index + at, &best_index, sizeof(best_index));
  }
}

// ---- weighted sums -------------------------------------------------------------------------------------------------

// A block of channels stays in registers while the terms pass.
template <int kVecs, class T, class A>
inline void sum_block(A* out, const T* base, const int64_t* offset, const A* weight, int64_t terms, bool add) {
  constexpr int kCount = Lanes<A>::kCount;
  Vec<A> total[kVecs];
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) total[v] = add ? load(out + v * kCount) : Vec<A>{};
  for (int64_t t = 0; t < terms; ++t) {
    const T* from = base + offset[t];
    const Vec<A> w = splat(weight[t]);
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) total[v] = fused(w, load(from + v * kCount), total[v]);
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) store(out + v * kCount, total[v]);
}

template <class T, class A>
void weighted_sum(A* out, const T* base, const int64_t* offset, const A* weight, int64_t terms, int64_t n, bool add) {
  constexpr int kCount = Lanes<A>::kCount;
  int64_t c = 0;
  for (; c + 8 * kCount <= n; c += 8 * kCount) sum_block<8>(out + c, base + c, offset, weight, terms, add);
  for (; c + kCount <= n; c += kCount) sum_block<1>(out + c, base + c, offset, weight, terms, add);
  for (; c < n; ++c) {
    A total = add ? out[c] : A(0);
    for (int64_t t = 0; t < terms; ++t) total += weight[t] * to_acc(base[offset[t] + c]);
    out[c] = total;
  }
}

// ---- enlarging -----------------------------------------------------------------------------------------------------

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

// A line of 3 interleaved channels to one of out_width for each channel. Four bytes are read for a pixel of three.
void enlarge_line(const uint8_t* line, const Blend* across, uint8_t* out, int64_t out_width) {
  typedef uint8_t Bytes __attribute__((vector_size(4)));
  typedef int32_t Sums __attribute__((vector_size(16)));
  for (int64_t x = 0; x < out_width; ++x) {
    Bytes left, right;
    __builtin_memcpy(&left, line + 3 * across[x].i0, 4);
    __builtin_memcpy(&right, line + 3 * across[x].i0 + 3, 4);
    const Sums sum = across[x].w0 * __builtin_convertvector(left, Sums) +
                     across[x].w1 * __builtin_convertvector(right, Sums) + kHalf;
    for (int c = 0; c < 3; ++c) out[c * out_width + x] = static_cast<uint8_t>(sum[c] >> kWeightBits);
  }
}

void blend_lines(const uint8_t* __restrict upper, const uint8_t* __restrict lower, Blend blend, uint8_t* __restrict out,
                 int64_t width) {
  for (int64_t x = 0; x < width; ++x)
    out[x] = static_cast<uint8_t>((blend.w0 * upper[x] + blend.w1 * lower[x] + kHalf) >> kWeightBits);
}

void enlarge(const uint8_t* image, int64_t height, int64_t width, const Blend* down, const Blend* across, uint8_t* line,
             uint8_t* pair, uint8_t* out, int64_t out_height, int64_t out_width) {
  int64_t done = 0;  // lines
  for (int64_t y = 0; y < out_height; ++y) {
    const int64_t i0 = down[y].i0, i1 = i0 + 1 < height ? i0 + 1 : i0;
    for (; done <= i1; ++done) {
      __builtin_memcpy(line, image + done * 3 * width, 3 * width);
      enlarge_line(line, across, pair + (done & 1) * 3 * out_width, out_width);
    }
    for (int64_t c = 0; c < 3; ++c)
      blend_lines(pair + ((i0 & 1) * 3 + c) * out_width, pair + ((i1 & 1) * 3 + c) * out_width, down[y],
                  out + (c * out_height + y) * out_width, out_width);
  }
}

}  // namespace

extern const Kernels table;
const Kernels table = {
    FRDET_ISA_NAME,
    {bound<float>, above_one<float>, suppress<float>},
    {bound<double>, above_one<double>, suppress<double>},
    {match},
    weighted_sum<float, float>,
    weighted_sum<double, double>,
    weighted_sum<Bf16, float>,
    weighted_sum<Fp16, float>,
    {enlarge},
};

}  // namespace FRDET_ISA
}  // namespace frdet::cpu
