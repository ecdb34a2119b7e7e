// ArenaMemory::verify: walks the log, then the index, and checks one against the other.
#include <algorithm>
#include <string>
#include <vector>

#include "fetch/arena_memory.hpp"
#include "fetch/checksum.hpp"

namespace coordl {

using layout::atomic;

Verified ArenaMemory::verify() const {
  Verified found;
  const auto say = [&](std::uint64_t at, const std::string& what) {
    found.faults.push_back("log offset " + std::to_string(at) + ": " + what);
  };
  const std::uint64_t tail = atomic(header().tail).load(std::memory_order_acquire);
  if (!within(tail, layout::kLine)) say(tail, "the tail is beyond the memory set aside");

  // Counts follow the stages: what they are now, the log must show.
  const std::uint64_t counted = used_bytes(), given_up = sum(&layout::Member::abandoned_bytes);
  std::vector<std::uint64_t> starts;
  std::uint64_t claimed = 0, published = 0, abandoned = 0;
  const std::uint64_t end = walk([&](std::uint64_t at, std::uint64_t claim) {
    layout::Record& r = record(at);
    starts.push_back(at);
    if (atomic(r.before).load(std::memory_order_relaxed) != claimed) {
      say(at, "does not go on with the sum of what is claimed before it");
    }
    const std::uint64_t bytes = layout::claim_payload(claim);
    claimed += bytes;
    const std::uint64_t stage = atomic(r.stage).load(std::memory_order_acquire);
    if (stage == layout::abandoned) abandoned += bytes;
    if (stage != layout::published) return;
    published += bytes;
    const ItemKey key{r.key_hi, r.key_lo};
    // The first of its key, or the first that may be used: a damaged one may have come anew.
    if (find_offset(key, true) != at && find_offset(key) != at) {
      say(at, "published, but the index does not lead here");
    }
  });
  if (end < tail) say(end, "no record where one must begin; nothing after it can be walked");
  if (counted > published || given_up > abandoned) {
    found.faults.push_back("counts of " + std::to_string(counted) + " bytes held and " +
                           std::to_string(given_up) + " abandoned; the log has " +
                           std::to_string(published) + " and " + std::to_string(abandoned));
  }

  for (std::uint64_t i = 0; i <= slot_mask_; ++i) {
    const std::uint64_t slot = atomic(index_[i]).load(std::memory_order_acquire);
    if (slot == 0) continue;
    const std::uint64_t at = layout::slot_offset(slot);
    const std::string name = "index slot " + std::to_string(i);
    if (at >= end) {  // perhaps admitted since the walk began
      if (!within(at, layout::kLine)) say(at, name + " leads out of the log");
      continue;
    }
    if (!std::binary_search(starts.begin(), starts.end(), at)) {
      say(at, name + " leads to no record");
      continue;
    }
    const layout::Record& r = record(at);
    const ItemKey key{r.key_hi, r.key_lo};
    const auto bytes = payload(at);
    if (layout::slot_tag(slot) != layout::hash_key(key) >> layout::kOffsetBits) {
      say(at, "the key is not the one " + name + " was made for");
    } else if (passes(i, at) && find_offset(key) != at) {
      say(at, "the key is indexed twice");
    }
    if (!bytes || checksum(key, *bytes) != r.checksum) {
      say(at, "checksum does not match the bytes");
    } else if (!passes(i, at)) {
      say(at, "is no item that may be decoded");
    }
    found.items += 1;
    found.bytes += bytes ? bytes->size() : 0;
  }
  // Read last: the budget only grows, and what is held never passed it.
  const std::uint64_t held = held_bytes(), budget = budget_bytes();
  if (held > budget || found.bytes > budget) {
    found.faults.push_back("over budget: " + std::to_string(found.bytes) + " bytes indexed, " +
                           std::to_string(held) + " held of " + std::to_string(budget));
  }
  return found;
}

}  // namespace coordl
