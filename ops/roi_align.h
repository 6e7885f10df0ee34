// RoIAlign's operators without their arithmetic: arguments, checks and results. A device adds `forward` and `backward`.
#pragma once

#include "common.h"
#include "geometry.h"

namespace frdet {

// Parameters of RoIAlign, and of its choice of a level.
struct PoolArgs {
  std::vector<double> scales;
  int64_t height, width, sampling_ratio;
  bool aligned;
  LevelRule rule;
};

inline void check_pool(const char* op, const std::vector<Tensor>& features, const Tensor& rois, const PoolArgs& args) {
  check(!features.empty(), op, ": found no feature map, expected at least one");
  check(features.size() == args.scales.size(), op, ": found ", features.size(), " feature maps and ",
        args.scales.size(), " scales, expected one scale a map");
  check(args.height > 0 && args.width > 0, op, ": output_size is (", args.height, ", ", args.width,
        "), expected positive numbers");
  check(rois.dim() == 2 && rois.size(1) == 5, op, ": RoIs have the shape ", shape_of(rois),
        ", expected (K, 5) as (image index, x1, y1, x2, y2)");
  const Tensor& first = features[0];
  for (const Tensor& feature : features) {
    check(feature.dim() == 4, op, ": a feature map has the shape ", shape_of(feature), ", expected (N, C, H, W)");
    check(feature.size(0) == first.size(0) && feature.size(1) == first.size(1), op, ": feature maps have the shapes ",
          shape_of(first), " and ", shape_of(feature), ", expected the same N and C");
    check(rois.size(0) == 0 || (feature.size(2) > 0 && feature.size(3) > 0), op, ": a feature map has the shape ",
          shape_of(feature), ", expected at least one pixel");
    check_same_type(op, "feature maps", first, "others are", feature);
    check_same_device(op, "feature maps", feature, "RoIs", rois);
  }
  const ScalarType type = first.scalar_type();
  check(is_floating(type), op, ": the input is ", name_of(type), ", expected float32, float64, bfloat16 or float16");
  check(rois.scalar_type() == type || rois.scalar_type() == acc_type(type), op, ": the input is ", name_of(type),
        " and RoIs are ", name_of(rois.scalar_type()), ", expected RoIs in ", name_of(acc_type(type)),
        " or in the input's dtype");
}

inline void check_grad(const char* op, const Tensor& grad, const Tensor& rois, const PoolArgs& args,
                       const std::vector<int64_t>& shapes) {
  check(shapes.size() == 4 * args.scales.size(), op, ": found ", shapes.size(), " numbers as shapes for ",
        args.scales.size(), " maps, expected four a map");
  check(rois.dim() == 2 && rois.size(1) == 5, op, ": RoIs have the shape ", shape_of(rois), ", expected (K, 5)");
  check(grad.dim() == 4 && grad.size(0) == rois.size(0) && grad.size(1) == shapes[1] && grad.size(2) == args.height &&
            grad.size(3) == args.width,
        op, ": grad has the shape ", shape_of(grad), ", expected (", rois.size(0), ", ", shapes[1], ", ", args.height,
        ", ", args.width, ")");
  check_same_device(op, "grad", grad, "RoIs", rois);
}

template <class Device>
struct RoiAlignOps {
  static PoolArgs one_level(double spatial_scale, int64_t height, int64_t width, int64_t sampling_ratio, bool aligned) {
    return {{spatial_scale}, height, width, sampling_ratio, aligned, {0, 0, 0, 0, 0, 1}};
  }

  static PoolArgs many_levels(const std::vector<double>& scales, int64_t height, int64_t width, int64_t sampling_ratio,
                              bool aligned, double canonical_size, double canonical_level, int64_t min_level,
                              double eps_inside, double eps_outside) {
    return {scales,
            height,
            width,
            sampling_ratio,
            aligned,
            {float(canonical_size), float(canonical_level), float(eps_inside), float(eps_outside), min_level,
             static_cast<int64_t>(scales.size())}};
  }

  static Tensor forward(const char* op, const std::vector<Tensor>& features, const Tensor& rois, const PoolArgs& args) {
    check_pool(op, features, rois, args);
    const Tensor& first = features[0];
    const Tensor output = torch::stable::new_empty(first, {rois.size(0), first.size(1), args.height, args.width});
    if (output.numel() > 0) Device::forward(op, features, rois, args, output);
    return output;
  }

  static std::vector<Tensor> backward(const char* op, const Tensor& grad, const Tensor& rois, const PoolArgs& args,
                                      const std::vector<int64_t>& shapes, bool channels_last) {
    check_grad(op, grad, rois, args, shapes);
    std::vector<Tensor> outputs;
    for (size_t i = 0; i < shapes.size(); i += 4)
      outputs.push_back(torch::stable::empty({&shapes[i], 4}, grad.scalar_type(), std::nullopt, grad.device(),
                                             std::nullopt,
                                             channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous));
    Device::backward(op, grad, rois, args, outputs, channels_last);
    return outputs;
  }

  static Tensor roi_align(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t height, int64_t width,
                          int64_t sampling_ratio, bool aligned) {
    return forward("roi_align", {input}, rois, one_level(spatial_scale, height, width, sampling_ratio, aligned));
  }

  static Tensor roi_align_backward(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t height,
                                   int64_t width, int64_t sampling_ratio, bool aligned,
                                   const std::vector<int64_t>& input_shape, bool channels_last) {
    const PoolArgs args = one_level(spatial_scale, height, width, sampling_ratio, aligned);
    return backward("roi_align_backward", grad, rois, args, input_shape, channels_last)[0];
  }

  static Tensor multiscale_roi_align(const std::vector<Tensor>& features, const Tensor& rois,
                                     const std::vector<double>& scales, int64_t height, int64_t width,
                                     int64_t sampling_ratio, bool aligned, double canonical_size,
                                     double canonical_level, int64_t min_level, double eps_inside, double eps_outside) {
    const PoolArgs args = many_levels(scales, height, width, sampling_ratio, aligned, canonical_size, canonical_level,
                                      min_level, eps_inside, eps_outside);
    return forward("multiscale_roi_align", features, rois, args);
  }

  static std::vector<Tensor> multiscale_roi_align_backward(const Tensor& grad, const Tensor& rois,
                                                           const std::vector<double>& scales, int64_t height,
                                                           int64_t width, int64_t sampling_ratio, bool aligned,
                                                           double canonical_size, double canonical_level,
                                                           int64_t min_level, double eps_inside, double eps_outside,
                                                           const std::vector<int64_t>& shapes, bool channels_last) {
    const PoolArgs args = many_levels(scales, height, width, sampling_ratio, aligned, canonical_size, canonical_level,
                                      min_level, eps_inside, eps_outside);
    return backward("multiscale_roi_align_backward", grad, rois, args, shapes, channels_last);
  }

  static void add_to(torch::stable::detail::StableLibrary& m) {
    m.impl("roi_align", TORCH_BOX(&roi_align));
    m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
    m.impl("multiscale_roi_align", TORCH_BOX(&multiscale_roi_align));
    m.impl("multiscale_roi_align_backward", TORCH_BOX(&multiscale_roi_align_backward));
  }
};

}  // namespace frdet
