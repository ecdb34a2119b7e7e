// Counter-based random numbers and the arithmetic of the draws, equal on every machine.
//
// Thread safety: pure functions.
#pragma once
#include <array>
#include <cstdint>

namespace coordl {

// Philox4x64-10: 256 random bits that depend on counter and key only.
// Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC11.
std::array<std::uint64_t, 4> philox(std::array<std::uint64_t, 4> counter,
                                    std::array<std::uint64_t, 2> key);

// exp and log of libm differ in the last bit between C libraries, and one bit can move a crop by a
// pixel. These use only operations that IEEE 754 rounds exactly, in a fixed order.
double portable_log(double x);  // x > 0, finite; error below 1e-15 relative to max(1, |log x|)
double portable_exp(double x);  // |x| < 700

}  // namespace coordl
