#include "fetch/item_table.hpp"

namespace coordl {

void ItemTable::reserve(std::size_t items) {
  ends_.reserve(items);
  identities_.reserve(items);
  keys_.reserve(items);
}

void ItemTable::add(std::string_view path, FileIdentity identity, ItemKey key) {
  characters_.append(path);
  ends_.push_back(characters_.size());
  identities_.push_back(identity);
  keys_.push_back(key);
  total_bytes_ += identity.size;
}

std::string ItemTable::path(std::size_t item) const {
  const std::size_t start = item == 0 ? 0 : ends_[item - 1];
  return characters_.substr(start, ends_[item] - start);
}

}  // namespace coordl
