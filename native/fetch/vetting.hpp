// Records of an arena that was kept, on a disk or in memory: bytes from outside, checked once before
// their first use in a process. Read errors are a miss, not a SIGBUS, where the kernel can read ahead of a page fault
// (MADV_POPULATE_READ, Linux 5.14).
//
// Thread safety: any thread at any time; two may check the same record, with the same result.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fetch/arena.hpp"

namespace coordl {

// Reads mapped bytes from their file in one go. False when the file cannot give them.
bool read_in(std::span<const std::byte> mapped) noexcept;

class Vetting {
 public:
  Vetting(ItemCheck check, std::uint64_t slots, std::span<const std::byte> log)
      : check_(check), log_(log), found_(slots) {}

  // Whether the record at `offset`, which the slot of that number names, lies inside the first
  // `set_aside` bytes of the log, the rest being address space, and is as it was admitted. Reads it
  // from the disk the first time.
  bool passes(std::uint64_t slot, std::uint64_t offset, std::uint64_t set_aside) noexcept;
  // Records that did not pass, here.
  std::uint64_t failures() const noexcept { return failures_.load(std::memory_order_relaxed); }
  bool failed(std::uint64_t slot) const noexcept { return found_[slot].load() == kBad; }

 private:
  static constexpr std::uint8_t kUnknown = 0, kGood = 1, kBad = 2;
  bool is_sound(std::uint64_t offset, std::span<const std::byte> log) const noexcept;

  const ItemCheck check_;
  const std::span<const std::byte> log_;
  std::vector<std::atomic<std::uint8_t>> found_;  // by slot: records never move
  std::atomic<std::uint64_t> failures_{0};
};

}  // namespace coordl
