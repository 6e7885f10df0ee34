// Greedy NMS on the CPU.
//
// Boxes are sorted by score, then laid out in groups of 16 neighbours in the image. Blocks of the best undecided boxes
// are decided one after the other; what a block keeps then suppresses the rest, group by group. A group whose borders a
// kept box does not overlap is skipped. A box's fate depends on the kept boxes before it alone, never on the number of
// threads. Threads share the classes of batched_nms, or the groups of very many boxes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>

#include "../checks.h"
#include "kernels.h"

namespace frdet::cpu {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kBlock = 128;     // boxes decided at a time
constexpr int64_t kUnsorted = 512;  // up to this many boxes, laying out neighbours together costs more than it saves
// Boxes worth a thread of their own: waking one takes microseconds on an idle machine, and milliseconds on a busy one.
constexpr int64_t kBoxesPerThread = 32768;

template <class T>
const BoxKernels<T>& box_kernels() {
  if constexpr (std::is_same_v<T, double>)
    return kernels().box64;
  else
    return kernels().box32;
}

// Room for `count` boxes, the last group filled up with boxes that overlap nothing.
template <class T>
class BoxStore {
 public:
  explicit BoxStore(int64_t count)
      : padded_((count + kGroup - 1) / kGroup * kGroup), values_(std::make_unique<T[]>(5 * padded_)) {
    T* at = values_.get();
    arrays_ = {at, at + padded_, at + 2 * padded_, at + 3 * padded_, at + 4 * padded_};
    for (int64_t i = std::max<int64_t>(padded_ - kGroup, 0); i < padded_; ++i) {
      constexpr T kInfinity = std::numeric_limits<T>::infinity();
      put(i, {kInfinity, kInfinity, -kInfinity, -kInfinity, T(0)});
    }
  }
  void put(int64_t i, const Box<T>& box) {
    arrays_.x1[i] = box.x1, arrays_.y1[i] = box.y1, arrays_.x2[i] = box.x2, arrays_.y2[i] = box.y2;
    arrays_.area[i] = box.area;
  }
  Box<T> get(int64_t i) const { return {arrays_.x1[i], arrays_.y1[i], arrays_.x2[i], arrays_.y2[i], arrays_.area[i]}; }
  const BoxArrays<T>& arrays() const { return arrays_; }
  int64_t groups() const { return padded_ / kGroup; }

 private:
  int64_t padded_;
  std::unique_ptr<T[]> values_;
  BoxArrays<T> arrays_;
};

template <class T>
Box<T> read_box(const T* boxes, int64_t i) {
  return make_box(boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]);
}

// The bits of a number from 0 to 1023, each followed by a zero.
uint32_t spread(uint32_t x) {
  x = (x | (x << 8)) & 0x00ff00ff;
  x = (x | (x << 4)) & 0x0f0f0f0f;
  x = (x | (x << 2)) & 0x33333333;
  return (x | (x << 1)) & 0x55555555;
}

// The ranks 0 ... count - 1 in an order that puts neighbours in the image together (along a Z-order curve of box
// centres).
template <class T>
std::vector<int32_t> lay_out(const T* boxes, const int32_t* order, int64_t count) {
  std::vector<int32_t> layout(count);
  std::iota(layout.begin(), layout.end(), 0);
  if (count <= kUnsorted) return layout;
  std::vector<float> x(count), y(count);
  float x_min = INFINITY, x_max = -INFINITY, y_min = INFINITY, y_max = -INFINITY;
  for (int64_t i = 0; i < count; ++i) {
    const T* box = boxes + 4 * int64_t(order[i]);
    x[i] = float(box[0]) + float(box[2]), y[i] = float(box[1]) + float(box[3]);
    if (!std::isfinite(x[i]) || !std::isfinite(y[i])) x[i] = y[i] = NAN;
    x_min = std::fmin(x_min, x[i]), x_max = std::fmax(x_max, x[i]);
    y_min = std::fmin(y_min, y[i]), y_max = std::fmax(y_max, y[i]);
  }
  const auto cell = [](float at, float low, float high) {
    const float part = (at - low) / (high - low);
    return part > 0 ? static_cast<uint32_t>(std::min(part, 1.0f) * 1023) : 0;
  };
  std::vector<uint64_t> keys(count);
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t code = spread(cell(x[i], x_min, x_max)) | (spread(cell(y[i], y_min, y_max)) << 1);
    keys[i] = (code << 32) | static_cast<uint64_t>(i);
  }
  std::sort(keys.begin(), keys.end());
  for (int64_t i = 0; i < count; ++i) layout[i] = static_cast<int32_t>(keys[i]);
  return layout;
}

