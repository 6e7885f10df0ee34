// RoIAlign on the CPU, forward and backward, one map or all levels of a pyramid.
//
// Bilinear weights are a product of one number for the row and one for the column, and so is the mean over a bin's
// samples. A bin is therefore a weighted sum of rows, each a weighted sum of pixels, and a pixel counts once however
// many samples lie around it. Channels are innermost (maps in another layout are rearranged first), so each weight is
// shared by a vector of channels.
//
// Backward hands out bands of rows of the maps' gradients. A band adds up its RoIs in their input order, so no two
// threads write to one place and the sum of a pixel does not depend on how rows were cut into bands, or on the number
// of threads.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <type_traits>

#include "../roi_align.h"
#include "kernels.h"

namespace frdet::cpu {
namespace {

// f(i, worker's scratch) for each i < count. A thread takes the next piece when it is done with one: RoIs and bands
// differ in cost, and no result depends on who computes it.
template <class MakeScratch, class F>
void for_each(int64_t count, const MakeScratch& make_scratch, const F& f) {
  std::atomic<int64_t> next{0};
  const int64_t workers = std::min<int64_t>(count, torch::stable::get_num_threads());
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (; begin < end; ++begin) {
      auto scratch = make_scratch();
      for (int64_t i = next++; i < count; i = next++) f(i, scratch);
    }
  });
}

// The weights of one axis: bin b takes pixels pixel[first[b]] ... pixel[first[b + 1] - 1], each once.
template <class A>
struct Weights {
  std::vector<int32_t> first;
  std::vector<int64_t> pixel;
  std::vector<A> weight;

  void add(int64_t at, A part) {
    // Samples are in order, so a pixel met before is one of the last two.
    const size_t count = pixel.size();
    for (size_t i = count; i > static_cast<size_t>(first.back()) && i + 2 > count; --i) {
      if (pixel[i - 1] != at) continue;
      weight[i - 1] += part;
      return;
    }
    pixel.push_back(at);
    weight.push_back(part);
  }

  void build(const RoiAxis<A>& axis, int64_t bins, int64_t size, A scale) {
    first.assign(1, 0);
    pixel.clear();
    weight.clear();
    for (int64_t b = 0; b < bins; ++b) {
      const SampleRange range = samples_on_map(axis, b, size);
      for (int64_t i = range.first; i <= range.last; ++i) {
        const Sample<A> sample = sample_at(axis, b, i, size);
        if (sample.low_part != 0) add(sample.low, sample.low_part);
        if (sample.high_part != 0) add(sample.high, sample.high_part);
      }
      for (size_t i = first.back(); i < weight.size(); ++i) weight[i] *= scale;
      first.push_back(static_cast<int32_t>(pixel.size()));
    }
  }
};

// The same weights the other way round: pixel low + p goes into bins bin[first[p]] ...
template <class A>
struct PixelWeights {
  int64_t low = 0;
  std::vector<int32_t> first;
  std::vector<int64_t> bin;
  std::vector<A> weight;
  std::vector<int32_t> next;

  int64_t count() const { return static_cast<int64_t>(first.size()) - 1; }

  void build(const Weights<A>& weights) {
    const int64_t total = static_cast<int64_t>(weights.pixel.size());
    first.assign(1, 0);
    if (total == 0) return;
    const auto [least, most] = std::minmax_element(weights.pixel.begin(), weights.pixel.end());
    low = *least;
    first.assign(*most - low + 2, 0);
    for (const int64_t p : weights.pixel) ++first[p - low + 1];
    for (size_t p = 1; p < first.size(); ++p) first[p] += first[p - 1];
    next.assign(first.begin(), first.end());
    bin.resize(total);
    weight.resize(total);
    for (size_t b = 0; b + 1 < weights.first.size(); ++b) {
      for (int32_t i = weights.first[b]; i < weights.first[b + 1]; ++i) {
        const int32_t to = next[weights.pixel[i] - low]++;
        bin[to] = static_cast<int64_t>(b);
        weight[to] = weights.weight[i];
      }
    }
  }
};

