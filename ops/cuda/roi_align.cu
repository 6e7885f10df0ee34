// RoIAlign on CUDA, forward and backward, one map or all levels of a pyramid.
//
// Channels are innermost (maps in another layout are rearranged first), so neighbouring threads read neighbouring
// memory. Forward: a block takes 64 channels of a RoI; its results pass through shared memory, for they are stored
// channel by channel. Backward: a block owns 64 channels of a tile of 8 by 8 pixels and adds up, in their input order,
// the RoIs that touch it. Each sum has one owner and one order: no atomic additions, the same bits in every run. Extra
// memory: one record a RoI, and a copy of what must be rearranged.
#include <cstdio>

#include "../roi_align.h"
#include "launch.cuh"

namespace frdet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChannels = 64;  // of a block
constexpr int kBinTile = 64;   // bins that a forward block holds in shared memory at a time
constexpr int kTile = 8;       // pixels of a backward block, each way
constexpr int kMaxLevels = 8;
constexpr int kRowsPerThread = kTile / (kThreads / kChannels);

// A RoI on its map. The window is where its samples may fall; outside it no weight is above 0.
template <class A>
struct RoiRecord {
  int64_t level, image;
  RoiAxis<A> x, y;
  A scale;  // 1 / samples of a bin
  int64_t x_low, x_high, y_low, y_high;
};

template <class A>
struct RoiRules {
  LevelRule rule;
  A scales[kMaxLevels];
  int64_t map_height[kMaxLevels], map_width[kMaxLevels];
  int64_t height, width, sampling_ratio, images;
  bool aligned;
};

// The pixels that an axis may touch on a map of `size`; none if low > high.
template <class A>
__device__ void window(const RoiAxis<A>& axis, int64_t bins, int64_t size, int64_t* low, int64_t* high) {
  const double a = axis.start, b = double(axis.start) + double(bins) * double(axis.bin);
  const double first = min2(a, b) - 1, last = max2(a, b) + 1;
  *low = 0, *high = -1;
  if (!(axis.grid > A(0)) || !(last >= -2) || !(first <= size + 1)) return;
  *low = static_cast<int64_t>(min2(max2(std::floor(first), 0.0), double(size - 1)));
  *high = static_cast<int64_t>(min2(max2(std::ceil(last), 0.0), double(size - 1)));
}

template <class A>
__global__ void prepare(const A* rois, int64_t count, RoiRules<A> rules, RoiRecord<A>* records) {
  const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= count) return;
  const A* roi = rois + 5 * k;
  if (!(roi[0] >= A(0) && roi[0] < A(rules.images))) {
    printf("roi_align: RoI %lld has image index %g, expected 0 to %lld\n", static_cast<long long>(k), double(roi[0]),
           static_cast<long long>(rules.images - 1));
    __trap();
  }
  RoiRecord<A> record;
  record.level = choose_level(rules.rule, roi[1], roi[2], roi[3], roi[4]);
  record.image = static_cast<int64_t>(roi[0]);
  const A scale = rules.scales[record.level];
  record.x = make_axis(roi[1], roi[3], scale, rules.width, rules.sampling_ratio, rules.aligned);
  record.y = make_axis(roi[2], roi[4], scale, rules.height, rules.sampling_ratio, rules.aligned);
  record.scale = A(1) / max2(record.x.grid * record.y.grid, A(1));
  window(record.x, rules.width, rules.map_width[record.level], &record.x_low, &record.x_high);
  window(record.y, rules.height, rules.map_height[record.level], &record.y_low, &record.y_high);
  records[k] = record;
}

// kWidth neighbouring channels, read at once.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T value[kWidth];
};

// ---- forward -------------------------------------------------------------------------------------------------------

template <class T>
struct Maps {
  const T* at[kMaxLevels];
  int64_t image_stride[kMaxLevels], row_stride[kMaxLevels], pixel_stride[kMaxLevels];
  int64_t height[kMaxLevels], width[kMaxLevels];
};

