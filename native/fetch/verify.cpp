// ArenaMemory::verify: walks the log, then the index, and checks one against the other.
#include <algorithm>
#include <string>
#include <unordered_set>
#include <vector>

#include "fetch/arena_memory.hpp"
#include "fetch/checksum.hpp"

namespace coordl {

using layout::atomic;

std::vector<std::string> ArenaMemory::verify() const {
  std::vector<std::string> faults;
  layout::Header& h = header();
  const std::uint64_t tail = atomic(h.tail).load(std::memory_order_acquire);
  const std::uint64_t set_aside = atomic(h.set_aside).load(std::memory_order_acquire);
  const auto say = [&](std::uint64_t at, const std::string& what) {
    faults.push_back("log offset " + std::to_string(at) + ": " + what);
  };
  if (tail > set_aside) say(tail, "the tail is beyond the memory set aside");

  std::vector<std::uint64_t> starts;
  for (std::uint64_t at = 0; at < std::min(tail, set_aside);) {
    const std::uint64_t claim = atomic(record(at).claim).load(std::memory_order_acquire);
    const std::uint64_t size = layout::record_bytes(layout::claim_payload(claim));
    if (claim == 0 || size > tail - at) {
      say(at, "no record where one must begin; nothing after it can be walked");
      break;
    }
    starts.push_back(at);
    if (atomic(record(at).stage).load(std::memory_order_acquire) == layout::published &&
        find_offset({record(at).key_hi, record(at).key_lo}) != at) {
      say(at, "published, but the index does not lead here");
    }
    at += size;
  }

  struct Hash {
    std::size_t operator()(const ItemKey& key) const { return layout::hash_key(key); }
  };
  std::unordered_set<ItemKey, Hash> keys;
  std::uint64_t indexed = 0;
  for (std::uint64_t i = 0; i <= slot_mask_; ++i) {
    const std::uint64_t slot = atomic(index_[i]).load(std::memory_order_acquire);
    if (slot == 0) continue;
    const std::uint64_t at = layout::slot_offset(slot);
    if (at >= tail) {  // since the walk began; impossible offsets show in the next verify
      if (at >= h.log_bytes) say(at, "index slot " + std::to_string(i) + " leads out of the log");
      continue;
    }
    if (!std::binary_search(starts.begin(), starts.end(), at)) {
      say(at, "index slot " + std::to_string(i) + " leads to no record");
      continue;
    }
    const layout::Record& r = record(at);
    const ItemKey key{r.key_hi, r.key_lo};
    if (layout::slot_tag(slot) != layout::hash_key(key) >> layout::kOffsetBits) {
      say(at, "the key is not the one index slot " + std::to_string(i) + " was made for");
    }
    if (!keys.insert(key).second) say(at, "the key is indexed twice");
    if (checksum(key, payload(at)) != r.checksum) say(at, "checksum does not match the bytes");
    indexed += payload(at).size();
  }
  const std::uint64_t used = atomic(h.used_bytes).load(std::memory_order_acquire);
  const std::uint64_t held = atomic(h.held_bytes).load(std::memory_order_acquire);
  if (used > h.budget_bytes || held > h.budget_bytes || indexed > h.budget_bytes) {
    faults.push_back("over budget: " + std::to_string(indexed) + " bytes indexed, " +
                     std::to_string(used) + " counted, " + std::to_string(held) + " held of " +
                     std::to_string(h.budget_bytes));
  }
  return faults;
}

}  // namespace coordl
