#include "prep/kernels.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace coordl {
namespace {

#ifdef COORDL_EMULATE  // vectors in plain C++, which every CPU runs
constexpr bool runs_avx2() { return true; }
constexpr bool runs_avx512() { return true; }
#elif defined(__x86_64__)
bool runs_avx2() { return __builtin_cpu_supports("avx2"); }
bool runs_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#else
constexpr bool runs_avx2() { return false; }
constexpr bool runs_avx512() { return false; }
#endif

const Kernels& choose() {
  const char* asked = std::getenv("COORDL_SIMD");
  const std::string name = asked == nullptr ? "" : asked;
  for (const Kernels* table : usable_kernels()) {
    if (name.empty() || name == table->name) return *table;
  }
  std::string message;
  for (const std::string_view part :
       {std::string_view("COORDL_SIMD="), std::string_view(name),
        std::string_view(": this CPU or this build has no such kernels; scalar ones always run")}) {
    message += part;
  }
  throw std::runtime_error(message);
}

}  // namespace

std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> tables;
  if (kAvx512Kernels != nullptr && runs_avx512()) tables.push_back(kAvx512Kernels);
  if (kAvx2Kernels != nullptr && runs_avx2()) tables.push_back(kAvx2Kernels);
  if (kNeonKernels != nullptr) tables.push_back(kNeonKernels);
  tables.push_back(&kScalarKernels);
  return tables;
}

#ifdef COORDL_FUZZ
const Kernels* forced_kernels = nullptr;
#endif

const Kernels& kernels() {
#ifdef COORDL_FUZZ
  if (forced_kernels != nullptr) return *forced_kernels;
#endif
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace coordl
