// The schemas of all operators. Each implementation file adds its kernels with STABLE_TORCH_LIBRARY_IMPL. Fakes,
// autograd and autocast are in frdet/ops/registration.py.
#include "common.h"

STABLE_TORCH_LIBRARY(frdet, m) {
  m.def("nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor");
  m.def("batched_nms(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor");
  m.def("batched_nms_mask(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor");
  m.def(
      "max_iou(Tensor boxes, Tensor gt_boxes, Tensor? gt_valid, float min_gt_iou)"
      " -> (Tensor iou, Tensor index, Tensor gt_iou, Tensor best_of)");
  m.def("enlarge(Tensor image, int height, int width) -> Tensor");
  m.def(
      "roi_align(Tensor input, Tensor rois, float spatial_scale, int height, int width, int sampling_ratio,"
      " bool aligned) -> Tensor");
  m.def(
      "roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, int height, int width, int sampling_ratio,"
      " bool aligned, SymInt[] input_shape, bool channels_last) -> Tensor");
  m.def(
      "multiscale_roi_align(Tensor[] features, Tensor rois, float[] spatial_scales, int height, int width,"
      " int sampling_ratio, bool aligned, float canonical_size, float canonical_level, int min_level,"
      " float eps_inside, float eps_outside) -> Tensor");
  m.def(
      "multiscale_roi_align_backward(Tensor grad, Tensor rois, float[] spatial_scales, int height, int width,"
      " int sampling_ratio, bool aligned, float canonical_size, float canonical_level, int min_level,"
      " float eps_inside, float eps_outside, SymInt[] shapes, bool channels_last) -> Tensor[]");
}