// The sum over a bin's samples of kWidth channels.
template <class T, int kWidth>
__device__ void sum_bin(const T* map, int64_t row_stride, int64_t pixel_stride, int64_t map_height, int64_t map_width,
                        const RoiRecord<Acc<T>>& roi, int64_t bin_y, int64_t bin_x, Acc<T>* total) {
  using A = Acc<T>;
  const SampleRange ys = samples_on_map(roi.y, bin_y, map_height), xs = samples_on_map(roi.x, bin_x, map_width);
  for (int64_t i = ys.first; i <= ys.last; ++i) {
    const Sample<A> y = sample_at(roi.y, bin_y, i, map_height);
    if (y.low_part == A(0) && y.high_part == A(0)) continue;
    const T* low_row = map + y.low * row_stride;
    const T* high_row = map + y.high * row_stride;
    for (int64_t j = xs.first; j <= xs.last; ++j) {
      const Sample<A> x = sample_at(roi.x, bin_x, j, map_width);
      if (x.low_part == A(0) && x.high_part == A(0)) continue;
      const auto add = [&](const T* from, A weight) {
        const auto pack = *reinterpret_cast<const Pack<T, kWidth>*>(from);
#pragma unroll
        for (int c = 0; c < kWidth; ++c) total[c] = fma(weight, static_cast<A>(pack.value[c]), total[c]);
      };
      add(low_row + x.low * pixel_stride, y.low_part * x.low_part);
      add(low_row + x.high * pixel_stride, y.low_part * x.high_part);
      add(high_row + x.low * pixel_stride, y.high_part * x.low_part);
      add(high_row + x.high * pixel_stride, y.high_part * x.high_part);
    }
  }
}

// Block (k, chunk): channels [chunk * kChannels, ...) of RoI k.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    pool(Maps<T> maps, const RoiRecord<Acc<T>>* records, int64_t channels, int64_t height, int64_t width, T* out) {
  using A = Acc<T>;
  __shared__ A tile[kChannels][kBinTile + 1];
  constexpr int kLanes = kChannels / kWidth;
  const int64_t k = blockIdx.x, first_channel = int64_t(blockIdx.y) * kChannels, bins = height * width;
  const int lane = threadIdx.x % kLanes, row = threadIdx.x / kLanes;
  const RoiRecord<A> roi = records[k];
  const int64_t channel = first_channel + lane * kWidth, level = roi.level;
  const T* map = maps.at[level] + roi.image * maps.image_stride[level] + channel;
  const int here = static_cast<int>(min2<int64_t>(kChannels, channels - first_channel));
  for (int64_t first_bin = 0; first_bin < bins; first_bin += kBinTile) {
    const int count = static_cast<int>(min2<int64_t>(kBinTile, bins - first_bin));
    for (int b = row; b < count && channel < channels; b += kThreads / kLanes) {
      A total[kWidth] = {};
      const int64_t bin = first_bin + b;
      sum_bin<T, kWidth>(map, maps.row_stride[level], maps.pixel_stride[level], maps.height[level], maps.width[level],
                         roi, bin / width, bin % width, total);
#pragma unroll
      for (int c = 0; c < kWidth; ++c) tile[lane * kWidth + c][b] = total[c] * roi.scale;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < here * count; i += kThreads) {
      const int c = i / count, b = i % count;
      out[(k * channels + first_channel + c) * bins + first_bin + b] = static_cast<T>(tile[c][b]);
    }
    __syncthreads();
  }
}

// ---- backward ------------------------------------------------------------------------------------------------------

template <class T>
struct GradMaps {
  T* at[kMaxLevels];  // (images, height, width, channels)
  int64_t height[kMaxLevels], width[kMaxLevels];
  int64_t first_tile[kMaxLevels + 1];  // tiles of all images, level by level
  int64_t levels;
};

