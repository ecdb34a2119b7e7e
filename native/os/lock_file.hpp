// Who lives: record locks on a small file, which the kernel drops when their process dies.
//
//   byte 0          the gate: exclusive and short; serialises open, close and reaping
//   byte 16 + i     the lease of member i: exclusive, held as long as its process uses the arena
//
// POSIX record locks are not inherited by fork (a forked child cannot keep its dead parent alive),
// but drop at ANY close of the file by their process. So a process keeps exactly one LockFile per
// file (segment.hpp sees to it) and every use of one is under process_mutex().
#pragma once
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "os/shared_file.hpp"

namespace coordl {

// Guards the registry and all LockFiles of this process. Held across fork, so a child never
// inherits it locked by a thread it does not have.
std::mutex& process_mutex();
// Grows by one in every forked child: what was leased in another generation is not ours.
std::uint64_t fork_generation() noexcept;

class LockFile {
 public:
  // REQUIRES process_mutex(), as do all members but held_by_other().
  static LockFile open(const std::string& path, bool create);

  // Waits for the gate; false when `wait_ms` ran out (its holder is stopped).
  bool lock_gate(int wait_ms);
  void unlock_gate() noexcept;
  // Is the file still at its path? Only meaningful with the gate held.
  bool is_at(const std::string& path) const noexcept;
  bool same_file(std::uint64_t device, std::uint64_t inode) const noexcept {
    return device == device_ && inode == inode_;
  }

  // Takes the lowest free lease of the first `members`; nullopt when all are taken.
  std::optional<std::uint32_t> take_lease_below(std::uint32_t members) noexcept;
  bool take_lease(std::uint32_t member) noexcept;
  void drop_lease(std::uint32_t member) noexcept;
  // Other live processes that hold a lease. (Locks of this process do not show.)
  std::uint32_t other_users() const noexcept;
  // Whether another live process is that member. It only asks the kernel: callable without the mutex,
  // from any thread, while the LockFile lives.
  bool held_by_other(std::uint32_t member) const noexcept;

  static constexpr std::uint32_t kMost = 1024;  // members

 private:
  LockFile(Descriptor fd, std::uint64_t device, std::uint64_t inode)
      : fd_(std::move(fd)), device_(device), inode_(inode) {}
  Descriptor fd_;
  std::uint64_t device_ = 0;
  std::uint64_t inode_ = 0;
};

}  // namespace coordl