template <class A>
struct Roi {
  int64_t number, level, image;
  A x1, y1, x2, y2;

  A place() const { return std::isfinite(y1 + y2) ? y1 + y2 : A(0); }  // NaN has no place in an order
};

template <class A>
std::vector<Roi<A>> read_rois(const char* op, const Tensor& rois_in, int64_t images, const LevelRule& rule) {
  const Tensor rois =
      torch::stable::contiguous(as_type(rois_in, std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float));
  const A* at = data<A>(rois);
  std::vector<Roi<A>> result(rois.size(0));
  for (int64_t k = 0; k < rois.size(0); ++k, at += 5) {
    check(at[0] >= 0 && at[0] < images, op, ": RoI ", k, " has image index ", at[0], ", expected 0 to ", images - 1,
          " (the input holds ", images, " images)");
    result[k] = {k,    choose_level(rule, at[1], at[2], at[3], at[4]), static_cast<int64_t>(at[0]), at[1], at[2], at[3],
                 at[4]};
  }
  return result;
}

template <class A>
struct Geometry {
  RoiAxis<A> x, y;
  A scale;  // 1 / samples of a bin
};

template <class A>
Geometry<A> geometry_of(const Roi<A>& roi, const PoolArgs& args) {
  const A scale = static_cast<A>(args.scales[roi.level]);
  const RoiAxis<A> x = make_axis(roi.x1, roi.x2, scale, args.width, args.sampling_ratio, args.aligned);
  const RoiAxis<A> y = make_axis(roi.y1, roi.y2, scale, args.height, args.sampling_ratio, args.aligned);
  return {x, y, A(1) / std::max(x.grid * y.grid, A(1))};
}

template <class T>
auto sum_kernel() {
  if constexpr (std::is_same_v<T, float>)
    return kernels().sum32;
  else if constexpr (std::is_same_v<T, double>)
    return kernels().sum64;
  else if constexpr (std::is_same_v<T, BFloat16>)
    return kernels().sum_bf16;
  else
    return kernels().sum_fp16;
}

// The same bits under the kernels' own name for the type.
template <class T>
auto plain(const T* at) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return reinterpret_cast<const Bf16*>(at);
  else if constexpr (std::is_same_v<T, Half>)
    return reinterpret_cast<const Fp16*>(at);
  else
    return at;
}

// to (columns, rows) from (rows, columns), in blocks whose lines stay in the nearest cache.
template <class To, class From>
void transpose(To* to, int64_t to_stride, const From* from, int64_t from_stride, int64_t rows, int64_t columns) {
  constexpr int64_t kBlock = 16;
  for (int64_t c = 0; c < columns; c += kBlock) {
    const int64_t end = std::min(c + kBlock, columns);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = c; i < end; ++i) to[i * to_stride + r] = static_cast<To>(from[r * from_stride + i]);
  }
}

// ---- forward -------------------------------------------------------------------------------------------------------

// A map with channels innermost; strides in elements.
template <class T>
struct Map {
  Tensor keep;
  const T* at;
  int64_t image_stride, row_stride, pixel_stride, height, width;
};

template <class T>
Map<T> channels_inside(const Tensor& input) {
  const bool is_inside = input.stride(1) == 1 || input.size(1) == 1;
  const Tensor map = is_inside ? input : torch::stable::contiguous(input, MemoryFormat::ChannelsLast);
  return {map, data<T>(map), map.stride(0), map.stride(2), map.stride(3), map.size(2), map.size(3)};
}

constexpr int kSlots = 4;

template <class A>
struct ForwardScratch {
  Weights<A> x, y;
  std::vector<int64_t> offset;
  std::unique_ptr<A[]> rows, bins;  // kSlots rows of bins (width, C); the RoI's result (height, width, C)
};