// The weight of a pixel in a bin.
template <class A>
__device__ A pixel_weight(const RoiAxis<A>& axis, int64_t bin, int64_t pixel, int64_t size) {
  A weight = 0;
  const SampleRange range = samples_on_map(axis, bin, size);
  for (int64_t i = range.first; i <= range.last; ++i) {
    const Sample<A> sample = sample_at(axis, bin, i, size);
    if (sample.low == pixel) weight += sample.low_part;
    if (sample.high == pixel) weight += sample.high_part;
  }
  return weight;
}

// The RoIs among [first, first + kThreads) for which `is_wanted`, in ascending order, into list; returns how many.
__device__ int collect(bool is_wanted, int* list, int* warp_count) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned ballot = __ballot_sync(~0u, is_wanted);
  if (lane == 0) warp_count[warp] = __popc(ballot);
  __syncthreads();
  int before = 0, total = 0;
  for (int w = 0; w < kThreads / 32; ++w) {
    if (w < warp) before += warp_count[w];
    total += warp_count[w];
  }
  if (is_wanted) list[before + __popc(ballot & ((1u << lane) - 1))] = threadIdx.x;
  __syncthreads();
  return total;
}

// Block (tile, chunk). grad is (count, height, width, channels). Shared memory: weights (kTile, height), (kTile,
// width).
template <class T>
__global__ void __launch_bounds__(kThreads) unpool(GradMaps<T> maps, const RoiRecord<Acc<T>>* records, int64_t count,
                                                   const T* grad, int64_t channels, int64_t height, int64_t width) {
  using A = Acc<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  A* y_weight = reinterpret_cast<A*>(shared);
  A* x_weight = y_weight + kTile * height;
  __shared__ int list[kThreads], warp_count[kThreads / 32];

  int64_t tile = blockIdx.x, level = 0;
  while (level + 1 < maps.levels && tile >= maps.first_tile[level + 1]) ++level;
  tile -= maps.first_tile[level];
  const int64_t map_height = maps.height[level], map_width = maps.width[level];
  const int64_t tiles_x = (map_width + kTile - 1) / kTile, tiles_y = (map_height + kTile - 1) / kTile;
  const int64_t image = tile / (tiles_x * tiles_y);
  const int64_t y0 = tile / tiles_x % tiles_y * kTile, x0 = tile % tiles_x * kTile;
  const int64_t channel = int64_t(blockIdx.y) * kChannels + threadIdx.x % kChannels;
  const int first_row = threadIdx.x / kChannels * kRowsPerThread;

  A total[kRowsPerThread][kTile] = {};
  for (int64_t first = 0; first < count; first += kThreads) {
    bool is_wanted = first + threadIdx.x < count;
    if (is_wanted) {
      const RoiRecord<A>& roi = records[first + threadIdx.x];
      is_wanted = roi.level == level && roi.image == image && roi.y_low < y0 + kTile && roi.y_high >= y0 &&
                  roi.x_low < x0 + kTile && roi.x_high >= x0;
    }
    const int wanted = collect(is_wanted, list, warp_count);
    for (int n = 0; n < wanted; ++n) {
      const int64_t k = first + list[n];
      const RoiRecord<A>& roi = records[k];
      for (int i = threadIdx.x; i < kTile * (height + width); i += kThreads) {
        const int y_count = kTile * static_cast<int>(height);
        if (i < y_count)
          y_weight[i] = pixel_weight(roi.y, i % height, y0 + i / height, map_height) * roi.scale;
        else
          x_weight[i - y_count] = pixel_weight(roi.x, (i - y_count) / kTile, x0 + (i - y_count) % kTile, map_width);
      }
      __syncthreads();
      const T* bins = grad + k * height * width * channels + channel;
      for (int64_t w = 0; w < width; ++w) {
        const A* column = x_weight + w * kTile;
        bool touches = false;
#pragma unroll
        for (int x = 0; x < kTile; ++x) touches |= column[x] != A(0);
        if (!touches || channel >= channels) continue;
        A line[kRowsPerThread] = {};
        for (int64_t h = 0; h < height; ++h) {
          A weight[kRowsPerThread];
          bool row_touches = false;
#pragma unroll
          for (int r = 0; r < kRowsPerThread; ++r) {
            weight[r] = y_weight[(first_row + r) * height + h];
            row_touches |= weight[r] != A(0);
          }
          if (!row_touches) continue;
          const A value = static_cast<A>(bins[(h * width + w) * channels]);
#pragma unroll
          for (int r = 0; r < kRowsPerThread; ++r) line[r] = fma(weight[r], value, line[r]);
        }
#pragma unroll
        for (int r = 0; r < kRowsPerThread; ++r)
#pragma unroll
          for (int x = 0; x < kTile; ++x) total[r][x] = fma(column[x], line[r], total[r][x]);
      }
      __syncthreads();
    }
  }
  if (channel >= channels) return;
#pragma unroll
  for (int r = 0; r < kRowsPerThread; ++r) {
    const int64_t y = y0 + first_row + r;
#pragma unroll
    for (int x = 0; x < kTile; ++x) {
      if (y >= map_height || x0 + x >= map_width) continue;
      maps.at[level][((image * map_height + y) * map_width + x0 + x) * channels + channel] =
          static_cast<T>(total[r][x]);
    }
  }
}

