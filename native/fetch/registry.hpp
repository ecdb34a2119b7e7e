// The arenas this process has open, and the protocol by which files appear and disappear.
//
// One Core per arena file and process, however many Arena objects share it: POSIX record locks
// belong to the process, and closing a second descriptor of a lock file would drop them all.
// Everything here is done under process_mutex().
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fetch/arena_memory.hpp"
#include "fetch/arena_paths.hpp"
#include "os/lock_file.hpp"

namespace coordl {

struct Core {
  Core(ArenaPaths paths, std::shared_ptr<LockFile> lock, ArenaMemory memory)
      : paths(std::move(paths)), lock(std::move(lock)), memory(std::move(memory)) {}

  const ArenaPaths paths;
  const std::shared_ptr<LockFile> lock;  // GUARDED_BY process_mutex()
  ArenaMemory memory;
  std::uint32_t member = 0;                       // valid while leased
  std::atomic<std::uint64_t> leased_generation{0};  // fork_generation() it was leased in, or 0
  std::atomic<std::uint32_t> admitting{0};  // threads inside admit(); none may be when the lease ends
  std::atomic<bool> detached{false};              // cleared or lost: usable, but never to be found
  std::uint32_t handles = 0;                      // GUARDED_BY process_mutex(): open Arena objects

  bool leased() const noexcept {
    return leased_generation.load() == fork_generation();
  }
};

// What an opener asks for.
struct Request {
  std::uint64_t budget_bytes = 0, expected_items = 0;
  ArenaPlace place;
};

std::shared_ptr<Core> open_core(const std::string& name, Request request);
// Leases for this process if it has none, as after fork. False when detached.
bool ensure_lease(Core& core) noexcept;
// One handle less; the last gives the lease back and, as the last user, unlinks the arena unless it
// persists.
void close_handle(Core& core) noexcept;
// Gives the caller's reference up; the last of them unmaps the arena.
void drop_core(std::shared_ptr<Core> core) noexcept;
// Live users, this process included.
std::uint64_t count_users(Core& core) noexcept;

}  // namespace coordl
