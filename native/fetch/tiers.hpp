// The cache of a data set: shared memory first, then perhaps an arena on a local disk; and which items
// they take.
//
// Both never evict. An item lives in one tier: in memory until that is full, then on the disk, which
// a later process finds again. (Two processes that meet over the last bytes of memory can leave an
// item in both, once.)
//
// Thread safety: any thread of any process, as for Arena.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "fetch/arena.hpp"

namespace coordl {

// Which items are held, as a pure function of seed and key: those whose number is at most a limit. All
// processes agree without a word, and the same items are held in every run.
std::uint64_t admission_number(std::uint64_t seed, ItemKey key) noexcept;

struct Held {
  std::span<const std::byte> bytes;
  bool on_disk = false;
};

class Tiers : public std::enable_shared_from_this<Tiers> {
 public:
  // Either may be null.
  Tiers(std::shared_ptr<Arena> memory, std::shared_ptr<Arena> disk);

  // Without waiting for a disk.
  std::optional<std::span<const std::byte>> find_in_memory(ItemKey key) const noexcept {
    return memory_ ? memory_->find(key) : std::nullopt;
  }
  // Whether the disk most likely holds it; find() then reads it.
  bool seems_on_disk(ItemKey key) const noexcept { return disk_ && disk_->seems_held(key); }
  std::optional<Held> find(ItemKey key) const noexcept;

  // From now on only items whose number is at most `limit` are admitted. Without: first come.
  void choose(std::uint64_t seed, std::uint64_t limit) noexcept;
  // Whether admit() would take that many bytes: whether the item is chosen and there is room.
  bool takes(ItemKey key, std::uint64_t bytes) const noexcept;
  // Copies the item in. True when it is held now; false when it is not chosen or does not fit.
  bool admit(ItemKey key, std::span<const std::byte> bytes, int kind) noexcept;

  std::uint64_t budget_bytes() const noexcept;  // of both

 private:
  bool chosen(ItemKey key) const noexcept;

  const std::shared_ptr<Arena> memory_, disk_;
  std::atomic<std::uint64_t> seed_{0}, limit_{~std::uint64_t(0)};
};

}  // namespace coordl
