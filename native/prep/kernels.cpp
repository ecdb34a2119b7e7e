#include "prep/kernels.hpp"

#include <cstdlib>
#include <cstring>

namespace coordl {
namespace {

const Kernels& choose() {
  const char* asked = std::getenv("COORDL_SIMD");
  if (asked != nullptr && std::strcmp(asked, "scalar") == 0) return kScalarKernels;
#ifdef COORDL_HAS_AVX2
  if (__builtin_cpu_supports("avx2")) return kAvx2Kernels;
#endif
  return kScalarKernels;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace coordl
