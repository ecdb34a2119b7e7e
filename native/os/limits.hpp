// How much memory this process may still take: tmpfs, memory cgroups v1 and v2, the machine.
//
// Thread safety: free functions, no state.
#pragma once
#include <cstdint>
#include <limits>
#include <string>

namespace coordl {

inline constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

struct MemoryLimits {
  std::uint64_t shm_bytes = kUnlimited;         // size of the file system of the directory
  std::uint64_t shm_free_bytes = kUnlimited;
  std::uint64_t cgroup_bytes = kUnlimited;      // limit of the tightest memory cgroup above us
  std::uint64_t cgroup_free_bytes = kUnlimited; // its limit - usage + file cache it can drop
  std::uint64_t memory_bytes = kUnlimited;      // MemTotal
  std::uint64_t memory_free_bytes = kUnlimited; // MemAvailable
};

// For files in `directory`. Limits of memory count where files are memory (tmpfs); elsewhere only the
// size of the file system, in the shm fields. What cannot be read counts as unlimited.
MemoryLimits read_memory_limits(const std::string& directory);

enum class Limit { none, shm, cgroup, memory };

struct Allowance {
  std::uint64_t bytes = 0;
  Limit limit = Limit::none;  // what binds
  int error() const noexcept;  // ENOSPC for shm, ENOMEM for the others
};

// What may be taken so that headroom stays: the larger of 256 MiB and 5 % (a quarter, where that is
// less), 5 % and at most 256 MiB of the tmpfs. `share` 0.5 asks for half of that headroom: an arena
// that was sized against all of it may grow into the rest while other things move.
Allowance memory_allowance(const MemoryLimits& limits, double share = 1.0) noexcept;

}  // namespace coordl
