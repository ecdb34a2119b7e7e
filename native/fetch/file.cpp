#include "fetch/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <new>
#include <thread>

#include "os/shared_file.hpp"
#include "os/steps.hpp"

namespace coordl {
namespace {

FileIdentity identity_of(const struct stat& info) {
  return {static_cast<std::uint64_t>(info.st_size),
          std::int64_t(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec};
}

int kind_error(const struct stat& info) {
  if (S_ISREG(info.st_mode)) return 0;
  return S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
}

Descriptor open_to_read(const std::string& path) {
  // O_NONBLOCK: a FIFO without a writer must not hang us. O_NOATIME is refused for files of others.
  constexpr int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
  for (int extra = O_NOATIME;;) {
    const int fd = ::open(path.c_str(), flags | extra);
    if (fd >= 0) return Descriptor(fd);
    if (errno == EPERM && extra != 0) {
      extra = 0;
    } else if (errno != EINTR) {
      return Descriptor();
    }
  }
}

// Fills `bytes` from `offset` on: how many there were, or minus errno.
std::ptrdiff_t read_at(int fd, std::uint64_t offset, std::span<std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pread(fd, bytes.data() + done, bytes.size() - done,
                              static_cast<off_t>(offset + done));
    if (n == 0) break;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    done += static_cast<std::size_t>(n);
  }
  return static_cast<std::ptrdiff_t>(done);
}

// A part, or with `whole` all of a file.
FileRead read(const std::string& path, bool whole, std::uint64_t offset, std::uint64_t length,
              std::vector<std::byte>& bytes) {
  FileRead result;
  const auto failed = [&](int error) {
    result.error = error;
    bytes.clear();
    return result;
  };
  const Descriptor fd = open_to_read(path);
  if (!fd) return failed(errno);
  struct stat before {};
  if (::fstat(fd.get(), &before) != 0) return failed(errno);
  if (const int error = kind_error(before)) return failed(error);
  result.identity = identity_of(before);
  if (whole) length = result.identity.size;
  if (offset > result.identity.size || length > result.identity.size - offset) {
    result.truncated = true;  // before memory is taken: the length may be anything
    bytes.clear();
    return result;
  }
  try {
    if (bytes.capacity() < length) std::vector<std::byte>().swap(bytes);  // else it would grow by half
    bytes.resize(length);
  } catch (const std::exception&) {
    return failed(ENOMEM);
  }
  // Of a shard just these pages: what the kernel would read ahead is another item, wanted who knows when.
  if (!whole) ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_RANDOM);
  at_step("read:begun");
  const std::ptrdiff_t found = read_at(fd.get(), offset, bytes);
  if (found < 0) return failed(static_cast<int>(-found));
  const auto done = static_cast<std::size_t>(found);
  struct stat after {};
  if (::fstat(fd.get(), &after) != 0) return failed(errno);
  result.truncated = done < bytes.size() || identity_of(after) != result.identity;
  bytes.resize(done);
  return result;
}

}  // namespace

FileRead read_file(const std::string& path, std::vector<std::byte>& bytes) {
  return read(path, true, 0, 0, bytes);
}

FileRead read_part(const std::string& path, std::uint64_t offset, std::uint64_t length,
                   std::vector<std::byte>& bytes) {
  return read(path, false, offset, length, bytes);
}

void drop_from_page_cache(const std::string& path, std::uint64_t offset,
                          std::uint64_t length) noexcept {
  const Descriptor fd = open_to_read(path);
  if (!fd) return;
  constexpr std::uint64_t page = 4096;  // the kernel's may be larger: then those at the ends stay
  const std::uint64_t begin = offset / page * page;
  if (length > 0) length = (offset + length + page - 1) / page * page - begin;
  ::posix_fadvise(fd.get(), static_cast<off_t>(begin), static_cast<off_t>(length),
                  POSIX_FADV_DONTNEED);
}

void stat_files(std::span<const std::string> paths, unsigned threads, std::span<FileStat> out) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    constexpr std::size_t batch = 64;
    for (std::size_t begin; (begin = next.fetch_add(batch)) < paths.size();) {
      for (std::size_t i = begin; i < std::min(begin + batch, paths.size()); ++i) {
        struct stat info {};
        out[i] = {};
        if (::stat(paths[i].c_str(), &info) != 0) {
          out[i].error = errno;
        } else {
          out[i] = {identity_of(info), kind_error(info)};
        }
      }
    }
  };
  std::vector<std::jthread> helpers;
  const std::size_t wanted = std::min<std::size_t>(threads, paths.size() / 256 + 1);
  for (std::size_t i = 1; i < wanted; ++i) helpers.emplace_back(work);
  work();
}

}  // namespace coordl