// Decides `count` boxes given best first by `order`: keep[i] for order[i].
template <class T>
void nms_one(const T* boxes, const int32_t* order, int64_t count, T threshold, uint8_t* keep) {
  const BoxKernels<T>& kernel = box_kernels<T>();
  const std::vector<int32_t> layout = lay_out(boxes, order, count);
  BoxStore<T> store(count);
  std::vector<int32_t> place(count);
  for (int64_t i = 0; i < count; ++i) {
    place[layout[i]] = static_cast<int32_t>(i);
    store.put(i, read_box(boxes, order[layout[i]]));
  }
  const int64_t groups = store.groups();
  BoxStore<T> bounds(groups);
  kernel.bound(store.arrays(), 0, groups, bounds.arrays());
  std::vector<uint32_t> alive(groups, 0xffff);
  if (count % kGroup) alive.back() = (1u << (count % kGroup)) - 1;

  for (int64_t block = 0; block < count; block += kBlock) {
    const int64_t block_end = std::min(block + kBlock, count);
    BoxStore<T> kept(kBlock);
    int64_t kept_count = 0;
    for (int64_t rank = block; rank < block_end; ++rank) {
      const int32_t at = place[rank];
      const uint32_t bit = 1u << (at % kGroup);
      bool is_kept = alive[at / kGroup] & bit;
      alive[at / kGroup] &= ~bit;
      const Box<T> box = store.get(at);
      for (int64_t k = 0; k < kept_count && is_kept; k += kGroup) {
        const uint32_t used = kept_count - k < kGroup ? (1u << (kept_count - k)) - 1 : 0xffff;
        is_kept = !(kernel.above(kept.arrays(), k / kGroup, &box.x1, threshold) & used);
      }
      keep[rank] = is_kept;
      if (is_kept) kept.put(kept_count++, box);
    }
    if (block_end == count || kept_count == 0) continue;
    parallel_for(0, groups, kBoxesPerThread / kGroup, [&](int64_t begin, int64_t end) {
      kernel.suppress(store.arrays(), bounds.arrays(), alive.data(), begin, end, kept.arrays(), kept_count, threshold,
                      threshold >= T(0));
    });
  }
}

// Indices from the best score to the worst; equal scores in input order, NaN before every number, as torch.sort has it.
template <class T>
std::vector<int32_t> sort_by_score(const T* scores, int64_t count) {
  std::vector<int32_t> order(count);
  if constexpr (std::is_same_v<T, float>) {
    std::vector<uint64_t> keys(count);
    for (int64_t i = 0; i < count; ++i) {
      const float score = scores[i] == 0 ? 0.0f : scores[i];  // -0 is equal to 0
      uint32_t bits;
      std::memcpy(&bits, &score, sizeof(bits));
      bits = bits >> 31 ? bits : ~bits & 0x7fffffff;  // ascends as the score descends
      if (std::isnan(score)) bits = 0;
      keys[i] = (uint64_t(bits) << 32) | static_cast<uint64_t>(i);
    }
    std::sort(keys.begin(), keys.end());
    for (int64_t i = 0; i < count; ++i) order[i] = static_cast<int32_t>(keys[i]);
  } else {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return scores[a] > scores[b] || (std::isnan(scores[a]) && !std::isnan(scores[b]));
    });
  }
  return order;
}

// The largest T that is not above the threshold: a T is above this one exactly if it is above the threshold itself.
template <class T>
T round_down(double threshold) {
  const T rounded = static_cast<T>(threshold);
  return rounded > threshold ? std::nextafter(rounded, -std::numeric_limits<T>::infinity()) : rounded;
}

// order: indices best first. keep[i]: whether order[i] is kept, among boxes of the same idxs (nullptr: all the same).
struct Decision {
  std::vector<int32_t> order;
  std::vector<uint8_t> keep;
};

