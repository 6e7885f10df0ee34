// Matching on the CPU without the matrix of IoUs: chunks of boxes pass over the ground truths, and a ground truth's
// best is the maximum of the chunks', which does not depend on their order. `best_of` then revisits only the chunks
// where a ground truth's best was found.
#include <algorithm>
#include <memory>

#include "../checks.h"
#include "kernels.h"

namespace frdet::cpu {
namespace {

constexpr int64_t kChunk = 2048;

struct ChunkBoxes {
  float values[5][kChunk];
  BoxArrays<float> arrays() { return {values[0], values[1], values[2], values[3], values[4]}; }
};

// Boxes [begin, begin + count) into arrays, the last group filled up with boxes that overlap nothing.
void read_boxes(const float* boxes, int64_t count, const BoxArrays<float>& to) {
  const int64_t padded = (count + kGroup - 1) / kGroup * kGroup;
  for (int64_t i = 0; i < padded; ++i) {
    const Box<float> box = i < count ? make_box(boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3])
                                     : Box<float>{INFINITY, INFINITY, -INFINITY, -INFINITY, 0};
    to.x1[i] = box.x1, to.y1[i] = box.y1, to.x2[i] = box.x2, to.y2[i] = box.y2, to.area[i] = box.area;
  }
}

// The ground truths of one image without padding, and their numbers.
struct Truths {
  std::vector<int32_t> number;
  std::vector<float> values;
  BoxArrays<float> arrays;
  int64_t count() const { return static_cast<int64_t>(number.size()); }
};

Truths read_truths(const float* boxes, const bool* valid, int64_t count) {
  Truths truths;
  std::vector<float> packed;
  for (int64_t g = 0; g < count; ++g) {
    if (valid && !valid[g]) continue;
    truths.number.push_back(static_cast<int32_t>(g));
    packed.insert(packed.end(), boxes + 4 * g, boxes + 4 * g + 4);
  }
  const int64_t padded = (truths.count() + kGroup - 1) / kGroup * kGroup;
  truths.values.resize(5 * padded);
  float* at = truths.values.data();
  truths.arrays = {at, at + padded, at + 2 * padded, at + 3 * padded, at + 4 * padded};
  read_boxes(packed.data(), truths.count(), truths.arrays);
  return truths;
}

Box<float> box_of(const BoxArrays<float>& boxes, int64_t i) {
  return {boxes.x1[i], boxes.y1[i], boxes.x2[i], boxes.y2[i], boxes.area[i]};
}

// One image. The outputs are its rows.
void match_image(const float* boxes, int64_t count, const Truths& truths, float min_gt_iou, float* iou, int64_t* index,
                 float* gt_iou, int64_t* best_of) {
  const int64_t chunks = (count + kChunk - 1) / kChunk, num_gt = truths.count();
  std::vector<float> chunk_best(chunks * num_gt, 0.0f);
  torch::stable::parallel_for(0, chunks, 2, [&](int64_t begin, int64_t end) {
    const auto chunk = std::make_unique<ChunkBoxes>();
    const auto chunk_iou = std::make_unique<float[]>(kChunk);
    const auto chunk_index = std::make_unique<int32_t[]>(kChunk);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i * kChunk, here = std::min(kChunk, count - at);
      read_boxes(boxes + 4 * at, here, chunk->arrays());
      kernels().match.match(chunk->arrays(), 0, (here + kGroup - 1) / kGroup, truths.arrays, num_gt, chunk_iou.get(),
                            chunk_index.get(), chunk_best.data() + i * num_gt);
      for (int64_t j = 0; j < here; ++j) {
        iou[at + j] = chunk_iou[j];
        index[at + j] = chunk_iou[j] > 0 ? truths.number[chunk_index[j]] : 0;
        best_of[at + j] = -1;
      }
    }
  });
  // Ascending ground truths, so that the last one stays.
  for (int64_t g = 0; g < num_gt; ++g) {
    float best = 0;
    for (int64_t i = 0; i < chunks; ++i) best = std::max(best, chunk_best[i * num_gt + g]);
    gt_iou[truths.number[g]] = best;
    if (!(best > 0) || !(best >= min_gt_iou)) continue;
    const Box<float> gt = box_of(truths.arrays, g);
    for (int64_t i = 0; i < chunks; ++i) {
      if (chunk_best[i * num_gt + g] != best) continue;
      for (int64_t at = i * kChunk; at < std::min((i + 1) * kChunk, count); ++at) {
        const float* b = boxes + 4 * at;
        if (iou[at] >= best && frdet::iou(gt, make_box(b[0], b[1], b[2], b[3])) == best) best_of[at] = truths.number[g];
      }
    }
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> max_iou(const Tensor& boxes_in, const Tensor& gt_boxes_in,
                                                   const std::optional<Tensor>& gt_valid_in, double min_gt_iou) {
  check_max_iou(boxes_in, gt_boxes_in, gt_valid_in);
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
  for (int64_t b = 0; b < batch; ++b) {
    const bool* valid = gt_valid ? data<bool>(*gt_valid) + b * num_gt : nullptr;
    const Truths truths = read_truths(data<float>(gt_boxes) + 4 * b * num_gt, valid, num_gt);
    // The caller's number is compared in float32, as everything here.
    match_image(data<float>(boxes) + b * box_step, count, truths, static_cast<float>(min_gt_iou),
                mutable_data<float>(iou) + b * count, mutable_data<int64_t>(index) + b * count,
                mutable_data<float>(gt_iou) + b * num_gt, mutable_data<int64_t>(best_of) + b * count);
  }
  return {iou, index, gt_iou, best_of};
}

}  // namespace
}  // namespace frdet::cpu

STABLE_TORCH_LIBRARY_IMPL(frdet, CPU, m) { m.impl("max_iou", TORCH_BOX(&frdet::cpu::max_iou)); }
