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

}  // namespace

FileRead read_file(const std::string& path, std::vector<std::byte>& bytes,
                   bool keep_in_page_cache) {
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
  try {
    bytes.resize(result.identity.size);
  } catch (const std::exception&) {
    return failed(ENOMEM);
  }
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pread(fd.get(), bytes.data() + done, bytes.size() - done,
                              static_cast<off_t>(done));
    if (n == 0) break;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(errno);
    done += static_cast<std::size_t>(n);
  }
  struct stat after {};
  if (::fstat(fd.get(), &after) != 0) return failed(errno);
  result.truncated = done < bytes.size() || identity_of(after) != result.identity;
  bytes.resize(done);
  if (!keep_in_page_cache) ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
  return result;
}

void drop_from_page_cache(const std::string& path) noexcept {
  const Descriptor fd = open_to_read(path);
  if (fd) ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
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
