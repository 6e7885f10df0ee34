// Picks the instruction set at run time, so that one library serves every processor. FRDET_ISA=baseline|avx2|avx512
// chooses a lower one, for tests and comparisons.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace frdet::cpu {

namespace baseline {
extern const Kernels table;
}
#ifdef FRDET_X86
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {

const Kernels& choose() {
#ifdef FRDET_X86
  const char* asked = std::getenv("FRDET_ISA");
  const bool any = !asked || !*asked;
  __builtin_cpu_init();
  const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && (any || !std::strcmp(asked, "avx512"))) return avx512::table;
  if (has_avx2 && (any || !std::strcmp(asked, "avx2") || !std::strcmp(asked, "avx512"))) return avx2::table;
#endif
  return baseline::table;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace frdet::cpu