// The rows that were last summed, so that the next bin, which begins where one ends, need not sum them again.
class RowSlots {
 public:
  // Puts the slots of `count` <= kSlots rows into slot[]; true in is_new[] where the row must be computed.
  void assign(const int64_t* row, int count, int* slot, bool* is_new) {
    bool is_used[kSlots] = {};
    for (int i = 0; i < count; ++i) {
      slot[i] = static_cast<int>(std::find(held_, held_ + kSlots, row[i]) - held_);
      if (slot[i] < kSlots) is_used[slot[i]] = true;
    }
    for (int i = 0; i < count; ++i) {
      is_new[i] = slot[i] == kSlots;
      if (!is_new[i]) continue;
      slot[i] = static_cast<int>(std::find(is_used, is_used + kSlots, false) - is_used);
      is_used[slot[i]] = true;
      held_[slot[i]] = row[i];
    }
  }

 private:
  int64_t held_[kSlots] = {-1, -1, -1, -1};
};

template <class T, class A = Acc<T>>
void pool_roi(const Map<T>& map, const Roi<A>& roi, const PoolArgs& args, int64_t channels, ForwardScratch<A>& scratch,
              T* out) {
  const Geometry<A> geometry = geometry_of(roi, args);
  scratch.y.build(geometry.y, args.height, map.height, geometry.scale);
  scratch.x.build(geometry.x, args.width, map.width, A(1));
  scratch.offset.clear();
  for (const int64_t pixel : scratch.x.pixel) scratch.offset.push_back(pixel * map.pixel_stride);

  const T* image = map.at + roi.image * map.image_stride;
  const int64_t line = args.width * channels;
  const auto sum_pixels = sum_kernel<T>();
  const auto sum_rows = sum_kernel<A>();
  RowSlots slots;
  for (int64_t b = 0; b < args.height; ++b) {
    A* bin_row = scratch.bins.get() + b * line;
    const int32_t first = scratch.y.first[b], last = scratch.y.first[b + 1];
    if (first == last) std::fill_n(bin_row, line, A(0));
    for (int32_t t = first; t < last; t += kSlots) {
      const int count = std::min(kSlots, last - t);
      int slot[kSlots];
      bool is_new[kSlots];
      int64_t from[kSlots];
      slots.assign(&scratch.y.pixel[t], count, slot, is_new);
      for (int i = 0; i < count; ++i) {
        from[i] = slot[i] * line;
        if (!is_new[i]) continue;
        const T* row = image + scratch.y.pixel[t + i] * map.row_stride;
        for (int64_t w = 0; w < args.width; ++w) {
          const int32_t begin = scratch.x.first[w], end = scratch.x.first[w + 1];
          sum_pixels(scratch.rows.get() + from[i] + w * channels, plain(row), scratch.offset.data() + begin,
                     scratch.x.weight.data() + begin, end - begin, channels, false);
        }
      }
      sum_rows(bin_row, scratch.rows.get(), from, &scratch.y.weight[t], count, line, t > first);
    }
  }
  const int64_t bins = args.height * args.width;
  transpose(out, bins, scratch.bins.get(), channels, bins, channels);
}

template <class T>
void pool(const char* op, const std::vector<Tensor>& features, const Tensor& rois_in, const PoolArgs& args,
          const Tensor& output) {
  using A = Acc<T>;
  std::vector<Roi<A>> rois = read_rois<A>(op, rois_in, features[0].size(0), args.rule);
  const int64_t channels = features[0].size(1);
  if (rois.empty() || channels == 0) return;
  std::vector<Map<T>> maps;
  for (const Tensor& feature : features) maps.push_back(channels_inside<T>(feature));
  // Neighbours one after the other: what one brought into the cache serves the next.
  std::sort(rois.begin(), rois.end(), [](const Roi<A>& a, const Roi<A>& b) {
    return std::tuple(a.level, a.image, a.place()) < std::tuple(b.level, b.image, b.place());
  });
  T* out = mutable_data<T>(output);
  const int64_t line = args.width * channels, size = args.height * line;
  const auto make_scratch = [&] {
    ForwardScratch<A> scratch;
    scratch.rows = std::make_unique<A[]>(kSlots * line);
    scratch.bins = std::make_unique<A[]>(size);
    return scratch;
  };
  for_each(static_cast<int64_t>(rois.size()), make_scratch, [&](int64_t i, ForwardScratch<A>& scratch) {
    pool_roi(maps[rois[i].level], rois[i], args, channels, scratch, out + rois[i].number * size);
  });
}

