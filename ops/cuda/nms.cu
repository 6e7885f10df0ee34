// Greedy NMS on CUDA: boxes are sorted by (group, score), then one block of threads decides each group, 64 boxes at a
// time. One launch serves all groups, there is no copy to the host in between, and the extra memory is a few numbers a
// box, not a bit for each pair. Within 64 boxes all pairs are compared at once and one warp walks the result; what is
// kept then suppresses the group's remaining boxes, one a thread. Nothing depends on the order in which threads run.
#include <array>
#include <limits>

#include "../checks.h"
#include "launch.cuh"

namespace frdet::cuda {
namespace {

constexpr int kTile = 64;
constexpr int kThreadsOneGroup = 1024;
constexpr int kThreadsManyGroups = 256;

template <class A>
__device__ Box<A> read_box(const A* boxes, int64_t i) {
  return make_box(boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]);
}

// Boxes in the order of `order`, in the type of the arithmetic. All are kept at first, except boxes of score -inf if
// `drop_lowest`.
template <class T>
__global__ void gather(const T* boxes, const T* scores, const int64_t* order, int64_t count, bool drop_lowest,
                       Acc<T>* sorted, bool* keep) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t from = order[i];
  for (int c = 0; c < 4; ++c) sorted[4 * i + c] = static_cast<Acc<T>>(boxes[4 * from + c]);
  keep[i] = !(drop_lowest && static_cast<Acc<T>>(scores[from]) == -Acc<T>(INFINITY));
}

// The first position after `begin` that belongs to another group.
__device__ int64_t group_end(const int64_t* groups, int64_t begin, int64_t count) {
  const int64_t group = groups[begin];
  int64_t low = begin + 1, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (groups[middle] == group)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// Block b decides the group that begins at position b, if one does. `groups` is null where all boxes are one group.
template <class A>
__global__ void decide(const A* boxes, const int64_t* groups, int64_t count, A threshold, bool* keep) {
  const int64_t begin = blockIdx.x;
  if (groups && begin > 0 && groups[begin] == groups[begin - 1]) return;
  const int64_t end = groups ? group_end(groups, begin, count) : count;

  __shared__ Box<A> tile[kTile];
  __shared__ unsigned long long suppressed_by[kTile];  // bit j of [i]: i, if kept, suppresses j > i
  __shared__ unsigned long long kept_bits;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;

  for (int64_t first = begin; first < end; first += kTile) {
    const int n = static_cast<int>(min2<int64_t>(kTile, end - first));
    if (threadIdx.x < n) tile[threadIdx.x] = read_box(boxes, first + threadIdx.x);
    __syncthreads();
    for (int i = warp; i < n; i += warps) {
      const bool low = lane > i && lane < n && iou(tile[i], tile[lane]) > threshold;
      const bool high = lane + 32 > i && lane + 32 < n && iou(tile[i], tile[lane + 32]) > threshold;
      const unsigned long long low_bits = __ballot_sync(~0u, low), high_bits = __ballot_sync(~0u, high);
      if (lane == 0) suppressed_by[i] = low_bits | (high_bits << 32);
    }
    __syncthreads();
    if (warp == 0) {
      const bool low = lane < n && keep[first + lane], high = lane + 32 < n && keep[first + lane + 32];
      const unsigned long long low_bits = __ballot_sync(~0u, low), high_bits = __ballot_sync(~0u, high);
      unsigned long long left = low_bits | (high_bits << 32), kept = 0;
      while (left) {
        const int i = __ffsll(static_cast<long long>(left)) - 1;
        kept |= 1ull << i;
        left &= ~(1ull << i) & ~suppressed_by[i];
      }
      if (lane < n) keep[first + lane] = (kept >> lane) & 1;
      if (lane + 32 < n) keep[first + lane + 32] = (kept >> (lane + 32)) & 1;
      if (lane == 0) kept_bits = kept;
    }
    __syncthreads();
    for (int64_t j = first + kTile + threadIdx.x; j < end; j += blockDim.x) {
      if (!keep[j]) continue;
      const Box<A> box = read_box(boxes, j);
      for (unsigned long long left = kept_bits; left; left &= left - 1) {
        if (!(iou(tile[__ffsll(static_cast<long long>(left)) - 1], box) > threshold)) continue;
        keep[j] = false;
        break;
      }
    }
    __syncthreads();
  }
}

// to[index[i]] = from[i]
__global__ void scatter(const bool* from, const int64_t* index, int64_t count, bool* to) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) to[index[i]] = from[i];
}

Tensor stable_argsort(const Tensor& keys, bool descending) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(keys), torch::stable::detail::from(std::optional(true)),
                                    torch::stable::detail::from(int64_t(0)), torch::stable::detail::from(descending)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);  // the sorted keys; taken, so that they are freed
  return torch::stable::detail::to<Tensor>(stack[1]);
}

