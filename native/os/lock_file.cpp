#include "os/lock_file.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

namespace coordl {
namespace {

constexpr off_t kGate = 0;
constexpr off_t kLeases = 16;

std::mutex mutex;
std::atomic<std::uint64_t> generation{1};

bool set_lock(int fd, short type, off_t start, off_t bytes) noexcept {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = bytes;
  int done = 0;
  do {
    done = ::fcntl(fd, F_SETLK, &lock);
  } while (done != 0 && errno == EINTR);
  return done == 0;
}

// Distinct locks others hold in [begin, end). F_GETLK names one of them; ask again on either side.
std::uint32_t count_locks(int fd, off_t begin, off_t end) noexcept {
  if (begin >= end) return 0;
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = begin;
  lock.l_len = end - begin;
  if (::fcntl(fd, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
  const off_t first = std::max(lock.l_start, begin);
  const off_t after = lock.l_len == 0 ? end : std::min(lock.l_start + lock.l_len, end);
  return 1 + count_locks(fd, begin, first) + count_locks(fd, after, end);
}

}  // namespace

std::mutex& process_mutex() {
  static std::once_flag once;
  std::call_once(once, [] {
    ::pthread_atfork([] { mutex.lock(); }, [] { mutex.unlock(); },
                     [] {
                       generation.fetch_add(1, std::memory_order_relaxed);
                       mutex.unlock();
                     });
  });
  return mutex;
}

std::uint64_t fork_generation() noexcept { return generation.load(std::memory_order_relaxed); }

LockFile LockFile::open(const std::string& path, bool create) {
  Descriptor fd = open_ours(path, O_RDWR | (create ? O_CREAT : 0));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) {
    throw std::system_error(errno, std::generic_category(), "cannot stat " + path);
  }
  return LockFile(std::move(fd), info.st_dev, info.st_ino);
}

bool LockFile::lock_gate(int wait_ms) {
  // Polled, not F_SETLKW: a stopped holder keeps its lock, so the wait needs an end.
  using clock = std::chrono::steady_clock;
  const auto deadline = clock::now() + std::chrono::milliseconds(wait_ms);
  constexpr std::chrono::microseconds longest(2000);
  for (std::chrono::microseconds pause(20);; pause = std::min(2 * pause, longest)) {
    if (set_lock(fd_.get(), F_WRLCK, kGate, 1)) return true;
    if (errno != EAGAIN && errno != EACCES) {
      throw std::system_error(errno, std::generic_category(), "cannot lock an arena's gate");
    }
    if (clock::now() >= deadline) return false;
    std::this_thread::sleep_for(pause);
  }
}

void LockFile::unlock_gate() noexcept { set_lock(fd_.get(), F_UNLCK, kGate, 1); }

bool LockFile::is_at(const std::string& path) const noexcept {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && same_file(info.st_dev, info.st_ino);
}

std::optional<std::uint32_t> LockFile::take_lease_below(std::uint32_t members) noexcept {
  for (std::uint32_t member = 0; member < members; ++member) {
    if (take_lease(member)) return member;
  }
  return std::nullopt;
}

bool LockFile::take_lease(std::uint32_t member) noexcept {
  return set_lock(fd_.get(), F_WRLCK, kLeases + member, 1);
}

void LockFile::drop_lease(std::uint32_t member) noexcept {
  set_lock(fd_.get(), F_UNLCK, kLeases + member, 1);
}

std::uint32_t LockFile::other_users() const noexcept {
  return count_locks(fd_.get(), kLeases, kLeases + kMost);
}

bool LockFile::held_by_other(std::uint32_t member) const noexcept {
  return count_locks(fd_.get(), kLeases + member, kLeases + member + 1) > 0;
}

}  // namespace coordl
