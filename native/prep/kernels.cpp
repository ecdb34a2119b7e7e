#include "prep/kernels.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace coordl {
namespace {

bool runs_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2");
#else
  return false;
#endif
}

bool runs_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

const Kernels& choose() {
  struct Choice {
    const Kernels* table;
    bool runs;
  };
  const Choice choices[] = {  // the best first
      {kAvx512Kernels, runs_avx512()},
      {kAvx2Kernels, runs_avx2()},
      {kNeonKernels, true},
      {&kScalarKernels, true},
  };
  const char* asked = std::getenv("COORDL_SIMD");
  const std::string name = asked == nullptr ? "" : asked;
  for (const Choice& choice : choices) {
    if (choice.table == nullptr || !choice.runs) continue;
    if (name.empty() || name == choice.table->name) return *choice.table;
  }
  std::string message;
  for (const std::string_view part :
       {std::string_view("COORDL_SIMD="), std::string_view(name),
        std::string_view(": this CPU or this build has no such kernels; there are scalar, avx2, avx512, neon")}) {
    message += part;
  }
  throw std::runtime_error(message);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace coordl
