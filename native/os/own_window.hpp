// A shared file's parts as this process's own memory, mapped once for all of its life.
//
// A private mapping that is made for each use costs the kernel more than some bytes of it are worth:
// a page table's entry for every page, made and unmade. This one is made once and keeps its entries.
// What was written to in it is the process's own copy, which would hide what the file holds next: so
// when the last user of a part is gone, its copies (the kernel tells which they are) are dropped.
//
// A part has one content at a time, said by a tag: while users of another tag have it, it cannot be
// had, and whoever asks makes a mapping of its own (OwnPages). Nor can what somebody was given already
// since the part was last nobody's: two users' memory must not be the same.
//
// Thread safety: all of it from any thread. In a forked child nothing can be had.
#pragma once
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace coordl {

class OwnWindow {
 public:
  // Of `parts` parts of `part_bytes` (a multiple of the page size) each, from `offset` on. Nothing is
  // mapped before it is asked for; `fd` must be open while take() may be called.
  OwnWindow(int fd, std::uint64_t offset, std::size_t part_bytes, std::size_t parts);
  ~OwnWindow();
  OwnWindow(const OwnWindow&) = delete;
  OwnWindow& operator=(const OwnWindow&) = delete;

  // The page that byte `from` is in, of a range that is the caller's until give_back(). The part it
  // begins in has `tag`, the next one tag + 1 and so on. Null when it cannot be had.
  std::byte* take(std::uint64_t from, std::size_t bytes, std::uint64_t tag) noexcept;
  void give_back(const std::byte* base, std::size_t bytes) noexcept;

 private:
  struct Range {
    std::uint64_t from, end;
  };
  struct Part {
    std::uint64_t tag = 0;
    std::uint32_t users = 0;
    std::vector<Range> given;  // since it was last nobody's
  };
  bool map() noexcept;
  bool may_give(const Part& part, std::uint64_t tag, Range wanted) const noexcept;
  // Takes the process's copies out of a part. False when some are left.
  bool drop_copies(std::size_t part) noexcept;

  const int fd_;
  const std::uint64_t offset_;
  const std::size_t part_bytes_;
  const pid_t pid_;
  std::mutex mutex_;
  std::vector<Part> parts_;           // guarded by mutex_, as is:
  std::vector<std::uint64_t> flags_;  // of a part's pages
  bool tried_ = false;
  std::byte* base_ = nullptr;  // written once, by the first to take
};

}  // namespace coordl
