// Checks of boxes, the same on every device.
#pragma once

#include "common.h"
#include "geometry.h"

namespace frdet {

inline void check_boxes(const char* op, const char* name, const Tensor& boxes) {
  check(boxes.dim() == 2 && boxes.size(1) == 4, op, ": ", name, " have the shape ", shape_of(boxes),
        ", expected (N, 4) as (x1, y1, x2, y2)");
  check(is_floating(boxes.scalar_type()), op, ": ", name, " are ", name_of(boxes.scalar_type()),
        ", expected float32, float64, bfloat16 or float16");
}

inline void check_nms(const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* idxs) {
  check_boxes(op, "boxes", boxes);
  const int64_t n = boxes.size(0);
  check(scores.dim() == 1 && scores.size(0) == n, op, ": scores have the shape ", shape_of(scores), " for ", n,
        " boxes, expected (", n, ")");
  check_same_device(op, "boxes", boxes, "scores", scores);
  check_same_type(op, "boxes", boxes, "scores", scores);
  check(n < (int64_t(1) << 31), op, ": found ", n, " boxes, expected fewer than 2^31");
  if (!idxs) return;
  check(idxs->dim() == 1 && idxs->size(0) == n, op, ": idxs have the shape ", shape_of(*idxs), " for ", n,
        " boxes, expected (", n, ")");
  check(idxs->scalar_type() == ScalarType::Long, op, ": idxs are ", name_of(idxs->scalar_type()), ", expected int64");
  check_same_device(op, "boxes", boxes, "idxs", *idxs);
}

// boxes (N, 4) or (B, N, 4), gt_boxes (B, G, 4), gt_valid (B, G).
inline void check_max_iou(const Tensor& boxes, const Tensor& gt_boxes, const std::optional<Tensor>& gt_valid) {
  const char* op = "max_iou";
  check(gt_boxes.dim() == 3 && gt_boxes.size(2) == 4, op, ": gt_boxes have the shape ", shape_of(gt_boxes),
        ", expected (B, G, 4)");
  const bool is_shared = boxes.dim() == 2 && boxes.size(1) == 4;
  const bool is_batched = boxes.dim() == 3 && boxes.size(2) == 4 && boxes.size(0) == gt_boxes.size(0);
  check(is_shared || is_batched, op, ": boxes have the shape ", shape_of(boxes), " and gt_boxes ", shape_of(gt_boxes),
        ", expected (N, 4) or (B, N, 4) with the same B");
  check(is_floating(boxes.scalar_type()) && is_floating(gt_boxes.scalar_type()), op, ": boxes are ",
        name_of(boxes.scalar_type()), " and gt_boxes ", name_of(gt_boxes.scalar_type()),
        ", expected floating-point numbers");
  check_same_device(op, "boxes", boxes, "gt_boxes", gt_boxes);
  if (!gt_valid) return;
  check(gt_valid->dim() == 2 && gt_valid->size(0) == gt_boxes.size(0) && gt_valid->size(1) == gt_boxes.size(1), op,
        ": gt_valid has the shape ", shape_of(*gt_valid), " for gt_boxes ", shape_of(gt_boxes), ", expected (B, G)");
  check(gt_valid->scalar_type() == ScalarType::Bool, op, ": gt_valid is ", name_of(gt_valid->scalar_type()),
        ", expected bool");
  check_same_device(op, "boxes", boxes, "gt_valid", *gt_valid);
}

}  // namespace frdet