template <class T>
Decision decide(const Tensor& boxes_in, const Tensor& scores_in, const Tensor* idxs_in, double iou_threshold,
                bool drop_lowest) {
  const ScalarType type = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;
  const Tensor boxes = torch::stable::contiguous(as_type(boxes_in, type));
  const Tensor scores = torch::stable::contiguous(as_type(scores_in, type));
  const T* box = data<T>(boxes);
  const T* score = data<T>(scores);
  const T threshold = round_down<T>(iou_threshold);

  std::vector<int32_t> order = sort_by_score(score, boxes.size(0));
  if (drop_lowest) {
    // -inf sorts last.
    while (!order.empty() && score[order.back()] == -std::numeric_limits<T>::infinity()) order.pop_back();
  }
  const int64_t count = static_cast<int64_t>(order.size());
  std::vector<uint8_t> keep(count);
  if (!idxs_in) {
    nms_one(box, order.data(), count, threshold, keep.data());
    return {std::move(order), std::move(keep)};
  }

  const Tensor idxs = torch::stable::contiguous(*idxs_in);
  const int64_t* idx = data<int64_t>(idxs);
  std::vector<std::pair<int64_t, int32_t>> grouped(count);
  for (int64_t i = 0; i < count; ++i) grouped[i] = {idx[order[i]], static_cast<int32_t>(i)};
  std::sort(grouped.begin(), grouped.end());
  std::vector<int64_t> starts;
  std::vector<int32_t> members(count);
  for (int64_t i = 0; i < count; ++i) {
    if (i == 0 || grouped[i].first != grouped[i - 1].first) starts.push_back(i);
    members[i] = order[grouped[i].second];
  }
  starts.push_back(count);
  std::vector<uint8_t> kept(count);
  // One group is cut into parallel pieces inside nms_one; several are themselves the pieces.
  const int64_t groups = static_cast<int64_t>(starts.size()) - 1;
  const int64_t grain = std::max<int64_t>(1, groups * kBoxesPerThread / std::max<int64_t>(count, 1));
  parallel_for(0, groups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g)
      nms_one(box, &members[starts[g]], starts[g + 1] - starts[g], threshold, &kept[starts[g]]);
  });
  for (int64_t i = 0; i < count; ++i) keep[grouped[i].second] = kept[i];
  return {std::move(order), std::move(keep)};
}

Decision decide(const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold,
                bool drop_lowest = false) {
  check_nms(op, boxes, scores, idxs);
  if (boxes.size(0) == 0) return {};
  if (boxes.scalar_type() == ScalarType::Double) return decide<double>(boxes, scores, idxs, iou_threshold, drop_lowest);
  return decide<float>(boxes, scores, idxs, iou_threshold, drop_lowest);
}

Tensor kept_indices(const Tensor& boxes, const Decision& decision) {
  const int64_t kept = std::accumulate(decision.keep.begin(), decision.keep.end(), int64_t(0));
  const Tensor result = torch::stable::new_empty(boxes, {kept}, ScalarType::Long);
  int64_t* out = mutable_data<int64_t>(result);
  for (size_t i = 0; i < decision.order.size(); ++i)
    if (decision.keep[i]) *out++ = decision.order[i];
  return result;
}

Tensor nms(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  return kept_indices(boxes, decide("nms", boxes, scores, nullptr, iou_threshold));
}

Tensor batched_nms(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  return kept_indices(boxes, decide("batched_nms", boxes, scores, &idxs, iou_threshold));
}

Tensor batched_nms_mask(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  const Decision decision = decide("batched_nms_mask", boxes, scores, &idxs, iou_threshold, true);
  const Tensor result = torch::stable::new_zeros(boxes, {boxes.size(0)}, ScalarType::Bool);
  bool* out = mutable_data<bool>(result);
  for (size_t i = 0; i < decision.order.size(); ++i) out[decision.order[i]] = decision.keep[i];
  return result;
}

}  // namespace
}  // namespace frdet::cpu

STABLE_TORCH_LIBRARY_IMPL(frdet, CPU, m) {
  m.impl("nms", TORCH_BOX(&frdet::cpu::nms));
  m.impl("batched_nms", TORCH_BOX(&frdet::cpu::batched_nms));
  m.impl("batched_nms_mask", TORCH_BOX(&frdet::cpu::batched_nms_mask));
}
