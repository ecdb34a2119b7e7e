// A named file in shared memory that is there while a process uses it: how it comes, who lives in
// it, who removes it. What is inside is its kind's business: an arena, a staging ring.
//
// One Segment per file and process, however many objects share it: POSIX record locks belong to the
// process, and closing a second descriptor of a lock file would drop them all. Everything here is
// done under process_mutex().
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "os/lock_file.hpp"

namespace coordl {

// The gate is waited for at most so long: its holder may be stopped.
inline constexpr int kGateWaitMs = 10'000;

struct SegmentPaths {
  std::string what;  // in messages: "arena train"
  std::string directory, file, lock;
};

class Segment {
 public:
  Segment(SegmentPaths paths, std::shared_ptr<LockFile> lock)
      : files(std::move(paths)), lock(std::move(lock)) {}
  virtual ~Segment() = default;
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  const SegmentPaths files;
  const std::shared_ptr<LockFile> lock;  // GUARDED_BY process_mutex()
  std::uint32_t member = 0;                         // valid while leased
  std::atomic<std::uint64_t> leased_generation{0};  // fork_generation() it was leased in, or 0
  std::atomic<bool> detached{false};  // cleared or lost: usable, but never to be found
  std::uint32_t handles = 0;          // GUARDED_BY process_mutex(): open objects over it

  bool leased() const noexcept { return leased_generation.load() == fork_generation(); }

  // This process becomes `member`: ends what dead members left. REQUIRES the gate.
  virtual void enter(std::uint32_t member) noexcept = 0;
  // Whether threads of this process write in it, so that its lease must not end.
  virtual bool busy() const noexcept = 0;
  // In a forked child: those threads are not here.
  virtual void forget_threads() noexcept = 0;
  virtual bool outlives_users() const noexcept = 0;
  // The last user leaves: nobody will look at it any more, though somebody may keep it mapped.
  virtual void abandon() noexcept {}
  virtual std::uint32_t most_members() const noexcept = 0;
};

// The gate, held; or not, when `wait_ms` ran out.
class Gate {
 public:
  Gate(LockFile& lock, int wait_ms) : lock_(lock), held_(lock.lock_gate(wait_ms)) {}
  ~Gate() {
    if (held_) lock_.unlock_gate();
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  explicit operator bool() const noexcept { return held_; }

 private:
  LockFile& lock_;
  bool held_;
};

// What an opener does about a segment, each with the gate held.
struct SegmentOpener {
  // Makes it, or takes what is there; `in_use`: others live in it.
  std::function<std::shared_ptr<Segment>(std::shared_ptr<LockFile>, bool in_use)> make;
  // Of one this process has already.
  std::function<void(Segment&)> ask;
  int gate_ms = kGateWaitMs;  // how long making it may take others
};

// The paths' segment, leased, with one handle more. Throws std::system_error: ETIMEDOUT when somebody
// holds its gate, EUSERS when there are too many members, EAGAIN, and what the opener throws.
// REQUIRES process_mutex().
std::shared_ptr<Segment> open_segment(const SegmentPaths& paths, const SegmentOpener& opener);
// This process's segment whose lock file is the one at `path` now. REQUIRES process_mutex().
std::shared_ptr<Segment> segment_at(const std::string& path);
// Leases for this process if it has none, as after fork. False when detached.
bool ensure_lease(Segment& segment) noexcept;
// One handle less; the last gives the lease back and, as the last user, unlinks it unless it outlives
// its users.
void close_handle(Segment& segment) noexcept;
// Gives the caller's reference up; the last of them unmaps it.
void drop_segment(std::shared_ptr<Segment> segment) noexcept;
// Live users, this process included.
std::uint64_t count_users(Segment& segment) noexcept;
// Live users of the one at these paths, open here or not. REQUIRES process_mutex().
std::uint64_t count_users_at(const SegmentPaths& paths);

// Unlinks it if nobody lives in it and `keep` does not say otherwise. False when somebody does, or its
// gate is taken. REQUIRES process_mutex().
bool reap_segment(const SegmentPaths& paths, const std::function<bool()>& keep);
// Unlinks it. Throws std::system_error: EBUSY when it has live users and not `force` (they keep what
// they mapped), ENOENT when there is none.
void clear_segment(const SegmentPaths& paths, bool force);
// Removes its file. Throws EACCES for what is another user's or no plain file: it was put in our place,
// and is not ours to remove, even as root.
void remove_segment_file(const std::string& path);
// What follows `prefix` in the names of a directory's files; ".lock" at the end does not count.
std::set<std::string> segment_names(const std::string& directory, const std::string& prefix);
// Is it a name that may be part of a file's? 1 to 128 of [A-Za-z0-9._-], not starting with a dot, not
// ending in ".lock".
bool is_segment_name(const std::string& name) noexcept;
// Where they are: $COORDL_SHM_DIR, else /dev/shm.
std::string segment_directory();

}  // namespace coordl