// ---- backward ------------------------------------------------------------------------------------------------------

// A map's gradient: (N, C, height, width), channels innermost or outermost.
template <class T>
struct GradMap {
  T* at;
  int64_t channels, height, width;
  bool channels_last;
};

struct Band {
  int64_t level, image, begin, end;  // rows [begin, end)
};

template <class A>
struct BackwardScratch {
  Weights<A> axis;
  PixelWeights<A> x, y;
  std::vector<int64_t> offset;
  std::unique_ptr<A[]> grad, line, band;
};

// Adds one RoI's gradient to the rows [begin, end) at `rows` (end - begin, W, C).
template <class T, class A = Acc<T>>
void spread_roi(const GradMap<T>& map, const Roi<A>& roi, const PoolArgs& args, const T* grad, const Band& band,
                A* rows, BackwardScratch<A>& scratch) {
  const Geometry<A> geometry = geometry_of(roi, args);
  scratch.axis.build(geometry.y, args.height, map.height, geometry.scale);
  scratch.y.build(scratch.axis);
  const int64_t begin = std::max(band.begin, scratch.y.low);
  const int64_t end = std::min(band.end, scratch.y.low + scratch.y.count());
  if (begin >= end) return;
  scratch.axis.build(geometry.x, args.width, map.width, A(1));
  scratch.x.build(scratch.axis);
  if (scratch.x.count() == 0) return;

  const int64_t line = args.width * map.channels, bins = args.height * args.width;
  transpose(scratch.grad.get(), map.channels, grad, bins, map.channels, bins);
  const auto sum = sum_kernel<A>();
  const auto offsets = [&](const std::vector<int64_t>& bin, int64_t first, int64_t last, int64_t stride) {
    scratch.offset.clear();
    for (int64_t i = first; i < last; ++i) scratch.offset.push_back(bin[i] * stride);
    return scratch.offset.data();
  };
  for (int64_t row = begin; row < end; ++row) {
    const int64_t p = row - scratch.y.low, first = scratch.y.first[p], last = scratch.y.first[p + 1];
    if (first == last) continue;
    sum(scratch.line.get(), scratch.grad.get(), offsets(scratch.y.bin, first, last, line), &scratch.y.weight[first],
        last - first, line, false);
    const int64_t* offset = offsets(scratch.x.bin, 0, static_cast<int64_t>(scratch.x.bin.size()), map.channels);
    A* to = rows + ((row - band.begin) * map.width + scratch.x.low) * map.channels;
    for (int64_t i = 0; i < scratch.x.count(); ++i, to += map.channels) {
      const int32_t from = scratch.x.first[i], count = scratch.x.first[i + 1] - from;
      if (count > 0)
        sum(to, scratch.line.get(), offset + from, scratch.x.weight.data() + from, count, map.channels, true);
    }
  }
}

// Writes the gradient of a band's rows, whatever RoIs there are.
template <class T, class A = Acc<T>>
void fill_band(const GradMap<T>& map, const Band& band, const Roi<A>* rois, int64_t count, const PoolArgs& args,
               const T* grad, BackwardScratch<A>& scratch) {
  const int64_t pixels = (band.end - band.begin) * map.width, area = map.height * map.width;
  T* to = map.at + (band.image * area + band.begin * map.width) * map.channels;  // channels innermost
  A* rows = scratch.band.get();
  if constexpr (std::is_same_v<T, A>) {
    if (map.channels_last) rows = to;
  }
  std::fill_n(rows, pixels * map.channels, A(0));
  for (int64_t i = 0; i < count; ++i) {
    const T* roi_grad = grad + rois[i].number * map.channels * args.height * args.width;
    spread_roi(map, rois[i], args, roi_grad, band, rows, scratch);
  }
  if (!map.channels_last) {
    transpose(map.at + band.image * area * map.channels + band.begin * map.width, area, rows, map.channels, pixels,
              map.channels);
  } else if constexpr (!std::is_same_v<T, A>) {
    for (int64_t i = 0; i < pixels * map.channels; ++i) to[i] = static_cast<T>(rows[i]);
  }
}

