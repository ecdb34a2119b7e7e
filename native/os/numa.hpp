// Spreads shared memory over the machine's NUMA nodes.
#pragma once
#include <cstddef>
#include <cstdint>

namespace coordl {

// Nodes online; 1 where the kernel does not say.
int numa_nodes() noexcept;
// Pages of the range that are not there yet will come from all nodes in turn, whoever touches them
// first: every core reads a cache. Nothing happens on one node, nor where the kernel refuses.
void interleave_on_nodes(std::byte* begin, std::uint64_t bytes) noexcept;

}  // namespace coordl
