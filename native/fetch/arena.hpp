// The MinIO cache: one append-only shared-memory arena per (user, data set) on a server.
//
// Concurrency contract: every const and non-const method may be called from any thread of any
// process that has the arena open. Readers take no lock: an item, once published, never moves and
// is never evicted, so a view stays valid for the life of the Arena object it came from.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "fetch/item_key.hpp"

namespace coordl {

struct ArenaStats {
  std::uint64_t budget_bytes = 0;    // encoded bytes the arena may hold
  std::uint64_t used_bytes = 0;      // encoded bytes of the items admitted
  std::uint64_t reserved_bytes = 0;  // shared memory set aside so far, overhead included
  std::uint64_t items = 0;
  std::uint64_t users = 0;           // live processes that hold a lease
};

class Arena {
 public:
  // Opens the arena `name` of this user, or creates it with room for `budget_bytes` of encoded
  // items and about `expected_items` of them. Throws std::system_error (errno kept).
  static std::shared_ptr<Arena> open(const std::string& name, std::uint64_t budget_bytes,
                                     std::uint64_t expected_items);
  virtual ~Arena() = default;

  // The item's bytes, or nullopt. Lock-free; no system call.
  virtual std::optional<std::span<const std::byte>> find(ItemKey key) const noexcept = 0;
  // Copies the item in. False when it does not fit in what is left of the budget; true when it is
  // held now, also when another process was first.
  virtual bool admit(ItemKey key, std::span<const std::byte> bytes) noexcept = 0;
  virtual ArenaStats stats() const noexcept = 0;
};

}  // namespace coordl
