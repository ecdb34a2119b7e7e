// The items of a data set by number: path, identity, key.
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

// Where the items of a data set are and what they were when they were last looked at. Immutable.
class ItemTable {
 public:
  void reserve(std::size_t items);
  void add(std::string_view path, FileIdentity identity, ItemKey key);
  std::size_t size() const noexcept { return keys_.size(); }
  std::string path(std::size_t item) const;
  FileIdentity identity(std::size_t item) const { return identities_[item]; }
  ItemKey key(std::size_t item) const { return keys_[item]; }
  std::uint64_t total_bytes() const noexcept { return total_bytes_; }

 private:
  std::string characters_;  // one block: a million std::string would cost a million allocations
  std::vector<std::size_t> ends_;
  std::vector<FileIdentity> identities_;
  std::vector<ItemKey> keys_;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace coordl
