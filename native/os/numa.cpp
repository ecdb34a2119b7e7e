#include "os/numa.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>

namespace coordl {
namespace {

constexpr int kMostNodes = 1024;
constexpr int kBits = 8 * sizeof(unsigned long);

// Calls see(node) for each number in a list such as "0-1,4".
template <class See>
void each_node(See see) noexcept {
  std::FILE* file = std::fopen("/sys/devices/system/node/online", "re");
  if (file == nullptr) return;
  int first = 0;
  while (std::fscanf(file, "%d", &first) == 1) {
    int last = first, next = std::fgetc(file);
    if (next == '-') {
      if (std::fscanf(file, "%d", &last) != 1) break;
      next = std::fgetc(file);
    }
    for (int node = first; node <= last && node < kMostNodes; ++node) see(node);
    if (next != ',') break;
  }
  std::fclose(file);
}

}  // namespace

int numa_nodes() noexcept {
  int count = 0;
  each_node([&](int) { ++count; });
  return count > 0 ? count : 1;
}

void interleave_on_nodes(std::byte* begin, std::uint64_t bytes) noexcept {
#ifdef SYS_mbind
  constexpr int interleave = 3;  // MPOL_INTERLEAVE; its header comes with libnuma only
  unsigned long nodes[kMostNodes / kBits] = {};
  int count = 0;
  each_node([&](int node) {
    nodes[node / kBits] |= 1ul << node % kBits;
    ++count;
  });
  if (count > 1) ::syscall(SYS_mbind, begin, bytes, interleave, nodes, kMostNodes + 1, 0);
#else
  static_cast<void>(begin);
  static_cast<void>(bytes);
#endif
}

}  // namespace coordl
