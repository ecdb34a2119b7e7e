// The kernels with NEON.
#include "prep/kernels.hpp"

#if defined(__aarch64__) || defined(COORDL_EMULATE)
#include "prep/kernels_vector.hpp"
#include "prep/simd_neon.hpp"

namespace coordl {
static constexpr Kernels kTable = VectorKernels<Neon>::table("neon");
const Kernels* const kNeonKernels = &kTable;
}  // namespace coordl
#else
namespace coordl {
const Kernels* const kNeonKernels = nullptr;
}  // namespace coordl
#endif
