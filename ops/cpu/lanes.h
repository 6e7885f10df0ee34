// Vector types of the compiler (GCC and Clang), as wide as the instruction set that this file is compiled for.
// Included by kernels.cpp alone, inside its namespace for that instruction set.

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

template <class T>
struct Lanes {
  static constexpr int kCount = kBytes / sizeof(T);
  typedef T Vec __attribute__((vector_size(kBytes)));
};
template <class T>
using Vec = typename Lanes<T>::Vec;

inline Vec<float> load(const float* from) {
  Vec<float> v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

inline Vec<double> load(const double* from) {
  Vec<double> v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <class T>
inline void store(T* to, Vec<T> v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

template <class T>
inline Vec<T> splat(T value) {
  return Vec<T>{} + value;
}

// The processor's own minimum and maximum: the second operand where either is NaN.
#if defined(__AVX512F__)
inline Vec<float> vmin(Vec<float> a, Vec<float> b) { return _mm512_min_ps(a, b); }
inline Vec<float> vmax(Vec<float> a, Vec<float> b) { return _mm512_max_ps(a, b); }
inline Vec<double> vmin(Vec<double> a, Vec<double> b) { return _mm512_min_pd(a, b); }
inline Vec<double> vmax(Vec<double> a, Vec<double> b) { return _mm512_max_pd(a, b); }
inline uint32_t above(Vec<float> a, Vec<float> b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline uint32_t above(Vec<double> a, Vec<double> b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
inline Vec<float> fused(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec<double> fused(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm512_fmadd_pd(a, b, c); }
#elif defined(__AVX2__)
inline Vec<float> vmin(Vec<float> a, Vec<float> b) { return _mm256_min_ps(a, b); }
inline Vec<float> vmax(Vec<float> a, Vec<float> b) { return _mm256_max_ps(a, b); }
inline Vec<double> vmin(Vec<double> a, Vec<double> b) { return _mm256_min_pd(a, b); }
inline Vec<double> vmax(Vec<double> a, Vec<double> b) { return _mm256_max_pd(a, b); }
inline uint32_t above(Vec<float> a, Vec<float> b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
inline uint32_t above(Vec<double> a, Vec<double> b) { return _mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GT_OQ)); }
inline Vec<float> fused(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec<double> fused(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm256_fmadd_pd(a, b, c); }
#else
template <class V>
inline V vmin(V a, V b) {
  return a < b ? a : b;
}
template <class V>
inline V vmax(V a, V b) {
  return a > b ? a : b;
}
template <class V>
inline uint32_t above(V a, V b) {
  const auto is_above = a > b;
  uint32_t bits = 0;
  for (unsigned i = 0; i < sizeof(V) / sizeof(a[0]); ++i) bits |= static_cast<uint32_t>(is_above[i] & 1) << i;
  return bits;
}
template <class V>
inline V fused(V a, V b, V c) {
  return a * b + c;
}
#endif

// 16-bit values as float32.
typedef uint16_t ShortVec __attribute__((vector_size(kBytes / 2)));
typedef uint32_t WordVec __attribute__((vector_size(kBytes)));

inline WordVec load_words(const void* from) {
  ShortVec v;
  __builtin_memcpy(&v, from, sizeof(v));
  return __builtin_convertvector(v, WordVec);
}

inline Vec<float> load(const Bf16* from) { return reinterpret_cast<Vec<float>>(load_words(from) << 16); }

#if defined(__AVX512F__)
inline Vec<float> load(const Fp16* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
#elif defined(__AVX2__)
inline Vec<float> load(const Fp16* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
#else
// The exponent is moved by a multiplication, which also gives subnormals their right value; infinity and NaN, whose
// exponent is all ones, get theirs by a second one.
inline Vec<float> load(const Fp16* from) {
  const WordVec half = load_words(from), magnitude = (half & 0x7fff) << 13;
  const Vec<float> scaled = reinterpret_cast<Vec<float>>(magnitude) * 0x1p+112f;
  const WordVec special = reinterpret_cast<WordVec>(magnitude >= (0x7c00u << 13)) & 0x7f800000u;
  const WordVec bits = reinterpret_cast<WordVec>(scaled) | special | ((half & 0x8000) << 16);
  return reinterpret_cast<Vec<float>>(bits);
}
#endif

inline float to_acc(float x) { return x; }
inline double to_acc(double x) { return x; }
inline float to_acc(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}
inline float to_acc(Fp16 x) {
  Fp16 padded[kBytes / 4] = {x};
  return load(padded)[0];
}
