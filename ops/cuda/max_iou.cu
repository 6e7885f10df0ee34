// Matching on CUDA without the matrix of IoUs: one thread for each box, with the ground truths in shared memory. The
// best IoU of a ground truth is a maximum of non-negative floats, computed on their bits. A maximum does not depend on
// the order.
#include "../checks.h"
#include "launch.cuh"

namespace frdet::cuda {
namespace {

constexpr int kThreads = 256;

struct Truths {
  const float* boxes;
  const bool* valid;  // or null
  int64_t count;
};

// Ground truths [first, first + n) into shared memory; padding becomes boxes that overlap nothing.
__device__ int read_truths(const Truths& truths, int64_t first, Box<float>* tile) {
  const int n = static_cast<int>(min2<int64_t>(kThreads, truths.count - first));
  __syncthreads();
  if (threadIdx.x < n) {
    const int64_t g = first + threadIdx.x;
    const float* b = truths.boxes + 4 * g;
    tile[threadIdx.x] = truths.valid && !truths.valid[g] ? Box<float>{INFINITY, INFINITY, -INFINITY, -INFINITY, 0}
                                                         : make_box(b[0], b[1], b[2], b[3]);
  }
  __syncthreads();
  return n;
}

__device__ Truths of_image(Truths truths, int64_t image) {
  truths.boxes += 4 * image * truths.count;
  if (truths.valid) truths.valid += image * truths.count;
  return truths;
}

__device__ Box<float> read_box(const float* boxes, int64_t box_step, int64_t image, int64_t i, int64_t count) {
  if (i >= count) return {INFINITY, INFINITY, -INFINITY, -INFINITY, 0};
  const float* b = boxes + image * box_step + 4 * i;
  return make_box(b[0], b[1], b[2], b[3]);
}

__device__ float overlap(const Box<float>& gt, const Box<float>& box) {
  const float ratio = iou(gt, box);
  return ratio > 0 ? ratio : 0;  // also for NaN
}

__global__ void match(const float* boxes, int64_t box_step, int64_t count, Truths all, float* iou, int64_t* index,
                      unsigned* gt_iou) {
  __shared__ Box<float> tile[kThreads];
  __shared__ unsigned tile_best[kThreads];
  const int64_t image = blockIdx.y, i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const Truths truths = of_image(all, image);
  const Box<float> box = read_box(boxes, box_step, image, i, count);
  float best = 0;
  int64_t best_index = 0;
  for (int64_t first = 0; first < truths.count; first += kThreads) {
    const int n = read_truths(truths, first, tile);
    tile_best[threadIdx.x] = 0;
    __syncthreads();
    for (int g = 0; g < n; ++g) {
      const float ratio = overlap(tile[g], box);
      if (ratio > best) best = ratio, best_index = first + g;
      if (!__any_sync(~0u, ratio > 0)) continue;
      unsigned bits = __float_as_uint(ratio);
      for (int step = 16; step > 0; step /= 2) bits = max2(bits, __shfl_xor_sync(~0u, bits, step));
      if (threadIdx.x % 32 == 0) atomicMax(&tile_best[g], bits);
    }
    __syncthreads();
    if (threadIdx.x < n && tile_best[threadIdx.x])
      atomicMax(&gt_iou[image * truths.count + first + threadIdx.x], tile_best[threadIdx.x]);
  }
  if (i >= count) return;
  iou[image * count + i] = best;
  index[image * count + i] = best_index;
}

__global__ void find_best_of(const float* boxes, int64_t box_step, int64_t count, Truths all, const float* gt_iou,
                             float min_gt_iou, int64_t* best_of) {
  __shared__ Box<float> tile[kThreads];
  __shared__ float tile_best[kThreads];
  const int64_t image = blockIdx.y, i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const Truths truths = of_image(all, image);
  const Box<float> box = read_box(boxes, box_step, image, i, count);
  int64_t last = -1;
  for (int64_t first = 0; first < truths.count; first += kThreads) {
    const int n = read_truths(truths, first, tile);
    if (threadIdx.x < n) tile_best[threadIdx.x] = gt_iou[image * truths.count + first + threadIdx.x];
    __syncthreads();
    for (int g = 0; g < n; ++g) {
      const float best = tile_best[g];
      if (best > 0 && best >= min_gt_iou && overlap(tile[g], box) == best) last = first + g;
    }
  }
  if (i < count) best_of[image * count + i] = last;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> max_iou(const Tensor& boxes_in, const Tensor& gt_boxes_in,
                                                   const std::optional<Tensor>& gt_valid_in, double min_gt_iou) {
  check_max_iou(boxes_in, gt_boxes_in, gt_valid_in);
  const OnDeviceOf on(boxes_in);
  const Tensor boxes = torch::stable::contiguous(as_type(boxes_in, ScalarType::Float));
  const Tensor gt_boxes = torch::stable::contiguous(as_type(gt_boxes_in, ScalarType::Float));
  std::optional<Tensor> gt_valid;
  if (gt_valid_in) gt_valid = torch::stable::contiguous(*gt_valid_in);
  const int64_t batch = gt_boxes.size(0), num_gt = gt_boxes.size(1), count = boxes.size(boxes.dim() - 2);
  const int64_t box_step = boxes.dim() == 3 ? 4 * count : 0;
  const Tensor iou = torch::stable::new_empty(boxes, {batch, count}, ScalarType::Float);
  const Tensor index = torch::stable::new_empty(boxes, {batch, count}, ScalarType::Long);
  const Tensor gt_iou = torch::stable::new_zeros(boxes, {batch, num_gt}, ScalarType::Float);
  const Tensor best_of = torch::stable::new_empty(boxes, {batch, count}, ScalarType::Long);
  if (batch == 0 || count == 0) return {iou, index, gt_iou, best_of};

  const Truths truths = {data<float>(gt_boxes), gt_valid ? data<bool>(*gt_valid) : nullptr, num_gt};
  const dim3 grid(blocks_for(count, kThreads), static_cast<unsigned>(batch));
  match<<<grid, kThreads, 0, on.stream()>>>(data<float>(boxes), box_step, count, truths, mutable_data<float>(iou),
                                            mutable_data<int64_t>(index), mutable_data<unsigned>(gt_iou));
  FRDET_CHECK_LAUNCH();
  find_best_of<<<grid, kThreads, 0, on.stream()>>>(data<float>(boxes), box_step, count, truths, data<float>(gt_iou),
                                                   static_cast<float>(min_gt_iou), mutable_data<int64_t>(best_of));
  FRDET_CHECK_LAUNCH();
  return {iou, index, gt_iou, best_of};
}

}  // namespace
}  // namespace frdet::cuda

STABLE_TORCH_LIBRARY_IMPL(frdet, CUDA, m) { m.impl("max_iou", TORCH_BOX(&frdet::cuda::max_iou)); }