// ---- host ----------------------------------------------------------------------------------------------------------

template <class A>
Tensor prepare_rois(const char* op, const Tensor& rois_in, const std::vector<Tensor>& maps, const PoolArgs& args,
                    const OnDeviceOf& on) {
  check(maps.size() <= kMaxLevels, op, ": found ", maps.size(), " feature maps, expected at most ", kMaxLevels);
  const ScalarType type = std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float;
  const Tensor rois = torch::stable::contiguous(as_type(rois_in, type));
  RoiRules<A> rules = {};
  rules.rule = args.rule;
  for (size_t i = 0; i < maps.size(); ++i) {
    rules.scales[i] = static_cast<A>(args.scales[i]);
    rules.map_height[i] = maps[i].size(2), rules.map_width[i] = maps[i].size(3);
  }
  rules.height = args.height, rules.width = args.width, rules.sampling_ratio = args.sampling_ratio;
  rules.images = maps[0].size(0), rules.aligned = args.aligned;
  const int64_t count = rois.size(0), bytes = count * static_cast<int64_t>(sizeof(RoiRecord<A>));
  const Tensor records = torch::stable::new_empty(rois, {bytes}, ScalarType::Byte);
  if (count > 0) {
    prepare<A><<<blocks_for(count, kThreads), kThreads, 0, on.stream()>>>(data<A>(rois), count, rules,
                                                                          mutable_data<RoiRecord<A>>(records));
    FRDET_CHECK_LAUNCH();
  }
  return records;
}

template <class T>
void run_forward(const char* op, const std::vector<Tensor>& features, const Tensor& rois, const PoolArgs& args,
                 const Tensor& output) {
  const OnDeviceOf on(output);
  const Tensor records = prepare_rois<Acc<T>>(op, rois, features, args, on);
  constexpr int kWidth = 16 / sizeof(T);
  const int64_t channels = features[0].size(1);
  bool is_wide = channels % kWidth == 0;
  std::vector<Tensor> keep;
  Maps<T> maps = {};
  for (size_t i = 0; i < features.size(); ++i) {
    const bool is_inside = features[i].stride(1) == 1 || channels == 1;
    keep.push_back(is_inside ? features[i] : torch::stable::contiguous(features[i], MemoryFormat::ChannelsLast));
    const Tensor& map = keep.back();
    maps.at[i] = data<T>(map);
    maps.image_stride[i] = map.stride(0), maps.row_stride[i] = map.stride(2), maps.pixel_stride[i] = map.stride(3);
    maps.height[i] = map.size(2), maps.width[i] = map.size(3);
    is_wide &= reinterpret_cast<uintptr_t>(maps.at[i]) % 16 == 0 && map.stride(0) % kWidth == 0 &&
               map.stride(2) % kWidth == 0 && map.stride(3) % kWidth == 0;
  }
  const dim3 grid(static_cast<unsigned>(rois.size(0)), blocks_for(channels, kChannels));
  const auto* record = data<RoiRecord<Acc<T>>>(records);
  if (is_wide)
    pool<T, kWidth>
        <<<grid, kThreads, 0, on.stream()>>>(maps, record, channels, args.height, args.width, mutable_data<T>(output));
  else
    pool<T, 1>
        <<<grid, kThreads, 0, on.stream()>>>(maps, record, channels, args.height, args.width, mutable_data<T>(output));
  FRDET_CHECK_LAUNCH();
}

