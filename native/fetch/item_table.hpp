// The items of a data set by number: which file or part of a shard, its identity, the item's key.
//
// Thread safety: immutable once shared; then any thread may read it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fetch/file.hpp"
#include "fetch/item_key.hpp"

namespace coordl {

// Bytes of a shard that are an item. The checksum is that of checksum({offset, length}, bytes): the
// same bytes at another place are wrong. Without one the shard is a user's: its bytes hold as long as
// it has the table's identity, and are nothing but an original.
struct Part {
  std::uint64_t offset = 0, length = 0, checksum = 0;
  std::uint32_t file = 0;
  bool summed = true;  // has a checksum
};

// Where the items of a data set are and what they were when they were last looked at. Immutable.
class ItemTable {
 public:
  void reserve(std::size_t items);
  // An item that is a whole file. A table holds such or parts, never both.
  void add(std::string_view path, FileIdentity identity, ItemKey key);
  // Shards, numbered from 0 in the order they are added, and items that are parts of them.
  void add_shard(std::string_view path, FileIdentity identity);
  void add_part(const Part& part, ItemKey key);

  std::size_t size() const noexcept { return keys_.size(); }
  // Of the item's file, which may be the shard of many.
  std::string path(std::size_t item) const;
  FileIdentity identity(std::size_t item) const { return identities_[file(item)]; }
  ItemKey key(std::size_t item) const { return keys_[item]; }
  // Null where the item is a whole file.
  const Part* part(std::size_t item) const { return parts_.empty() ? nullptr : &parts_[item]; }
  std::uint64_t bytes(std::size_t item) const {
    return parts_.empty() ? identities_[item].size : parts_[item].length;
  }
  std::uint64_t total_bytes() const noexcept { return total_bytes_; }  // of all items

 private:
  std::size_t file(std::size_t item) const { return parts_.empty() ? item : parts_[item].file; }

  std::string characters_;  // one block: a million std::string would cost a million allocations
  std::vector<std::size_t> ends_;
  std::vector<FileIdentity> identities_;
  std::vector<ItemKey> keys_;
  std::vector<Part> parts_;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace coordl
