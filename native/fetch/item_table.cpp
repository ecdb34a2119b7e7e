#include "fetch/item_table.hpp"

namespace coordl {

void ItemTable::reserve(std::size_t items) { keys_.reserve(items); }

void ItemTable::add(std::string_view path, FileIdentity identity, ItemKey key) {
  add_shard(path, identity);
  keys_.push_back(key);
  total_bytes_ += identity.size;
}

void ItemTable::add_shard(std::string_view path, FileIdentity identity) {
  characters_.append(path);
  ends_.push_back(characters_.size());
  identities_.push_back(identity);
}

void ItemTable::add_part(const Part& part, ItemKey key) {
  parts_.push_back(part);
  keys_.push_back(key);
  total_bytes_ += part.length;
}

std::string ItemTable::path(std::size_t item) const {
  const std::size_t number = file(item);
  const std::size_t start = number == 0 ? 0 : ends_[number - 1];
  return characters_.substr(start, ends_[number] - start);
}

}  // namespace coordl
