#include "os/segment.hpp"

#include <dirent.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "os/refusal.hpp"
#include "os/steps.hpp"

namespace coordl {
namespace {

constexpr std::string_view kLockSuffix = ".lock";

[[noreturn]] void fail(int error, const std::string& what) { throw Refusal(error, what); }

// Strong, and pruned under process_mutex() by drop_segment(): a Segment that closed its lock file
// outside it would drop the lease of its successor in this process. Never destroyed, as leases are
// given back by an exit handler that may run late.
std::vector<std::shared_ptr<Segment>>& segments() {
  static auto& all = *std::make_unique<std::vector<std::shared_ptr<Segment>>>().release();
  return all;
}

std::shared_ptr<LockFile> open_lock(const std::string& path, bool create) {
  return std::make_shared<LockFile>(LockFile::open(path, create));
}

// REQUIRES the gate.
bool take_lease(Segment& segment) noexcept {
  const auto member = segment.lock->take_lease_below(segment.most_members());
  if (!member) return false;
  segment.enter(*member);
  segment.member = *member;
  segment.leased_generation.store(fork_generation(), std::memory_order_release);
  return true;
}

// Lets writes of other threads end first: one copy each. One that does not end (a stopped thread)
// keeps its byte locked until the process dies, so that nobody repairs what it still writes.
void give_lease_back(Segment& segment) noexcept {
  segment.leased_generation.store(0);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kGateWaitMs);
  while (segment.busy()) {
    if (std::chrono::steady_clock::now() >= deadline) return;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  segment.lock->drop_lease(segment.member);
}

void forget_all_threads() {
  for (const auto& segment : segments()) segment->forget_threads();
}

void unlink_files(const SegmentPaths& paths, const char* step) {
  remove_segment_file(paths.file);  // first: a lock file alone is found and reaped, see reap_segment()
  at_step(step);
  ::unlink(paths.lock.c_str());
}

void leave(Segment& segment) noexcept {
  if (!segment.leased()) return;  // a fork that never used it: the lease is the parent's
  try {
    const Gate gate(*segment.lock, kGateWaitMs);
    at_step("close:gate");
    give_lease_back(segment);
    at_step("close:left");
    if (!gate || segment.detached || !segment.lock->is_at(segment.files.lock)) return;
    if (segment.lock->other_users() == 0 && !segment.outlives_users()) {
      segment.abandon();
      unlink_files(segment.files, "close:unlinked");
    }
  } catch (const std::system_error&) {
    give_lease_back(segment);  // no gate to be had: the next open reaps it
  }
}

void leave_all() {
  const std::lock_guard lock(process_mutex());
  for (const auto& segment : segments()) leave(*segment);
}

}  // namespace

std::shared_ptr<Segment> segment_at(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return nullptr;
  for (const auto& segment : segments()) {
    if (segment->lock->same_file(info.st_dev, info.st_ino)) return segment;
  }
  return nullptr;
}

std::shared_ptr<Segment> open_segment(const SegmentPaths& paths, const SegmentOpener& opener) {
  static const int registered =
      std::atexit(leave_all) + ::pthread_atfork(nullptr, nullptr, forget_all_threads);
  static_cast<void>(registered);
  // Others may unlink the lock file between our opening it and our getting its gate: then again.
  for (int attempt = 0; attempt < 1000; ++attempt) {
    auto segment = segment_at(paths.lock);
    const auto lock = segment ? segment->lock : open_lock(paths.lock, true);
    const Gate gate(*lock, opener.gate_ms);
    if (!gate) {
      fail(ETIMEDOUT, paths.what + ": somebody holds its gate for more than " +
                          std::to_string(opener.gate_ms / 1000) + " s; a process "
                          "is stopped (SIGSTOP, debugger) while it opens or closes it");
    }
    if (!lock->is_at(paths.lock)) continue;
    at_step("open:gate");
    if (segment) {
      opener.ask(*segment);
    } else {
      const bool in_use = lock->other_users() > 0 && ::access(paths.file.c_str(), F_OK) == 0;
      try {
        segment = opener.make(lock, in_use);
      } catch (...) {
        if (lock->other_users() == 0) ::unlink(paths.lock.c_str());
        throw;
      }
    }
    if (!segment->leased() && !take_lease(*segment)) {
      fail(EUSERS, paths.what + " has " + std::to_string(segment->most_members()) + " users already");
    }
    at_step("open:leased");
    if (segment.use_count() == 1) segments().push_back(segment);
    ++segment->handles;
    return segment;
  }
  fail(EAGAIN, paths.what + " came and went too often while it was opened; try again");
}

bool ensure_lease(Segment& segment) noexcept {
  if (segment.leased()) return true;
  if (segment.detached.load(std::memory_order_relaxed)) return false;
  const std::lock_guard process(process_mutex());
  if (segment.leased()) return true;
  try {
    const Gate gate(*segment.lock, kGateWaitMs);
    if (!gate) return false;
    segment.detached = !segment.lock->is_at(segment.files.lock);
    return !segment.detached && take_lease(segment);
  } catch (const std::system_error&) {
    return false;
  }
}

void close_handle(Segment& segment) noexcept {
  const std::lock_guard process(process_mutex());
  if (--segment.handles == 0) leave(segment);
}

void drop_segment(std::shared_ptr<Segment> segment) noexcept {
  const std::lock_guard process(process_mutex());
  segment.reset();
  std::erase_if(segments(), [](const auto& kept) { return kept.use_count() == 1; });
}

std::uint64_t count_users(Segment& segment) noexcept {
  const std::lock_guard process(process_mutex());
  return segment.lock->other_users() + (segment.leased() ? 1 : 0);
}

std::uint64_t count_users_at(const SegmentPaths& paths) {
  if (const auto own = segment_at(paths.lock)) {
    return own->lock->other_users() + (own->leased() ? 1 : 0);
  }
  if (::access(paths.lock.c_str(), F_OK) != 0) return 0;
  return open_lock(paths.lock, false)->other_users();
}

bool reap_segment(const SegmentPaths& paths, const std::function<bool()>& keep) {
  if (segment_at(paths.lock)) return false;
  const bool existed = ::access(paths.lock.c_str(), F_OK) == 0;
  const auto lock = open_lock(paths.lock, true);
  const Gate gate(*lock, 0);
  if (!gate || !lock->is_at(paths.lock) || lock->other_users() > 0) return false;
  at_step("reap:gate");
  try {
    if (keep()) return false;
    unlink_files(paths, "reap:unlinked");
  } catch (...) {
    if (!existed) ::unlink(paths.lock.c_str());
    throw;
  }
  return true;
}

void clear_segment(const SegmentPaths& paths, bool force) {
  const std::lock_guard process(process_mutex());
  if (::access(paths.file.c_str(), F_OK) != 0 && ::access(paths.lock.c_str(), F_OK) != 0) {
    fail(ENOENT, "there is no " + paths.what + " of this user in " + paths.directory);
  }
  const auto own = segment_at(paths.lock);
  const auto lock = own ? own->lock : open_lock(paths.lock, true);
  const Gate gate(*lock, kGateWaitMs);
  if (!gate) fail(ETIMEDOUT, paths.what + ": somebody holds its gate; try again");
  if (!lock->is_at(paths.lock)) return;  // its last user unlinked it meanwhile
  const std::uint64_t users = lock->other_users() + (own && own->leased() ? 1 : 0);
  if (users > 0 && !force) {
    fail(EBUSY, paths.what + " is in use by " + std::to_string(users) +
                    (users == 1 ? " process" : " processes") +
                    ". End them, or clear it with --force: they keep what they have "
                    "mapped, and its memory is free when they end");
  }
  unlink_files(paths, "close:unlinked");
  if (own) own->detached = true;
}

void remove_segment_file(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return;
  if (info.st_uid != ::geteuid() || !S_ISREG(info.st_mode)) {
    fail(EACCES, path + " is no plain file or belongs to user " + std::to_string(info.st_uid) +
                     ", so coordl does not trust it; remove it");
  }
  ::unlink(path.c_str());
}

std::set<std::string> segment_names(const std::string& directory, const std::string& prefix) {
  std::set<std::string> names;
  DIR* opened = ::opendir(directory.c_str());
  if (opened == nullptr) return names;
  while (const dirent* entry = ::readdir(opened)) {
    std::string name = entry->d_name;
    if (!name.starts_with(prefix)) continue;
    name = name.substr(prefix.size());
    if (name.ends_with(kLockSuffix)) name.resize(name.size() - kLockSuffix.size());
    names.insert(name);
  }
  ::closedir(opened);
  return names;
}

bool is_segment_name(const std::string& name) noexcept {
  const auto allowed = [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '.' || c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= 128 && name[0] != '.' && !name.ends_with(kLockSuffix) &&
         std::all_of(name.begin(), name.end(), allowed);
}

std::string segment_directory() {
  const char* chosen = std::getenv("COORDL_SHM_DIR");
  return chosen != nullptr && *chosen != '\0' ? chosen : "/dev/shm";
}

}  // namespace coordl
