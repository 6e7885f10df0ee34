// Helpers of every operator's host code: worded errors, tensors of the stable ABI, a choice of dtype at run time.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

namespace frdet {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The message reaches Python as a RuntimeError. torch's own macro would put the C++ file and line before it.
template <class... Words>
void check(bool condition, const Words&... words) {
  if (condition) return;
  std::ostringstream message;
  ((message << words), ...);
  throw std::runtime_error(message.str());
}

inline std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << '(';
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << ')';
  return text.str();
}

inline const char* name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Half:
      return "float16";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Bool:
      return "bool";
    default:
      return "an unsupported dtype";
  }
}

inline bool is_floating(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16 ||
         type == ScalarType::Half;
}

// The type of the arithmetic: float64 for float64, else float32.
template <class T>
struct AccOf {
  using type = float;
};
template <>
struct AccOf<double> {
  using type = double;
};
template <class T>
using Acc = typename AccOf<T>::type;

template <class T>
struct TypeTag {
  using type = T;
};

// Calls f(TypeTag<T>()) with the C++ type of `type`.
template <class F>
auto dispatch(const char* op, ScalarType type, const F& f) {
  check(is_floating(type), op, ": found ", name_of(type), ", expected float32, float64, bfloat16 or float16");
  if (type == ScalarType::Float) return f(TypeTag<float>());
  if (type == ScalarType::Double) return f(TypeTag<double>());
  if (type == ScalarType::BFloat16) return f(TypeTag<BFloat16>());
  return f(TypeTag<Half>());
}

template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <class T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

inline Tensor as_type(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

inline ScalarType acc_type(ScalarType type) { return type == ScalarType::Double ? type : ScalarType::Float; }

inline void check_same_device(const char* op, const char* a_name, const Tensor& a, const char* b_name,
                              const Tensor& b) {
  check(a.is_cuda() == b.is_cuda() && (!a.is_cuda() || a.get_device() == b.get_device()), op, ": ", a_name, " is on ",
        a.is_cuda() ? "CUDA" : "the CPU", " and ", b_name, " on ", b.is_cuda() ? "CUDA" : "the CPU",
        ", expected one device; move one of them with .to(device)");
}

inline void check_same_type(const char* op, const char* a_name, const Tensor& a, const char* b_name, const Tensor& b) {
  check(a.scalar_type() == b.scalar_type(), op, ": ", a_name, " are ", name_of(a.scalar_type()), " and ", b_name, " ",
        name_of(b.scalar_type()), ", expected one dtype");
}

}  // namespace frdet
