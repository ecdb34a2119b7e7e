// A file of this user in the shared-memory directory, mapped whole.
//
// Concurrency: set_aside() and give_back() may be called from many threads and processes at once.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "os/own_pages.hpp"

namespace coordl {

// A descriptor and who closes it.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  void reset() noexcept;

 private:
  int fd_ = -1;
};

// Opens `path` without following a link, close-on-exec, mode 0600, retrying EINTR. Throws
// std::system_error: EACCES when it belongs to someone else or others may open it, EINVAL when it
// is no plain file. `flags`: O_RDWR and, as wanted, O_CREAT, O_EXCL.
Descriptor open_ours(const std::string& path, int flags);

class SharedFile {
 public:
  static SharedFile create(const std::string& path, std::uint64_t bytes);  // fails if it exists
  static SharedFile open(const std::string& path, bool writable = true);
  ~SharedFile();
  SharedFile(SharedFile&& other) noexcept;
  SharedFile& operator=(SharedFile&&) = delete;
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;

  std::byte* data() const noexcept { return data_; }
  std::uint64_t size() const noexcept { return size_; }
  // Makes the kernel promise (and zero) the memory of the range. 0, or errno with nothing promised
  // beyond what was before. No SIGBUS can come from a promised range.
  int set_aside(std::uint64_t offset, std::uint64_t bytes) const noexcept;
  // Copies into a promised range. Through the kernel, not the mapping: no page fault per 4 KiB.
  void write(std::uint64_t offset, std::span<const std::byte> bytes) const noexcept;
  // The range as memory of this process alone; its data() is null when that cannot be had.
  OwnPages own_pages(std::uint64_t offset, std::size_t bytes) const noexcept {
    return OwnPages(fd_.get(), offset, bytes);
  }
  // The same for parts of the file, to be had again and again.
  std::shared_ptr<OwnWindow> own_window(std::uint64_t offset, std::size_t part_bytes,
                                        std::size_t parts) const {
    return std::make_shared<OwnWindow>(fd_.get(), offset, part_bytes, parts);
  }
  // Gives whole pages of the range back; they read as zero. False when the kernel cannot.
  bool give_back(std::uint64_t offset, std::uint64_t bytes) const noexcept;

 private:
  SharedFile(Descriptor fd, bool writable);
  Descriptor fd_;
  std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
  bool writes_ = true;  // write(2) may reach the end: no ulimit -f below it
};

}  // namespace coordl
