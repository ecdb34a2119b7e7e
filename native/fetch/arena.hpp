// The MinIO cache: one append-only shared-memory arena per (user, data set) on a server.
//
// Concurrency contract: every const and non-const method may be called from any thread of any
// process that has the arena open. Readers take no lock: an item, once published, never moves and
// is never evicted, so a view stays valid for the life of the Arena object it came from.
//
// Fork: a forked child may go on using the parent's Arena objects. It takes a lease of its own on
// first use (find and admit see to it), so it keeps the arena alive when the parent is gone.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fetch/item_key.hpp"

namespace coordl {

inline constexpr int kItemKinds = 4;

struct ArenaStats {
  std::uint64_t budget_bytes = 0;    // encoded bytes the arena may hold
  std::uint64_t used_bytes = 0;      // encoded bytes of the items admitted
  std::uint64_t held_bytes = 0;      // and of those being admitted, or left so by the dead
  std::uint64_t abandoned_bytes = 0; // of copies that lost a race or were never ended: no memory
  std::uint64_t reserved_bytes = 0;  // shared memory set aside so far, overhead included
  std::uint64_t items = 0;
  std::uint64_t users = 0;           // live processes that hold a lease
  std::uint64_t asked_bytes = 0;     // the most that was asked for; more than budget_bytes: the
                                     // machine did not allow it
  std::uint64_t most_bytes = 0;      // budgets its address space has room for
  std::uint64_t index_slots = 0;     // a little more than the items its index has room for
  bool persist = false;              // outlives its last user
  std::array<std::uint64_t, kItemKinds> kind_items{}, kind_bytes{};  // of the items, by kind
  std::uint64_t damaged = 0;         // kept records this process met and did not take
  int stopped = 0;                   // errno that ended growth before the budget was full, or 0
};

// Whether an item's bytes, which came from outside, may be decoded.
using ItemCheck = bool (*)(std::span<const std::byte>) noexcept;

// Where an arena is, and what becomes of it.
struct ArenaPlace {
  bool persist = false;      // it outlives its last user, until clear_arena()
  bool raise_budget = true;  // false: one that is there is taken with the budget it has
  std::string directory;     // of a disk: it persists, and is made anew where it cannot be read; empty:
                             // shared memory, arena_directory()
  // What an arena that persists held before comes from outside: each record's checksum and then this
  // check come before its first use in a process, and what fails is never found.
  ItemCheck check = nullptr;
};

class Arena : public std::enable_shared_from_this<Arena> {
 public:
  // Opens the arena `name` of this user, or creates it with room for `budget_bytes` of encoded
  // items and about `expected_items` of them. Throws std::system_error (errno kept).
  //
  // One arena has one budget, the largest asked for so far: asking for more raises it, asking for
  // less changes nothing (see stats()). What the machine does not allow makes a smaller budget;
  // ENOSPC when under 1 MiB is left.
  // `name`: 1 to 128 of [A-Za-z0-9._-], not starting with a dot, not ending in ".lock".
  static std::shared_ptr<Arena> open(const std::string& name, std::uint64_t budget_bytes,
                                     std::uint64_t expected_items, const ArenaPlace& place = {});
  virtual ~Arena() = default;

  // The item's bytes, or nullopt. Lock-free; no system call, except on a disk, where it reads.
  virtual std::optional<std::span<const std::byte>> find(ItemKey key) const noexcept = 0;
  // Whether find() most likely finds it, from the index alone: nothing is read from a disk.
  virtual bool seems_held(ItemKey key) const noexcept = 0;
  // Copies the item in. False when it does not fit in what is left of the budget; true when it is
  // held now, also when another process was first. `kind` is only counted: in [0, kItemKinds).
  virtual bool admit(ItemKey key, std::span<const std::byte> bytes, int kind = 0) noexcept = 0;
  // What is left of the budget; 0 also when memory ended growth before it was full.
  virtual std::uint64_t room_bytes() const noexcept = 0;
  virtual std::uint64_t budget_bytes() const noexcept = 0;
  virtual ArenaStats stats() const noexcept = 0;

  // Walks log and index and re-checks every published item. One line per fault; empty when sound.
  virtual std::vector<std::string> verify() const = 0;
  virtual const std::string& name() const noexcept = 0;
  // Takes this process's lease now instead of on first use. False when the arena was cleared
  // meanwhile: what is mapped stays usable, but nobody else will find it.
  virtual bool ensure_lease() noexcept = 0;
  // Ends this object's use. The process's last one gives the lease back, and the last process
  // unlinks the arena unless it persists. Views stay readable while this object lives; find() and
  // admit() then miss.
  virtual void close() noexcept = 0;
};

// One arena of this user as seen from outside (`coordl status`).
struct ArenaInfo {
  std::string name;
  ArenaStats stats;
  bool readable = false;  // false: another version's, or not ours to read; stats.users is still right
};

// What verify() found.
struct Verified {
  std::uint64_t items = 0, bytes = 0;
  std::vector<std::string> faults;  // one line each; none: sound
};

// Arenas of this user at that place that live or persist, sorted by name. Stale ones are not in it.
std::vector<ArenaInfo> list_arenas(const ArenaPlace& place = {});
// Re-checks every item of one of them, from outside: its users notice nothing. Throws
// std::system_error: ENOENT when there is none, EPROTO when it is another version's or damaged.
Verified verify_arena(const std::string& name, const ArenaPlace& place = {});
// Unlinks those in shared memory that have no live user and do not persist; returns their names.
std::vector<std::string> reap_arenas();
// Unlinks the arena. EBUSY when it has live users and not `force` (they keep what they mapped);
// ENOENT when there is none.
void clear_arena(const std::string& name, bool force, const ArenaPlace& place = {});
// Where arenas are files: $COORDL_SHM_DIR, else /dev/shm.
std::string arena_directory();

}  // namespace coordl
