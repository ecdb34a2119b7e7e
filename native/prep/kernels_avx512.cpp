// The kernels with AVX-512.
#include "prep/kernels.hpp"

#if (defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)) || defined(COORDL_EMULATE)
#include "prep/kernels_vector.hpp"
#include "prep/simd_avx512.hpp"

namespace coordl {
static constexpr Kernels kTable = VectorKernels<Avx512>::table("avx512");
const Kernels* const kAvx512Kernels = &kTable;
}  // namespace coordl
#else
namespace coordl {
const Kernels* const kAvx512Kernels = nullptr;
}  // namespace coordl
#endif