Tensor masked_select(const Tensor& values, const Tensor& mask) {
  std::array<StableIValue, 2> stack{torch::stable::detail::from(values), torch::stable::detail::from(mask)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::masked_select", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// The largest T that is not above the threshold.
template <class T>
T round_down(double threshold) {
  const T rounded = static_cast<T>(threshold);
  return rounded > threshold ? std::nextafter(rounded, -std::numeric_limits<T>::infinity()) : rounded;
}

// by_score: indices best first. The decisions `keep` are in the order of (group, score): `rank` is their position in
// by_score, `order` their position in the input.
struct Decision {
  Tensor by_score, rank, order, keep;
};

Decision decide(const char* op, const Tensor& boxes_in, const Tensor& scores_in, const Tensor* idxs, double threshold,
                bool drop_lowest) {
  const OnDeviceOf on(boxes_in);
  const Tensor boxes = torch::stable::contiguous(boxes_in), scores = torch::stable::contiguous(scores_in);
  const int64_t count = boxes.size(0);
  Decision result;
  result.by_score = stable_argsort(scores, true);
  Tensor groups;
  if (idxs) {
    const Tensor shuffled = torch::stable::index_select(*idxs, 0, result.by_score);
    result.rank = stable_argsort(shuffled, false);
    groups = torch::stable::index_select(shuffled, 0, result.rank);
    result.order = torch::stable::index_select(result.by_score, 0, result.rank);
  } else {
    result.order = result.by_score;
  }
  result.keep = torch::stable::new_empty(boxes, {count}, ScalarType::Bool);
  const Tensor sorted = torch::stable::new_empty(boxes, {count, 4}, acc_type(boxes.scalar_type()));
  dispatch(op, boxes.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Acc<T>;
    bool* keep = mutable_data<bool>(result.keep);
    gather<T><<<blocks_for(count, 256), 256, 0, on.stream()>>>(data<T>(boxes), data<T>(scores),
                                                               data<int64_t>(result.order), count, drop_lowest,
                                                               mutable_data<A>(sorted), keep);
    FRDET_CHECK_LAUNCH();
    const A limit = round_down<A>(threshold);
    if (idxs)
      decide<A><<<static_cast<unsigned>(count), kThreadsManyGroups, 0, on.stream()>>>(
          data<A>(sorted), data<int64_t>(groups), count, limit, keep);
    else
      decide<A><<<1, kThreadsOneGroup, 0, on.stream()>>>(data<A>(sorted), nullptr, count, limit, keep);
    FRDET_CHECK_LAUNCH();
  });
  return result;
}

Tensor place(const Tensor& keep, const Tensor& index) {
  const OnDeviceOf on(keep);
  const int64_t count = keep.size(0);
  const Tensor result = torch::stable::new_empty(keep, {count});
  scatter<<<blocks_for(count, 256), 256, 0, on.stream()>>>(data<bool>(keep), data<int64_t>(index), count,
                                                           mutable_data<bool>(result));
  FRDET_CHECK_LAUNCH();
  return result;
}

Tensor nms(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  check_nms("nms", boxes, scores, nullptr);
  if (boxes.size(0) == 0) return torch::stable::new_empty(boxes, {0}, ScalarType::Long);
  const Decision decision = decide("nms", boxes, scores, nullptr, iou_threshold, false);
  return masked_select(decision.by_score, decision.keep);
}

Tensor batched_nms(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  check_nms("batched_nms", boxes, scores, &idxs);
  if (boxes.size(0) == 0) return torch::stable::new_empty(boxes, {0}, ScalarType::Long);
  const Decision decision = decide("batched_nms", boxes, scores, &idxs, iou_threshold, false);
  return masked_select(decision.by_score, place(decision.keep, decision.rank));
}

Tensor batched_nms_mask(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  check_nms("batched_nms_mask", boxes, scores, &idxs);
  if (boxes.size(0) == 0) return torch::stable::new_empty(boxes, {0}, ScalarType::Bool);
  const Decision decision = decide("batched_nms_mask", boxes, scores, &idxs, iou_threshold, true);
  return place(decision.keep, decision.order);
}

}  // namespace
}  // namespace frdet::cuda

STABLE_TORCH_LIBRARY_IMPL(frdet, CUDA, m) {
  m.impl("nms", TORCH_BOX(&frdet::cuda::nms));
  m.impl("batched_nms", TORCH_BOX(&frdet::cuda::batched_nms));
  m.impl("batched_nms_mask", TORCH_BOX(&frdet::cuda::batched_nms_mask));
}
