// Storage, the source of last resort: reads one whole file.
#pragma once
#include <cstddef>
#include <cstdint>
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
// `keep_in_page_cache` false advises the kernel to drop the pages afterwards (the arena holds them).
FileRead read_file(const std::string& path, std::vector<std::byte>& bytes);
void drop_from_page_cache(const std::string& path) noexcept;

}  // namespace coordl
