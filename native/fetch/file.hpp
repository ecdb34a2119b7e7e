// Storage, the source of last resort: reads one whole file, or a part of a shard.
//
// Thread safety: free functions, no state.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace coordl {

struct FileIdentity {
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

struct FileRead {
  int error = 0;            // errno, 0 when the file was read whole
  bool truncated = false;   // the file ended before its own size, or changed while it was read
  FileIdentity identity;    // of what was read
};

// Reads the file into `bytes` (resized). Never throws for a bad file: the caller names index and path.
// A directory is EISDIR, anything else that is no plain file EINVAL; never blocks on a FIFO.
FileRead read_file(const std::string& path, std::vector<std::byte>& bytes);
// The same for `length` bytes from `offset` on; `truncated` also where the file ends before them.
// `identity` is the whole file's.
FileRead read_part(const std::string& path, std::uint64_t offset, std::uint64_t length,
                   std::vector<std::byte>& bytes);
// Of a part; with length 0 all from `offset` on. The pages a part shares with its neighbours go too: a
// shard that is held whole must leave none, and a neighbour that is not has at most two to read again.
void drop_from_page_cache(const std::string& path, std::uint64_t offset = 0,
                          std::uint64_t length = 0) noexcept;

struct FileStat {
  FileIdentity identity;
  int error = 0;  // errno; EISDIR or EINVAL for what is no plain file
};

// Identities of many files, by `threads` threads (at least 1). `out` is as long as `paths`.
void stat_files(std::span<const std::string> paths, unsigned threads, std::span<FileStat> out);

}  // namespace coordl