template <class T>
void unpool(const char* op, const Tensor& grad_in, const Tensor& rois_in, const PoolArgs& args,
            const std::vector<Tensor>& outputs, bool channels_last) {
  using A = Acc<T>;
  const Tensor grad = torch::stable::contiguous(grad_in);
  const int64_t images = outputs[0].size(0), channels = outputs[0].size(1);
  std::vector<Roi<A>> rois = read_rois<A>(op, rois_in, images, args.rule);
  // By map and image; within one in the order of the input, which is the order of the sums.
  std::stable_sort(rois.begin(), rois.end(), [](const Roi<A>& a, const Roi<A>& b) {
    return std::tuple(a.level, a.image) < std::tuple(b.level, b.image);
  });
  std::vector<int64_t> start(outputs.size() * images + 1, 0);
  for (const Roi<A>& roi : rois) ++start[roi.level * images + roi.image + 1];
  for (size_t i = 1; i < start.size(); ++i) start[i] += start[i - 1];

  // Some eight bands a thread, of no more than 4 MiB where they are summed aside.
  const int64_t wanted = 8 * torch::stable::get_num_threads();
  std::vector<GradMap<T>> maps;
  std::vector<Band> bands;
  int64_t largest = 0;
  for (size_t level = 0; level < outputs.size(); ++level) {
    const int64_t height = outputs[level].size(2), width = outputs[level].size(3);
    maps.push_back({mutable_data<T>(outputs[level]), channels, height, width, channels_last});
    if (outputs[level].numel() == 0) continue;
    const int64_t fitting = (int64_t(4) << 20) / (width * channels * int64_t(sizeof(A)));
    const int64_t rows = std::clamp<int64_t>(std::min(fitting, height * images / wanted), 1, height);
    largest = std::max(largest, rows * width);
    for (int64_t image = 0; image < images; ++image)
      for (int64_t row = 0; row < height; row += rows)
        bands.push_back({static_cast<int64_t>(level), image, row, std::min(row + rows, height)});
  }
  const bool is_direct = std::is_same_v<T, A> && channels_last;
  const auto make_scratch = [&] {
    BackwardScratch<A> scratch;
    scratch.grad = std::make_unique<A[]>(args.height * args.width * channels);
    scratch.line = std::make_unique<A[]>(args.width * channels);
    if (!is_direct) scratch.band = std::make_unique<A[]>(largest * channels);
    return scratch;
  };
  for_each(static_cast<int64_t>(bands.size()), make_scratch, [&](int64_t i, BackwardScratch<A>& scratch) {
    const Band& band = bands[i];
    const int64_t at = band.level * images + band.image;
    fill_band(maps[band.level], band, rois.data() + start[at], start[at + 1] - start[at], args, data<T>(grad), scratch);
  });
}

struct Cpu {
  static void forward(const char* op, const std::vector<Tensor>& features, const Tensor& rois, const PoolArgs& args,
                      const Tensor& output) {
    dispatch(op, output.scalar_type(),
             [&](auto tag) { pool<typename decltype(tag)::type>(op, features, rois, args, output); });
  }

  static void backward(const char* op, const Tensor& grad, const Tensor& rois, const PoolArgs& args,
                       const std::vector<Tensor>& outputs, bool channels_last) {
    dispatch(op, grad.scalar_type(),
             [&](auto tag) { unpool<typename decltype(tag)::type>(op, grad, rois, args, outputs, channels_last); });
  }
};

}  // namespace
}  // namespace frdet::cpu

STABLE_TORCH_LIBRARY_IMPL(frdet, CPU, m) { frdet::RoiAlignOps<frdet::cpu::Cpu>::add_to(m); }
