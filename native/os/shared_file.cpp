#include "os/shared_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "os/refusal.hpp"
#include "os/steps.hpp"

namespace coordl {
namespace {

[[noreturn]] void fail(int error, const std::string& what) {
  throw std::system_error(error, std::generic_category(), what);
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Descriptor::reset() noexcept {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

Descriptor open_ours(const std::string& path, int flags) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) {
    const int error = errno;
    if (error == ELOOP) {
      throw Refusal(error, path + " is a symbolic link, which coordl never follows here; remove it");
    }
    fail(error, "cannot open " + path);
  }
  Descriptor owner(fd);
  struct stat info {};
  if (::fstat(fd, &info) != 0) fail(errno, "cannot stat " + path);
  if (!S_ISREG(info.st_mode)) throw Refusal(EINVAL, path + " is not a plain file; remove it");
  if (info.st_uid != ::geteuid() || (info.st_mode & 077) != 0 || info.st_nlink > 1) {
    throw Refusal(EACCES, path + " belongs to user " + std::to_string(info.st_uid) +
                              " or is open to others, so coordl does not trust it; remove it");
  }
  return owner;
}

SharedFile::SharedFile(Descriptor fd, bool writable) : fd_(std::move(fd)) {
  struct stat info {};
  if (::fstat(fd_.get(), &info) != 0) fail(errno, "cannot stat a shared-memory file");
  size_ = static_cast<std::uint64_t>(info.st_size);
  if (size_ == 0) return;
  rlimit limit{};
  writes_ = ::getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
            (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= size_);
  void* at = ::mmap(nullptr, size_, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
                    fd_.get(), 0);
  if (at == MAP_FAILED) {
    fail(errno, "cannot map " + std::to_string(size_) + " bytes of shared memory; check ulimit -v");
  }
  data_ = static_cast<std::byte*>(at);
  // Advice only: huge pages where shmem_enabled grants them, no caches in core dumps.
  ::madvise(at, size_, MADV_HUGEPAGE);
  ::madvise(at, size_, MADV_DONTDUMP);
}

SharedFile SharedFile::create(const std::string& path, std::uint64_t bytes) {
  // Beyond RLIMIT_FSIZE ftruncate would not fail but kill (SIGXFSZ).
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      bytes > limit.rlim_cur) {
    throw Refusal(EFBIG, "a file of " + std::to_string(bytes) + " bytes exceeds ulimit -f");
  }
  Descriptor fd = open_ours(path, O_RDWR | O_CREAT | O_EXCL);
  at_step("open:created");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    const int error = errno;
    ::unlink(path.c_str());
    fail(error, "cannot size " + path);
  }
  try {
    return SharedFile(std::move(fd), true);
  } catch (...) {
    ::unlink(path.c_str());
    throw;
  }
}

SharedFile SharedFile::open(const std::string& path, bool writable) {
  return SharedFile(open_ours(path, writable ? O_RDWR : O_RDONLY), writable);
}

SharedFile::SharedFile(SharedFile&& other) noexcept
    : fd_(std::move(other.fd_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      writes_(other.writes_) {}

SharedFile::~SharedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void SharedFile::write(std::uint64_t offset, std::span<const std::byte> bytes) const noexcept {
  while (writes_ && !bytes.empty()) {
    const ssize_t n =
        ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;  // the mapping still works
    offset += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  if (!bytes.empty()) std::memcpy(data_ + offset, bytes.data(), bytes.size());
}

int SharedFile::set_aside(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  // In pieces: a signal undoes the whole of a call, and a profiler's timer would undo a long one
  // again and again.
  constexpr std::uint64_t piece = std::uint64_t(4) << 20;
  while (bytes > 0) {
    const std::uint64_t n = std::min(bytes, piece);
    if (::fallocate(fd_.get(), 0, static_cast<off_t>(offset), static_cast<off_t>(n)) != 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    offset += n;
    bytes -= n;
  }
  return 0;
}

bool SharedFile::give_back(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  int done = 0;
  do {
    done = ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                       static_cast<off_t>(offset), static_cast<off_t>(bytes));
  } while (done != 0 && errno == EINTR);
  return done == 0;
}

}  // namespace coordl
