// The kernels with AVX2.
#include "prep/kernels.hpp"

// CMakeLists.txt sets the flag for this file alone, where the compiler has it.
#if defined(__AVX2__) || defined(COORDL_EMULATE)
#include "prep/kernels_vector.hpp"
#include "prep/simd_avx2.hpp"

namespace coordl {
static constexpr Kernels kTable = VectorKernels<Avx2>::table("avx2");
const Kernels* const kAvx2Kernels = &kTable;
}  // namespace coordl
#else
namespace coordl {
const Kernels* const kAvx2Kernels = nullptr;
}  // namespace coordl
#endif