template <class T>
void run_backward(const char* op, const Tensor& grad_in, const Tensor& rois, const PoolArgs& args,
                  const std::vector<Tensor>& outputs, bool channels_last) {
  using A = Acc<T>;
  const OnDeviceOf on(grad_in);
  const Tensor records = prepare_rois<A>(op, rois, outputs, args, on);
  const Tensor grad = torch::stable::contiguous(grad_in, MemoryFormat::ChannelsLast);
  const int64_t channels = outputs[0].size(1), images = outputs[0].size(0);
  std::vector<Tensor> results;
  GradMaps<T> maps = {};
  maps.levels = static_cast<int64_t>(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Tensor& output = outputs[i];
    results.push_back(channels_last ? output
                                    : torch::stable::empty(output.sizes(), output.scalar_type(), std::nullopt,
                                                           output.device(), std::nullopt, MemoryFormat::ChannelsLast));
    maps.at[i] = mutable_data<T>(results.back());
    maps.height[i] = output.size(2), maps.width[i] = output.size(3);
    const int64_t tiles = ((output.size(2) + kTile - 1) / kTile) * ((output.size(3) + kTile - 1) / kTile);
    maps.first_tile[i + 1] = maps.first_tile[i] + tiles * images;
  }
  const int64_t tiles = maps.first_tile[outputs.size()];
  if (tiles == 0 || channels == 0) return;
  const size_t shared = static_cast<size_t>(kTile * (args.height + args.width)) * sizeof(A);
  check(shared <= 40000, op, ": output_size is (", args.height, ", ", args.width, "), too large for a GPU's gradient");
  const dim3 grid(static_cast<unsigned>(tiles), blocks_for(channels, kChannels));
  unpool<T><<<grid, kThreads, shared, on.stream()>>>(maps, data<RoiRecord<A>>(records), rois.size(0), data<T>(grad),
                                                     channels, args.height, args.width);
  FRDET_CHECK_LAUNCH();
  if (channels_last) return;
  for (size_t i = 0; i < outputs.size(); ++i) {
    Tensor output = outputs[i];
    torch::stable::copy_(output, results[i]);
  }
}

struct Cuda {
  static void forward(const char* op, const std::vector<Tensor>& features, const Tensor& rois, const PoolArgs& args,
                      const Tensor& output) {
    dispatch(op, output.scalar_type(),
             [&](auto tag) { run_forward<typename decltype(tag)::type>(op, features, rois, args, output); });
  }

  static void backward(const char* op, const Tensor& grad, const Tensor& rois, const PoolArgs& args,
                       const std::vector<Tensor>& outputs, bool channels_last) {
    dispatch(op, grad.scalar_type(), [&](auto tag) {
      run_backward<typename decltype(tag)::type>(op, grad, rois, args, outputs, channels_last);
    });
  }
};

}  // namespace
}  // namespace frdet::cuda

STABLE_TORCH_LIBRARY_IMPL(frdet, CUDA, m) { frdet::RoiAlignOps<frdet::cuda::Cuda>::add_to(m); }
