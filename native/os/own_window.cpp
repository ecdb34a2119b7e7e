#include "os/own_window.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>

namespace coordl {
namespace {

constexpr std::size_t kPage = 4096;
// Linux's Documentation/admin-guide/mm/pagemap.rst; a user may read these of its own pages.
constexpr std::uint64_t kPresent = std::uint64_t(1) << 63, kSwapped = std::uint64_t(1) << 62;
constexpr std::uint64_t kOfFile = std::uint64_t(1) << 61;

bool is_copy(std::uint64_t flags) {
  return (flags & (kPresent | kSwapped)) != 0 && (flags & kOfFile) == 0;
}

// False when the kernel does not say.
bool read_flags(const std::byte* at, std::vector<std::uint64_t>& flags) noexcept {
  const int fd = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const std::size_t bytes = flags.size() * sizeof flags[0];
  const auto from = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(at) / kPage * sizeof flags[0]);
  const ssize_t got = ::pread(fd, flags.data(), bytes, from);
  ::close(fd);
  return got == static_cast<ssize_t>(bytes);
}

}  // namespace

OwnWindow::OwnWindow(int fd, std::uint64_t offset, std::size_t part_bytes, std::size_t parts)
    : fd_(fd),
      offset_(offset),
      part_bytes_(part_bytes),
      pid_(::getpid()),
      parts_(parts),
      flags_(part_bytes / kPage) {}

OwnWindow::~OwnWindow() {
  if (base_ != nullptr) ::munmap(base_, part_bytes_ * parts_.size());
}

// With the mutex held.
bool OwnWindow::map() noexcept {
  if (tried_) return base_ != nullptr;
  tried_ = true;
  const std::size_t bytes = part_bytes_ * parts_.size();
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd_,
                    static_cast<off_t>(offset_));
  if (at == MAP_FAILED) return false;
  // Does this kernel tell copies from the file's own? Without an answer they would stay.
  auto* page = static_cast<unsigned char*>(at);
  std::vector<std::uint64_t> flags(1);
  __atomic_load_n(page, __ATOMIC_RELAXED);
  bool tells = read_flags(static_cast<std::byte*>(at), flags) && (flags[0] & kPresent) != 0 &&
               !is_copy(flags[0]);
  __atomic_fetch_or(page, 0, __ATOMIC_RELAXED);
  tells = tells && read_flags(static_cast<std::byte*>(at), flags) && is_copy(flags[0]);
  tells = tells && ::madvise(at, kPage, MADV_DONTNEED) == 0;
  if (!tells) {
    ::munmap(at, bytes);
    return false;
  }
  base_ = static_cast<std::byte*>(at);
  return true;
}

bool OwnWindow::may_give(const Part& part, std::uint64_t tag, Range wanted) const noexcept {
  if (part.users == 0) return true;
  return part.tag == tag && std::ranges::none_of(part.given, [&](const Range& each) {
           return wanted.from < each.end && each.from < wanted.end;
         });
}

std::byte* OwnWindow::take(std::uint64_t from, std::size_t bytes, std::uint64_t tag) noexcept try {
  if (::getpid() != pid_) return nullptr;
  const std::lock_guard lock(mutex_);
  if (!map()) return nullptr;
  const Range wanted{from, from + bytes};
  const std::size_t first = from / part_bytes_, end = (wanted.end - 1) / part_bytes_ + 1;
  for (std::size_t i = first; i < end; ++i) {
    if (!may_give(parts_[i], tag + (i - first), wanted)) return nullptr;
    // Locked memory (mlock, mlockall) is copied by itself and keeps its copies.
    if (parts_[i].users == 0 && !drop_copies(i)) return nullptr;
    parts_[i].given.reserve(parts_[i].given.size() + 1);
  }
  for (std::size_t i = first; i < end; ++i) {
    parts_[i].tag = tag + (i - first);
    parts_[i].given.push_back(wanted);
    ++parts_[i].users;
  }
  return base_ + from / kPage * kPage;
} catch (const std::bad_alloc&) {
  return nullptr;
}

void OwnWindow::give_back(const std::byte* base, std::size_t bytes) noexcept {
  if (::getpid() != pid_) return;  // a copy of the parent's; its mutex may be held for ever
  const std::lock_guard lock(mutex_);
  const auto from = static_cast<std::size_t>(base - base_);
  const std::size_t first = from / part_bytes_, end = (from + bytes - 1) / part_bytes_ + 1;
  for (std::size_t i = first; i < end; ++i) {
    if (--parts_[i].users > 0) continue;
    parts_[i].given.clear();
    drop_copies(i);
  }
}

bool OwnWindow::drop_copies(std::size_t part) noexcept {
  std::byte* const at = base_ + part * part_bytes_;
  if (!read_flags(at, flags_)) return false;
  bool dropped = false;
  for (std::size_t page = 0; page < flags_.size();) {
    std::size_t end = page;
    while (end < flags_.size() && is_copy(flags_[end])) ++end;
    if (end > page) {
      dropped = true;
      if (::madvise(at + page * kPage, (end - page) * kPage, MADV_DONTNEED) != 0) return false;
    }
    page = end + 1;
  }
  return !dropped || (read_flags(at, flags_) && std::ranges::none_of(flags_, is_copy));
}

}  // namespace coordl
