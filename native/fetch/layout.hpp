// The arena file, byte by byte (docs/shared-memory.md says the same in words).
//
//   [0, 4096)                      Header
//   [members_offset, +131072)      Member[1024]
//   [index_offset, +8*slots)       one 64-bit word per slot: tag, and where the record is; 0 = free
//   [log_offset, +log_bytes)       records, each 64-byte aligned: Record, payload, padding
//
// All fields are fixed-width, native byte order, and shared fields are only touched through
// std::atomic_ref. Changing anything here means a new kVersion; the first 16 bytes stay as they are
// in every version, so that each knows the others' arenas and whether they are to be kept.
#pragma once
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "fetch/item_key.hpp"

namespace coordl::layout {

inline constexpr std::uint64_t kMagic = 0x31'41'4c'44'52'4f'4f'43;  // "COORDLA1", written last
inline constexpr std::uint32_t kVersion = 3;
inline constexpr std::uint64_t kLine = 64;
inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::uint32_t kMembers = 1024;
inline constexpr std::uint64_t kMaxProbes = 512;
inline constexpr std::uint32_t kKinds = 4;  // what admit() calls them is its caller's business

struct Header {
  std::uint64_t magic;           // 0
  std::uint32_t version;         // 8
  std::uint32_t persist;         // 12  1: outlives its last user, until it is cleared
  std::uint64_t file_bytes;      // 16  length of the file and of every mapping
  std::uint64_t slots;           // 24  a power of two
  std::uint64_t members_offset;  // 32
  std::uint64_t index_offset;    // 40
  std::uint64_t log_offset;      // 48
  std::uint64_t log_bytes;       // 56  address space of the log; memory is set aside as it grows
  std::uint64_t unused_0[8];     // 64
  std::uint64_t tail;            // 128 log bytes claimed; only grows
  std::uint64_t unused_1[7];
  std::uint64_t set_aside;       // 192 log bytes the kernel has promised (fallocate); only grows
  std::uint64_t stopped;         // 200 errno that ended growth, 0 while it may go on
  std::uint64_t unused_2[6];
  std::uint64_t budget_bytes;    // 256 payload the arena may hold; only grows
  std::uint64_t asked_bytes;     // 264 the largest budget asked for so far
  std::uint64_t members;         // 272 members there ever were: all others' counts are 0
  std::uint8_t unused_3[kPage - 280];
};
static_assert(sizeof(Header) == kPage && std::is_trivially_copyable_v<Header>);
static_assert(offsetof(Header, tail) == 128 && offsetof(Header, set_aside) == 192);
static_assert(offsetof(Header, persist) == 12 && offsetof(Header, budget_bytes) == 256);

// One per process that holds a lease; which one is which byte of the lock file it has locked. Only
// that process writes it, and after its death who repairs what it left: so every count can be had
// again from the log. The arena's counts are the sums over all members.
struct Member {
  std::uint64_t in_flight;            // admissions begun and not ended; not 0 after death: repair
  std::uint64_t abandoned_bytes;      // payload of its records that lost a race or were never ended
  std::uint64_t returned_bytes;       // log bytes of those given back to the kernel
  std::uint64_t unused_0;
  std::uint64_t kind_items[kKinds];   // its records published, by kind
  std::uint64_t kind_bytes[kKinds];   // and their payload
  std::uint64_t unused_1[4];
};
static_assert(sizeof(Member) == 2 * kLine && std::is_trivially_copyable_v<Member>);

enum Stage : std::uint64_t {
  reserved = 0,   // being written, or its writer died
  published = 1,  // in the index
  abandoned = 2,  // lost a race, or repaired after its writer's death: dead space
};

struct Record {
  std::uint64_t claim;     // 0   (payload length << 16) | (member + 1); 0 = nothing here yet
  std::uint64_t stage;     // 8
  std::uint64_t key_hi;    // 16
  std::uint64_t key_lo;    // 24
  std::uint64_t checksum;  // 32  of key, length and payload
  std::uint64_t kind;      // 40
  std::uint64_t before;    // 48  payload of all records before this one; written before the claim
  std::uint64_t unused;
};
static_assert(sizeof(Record) == kLine && std::is_trivially_copyable_v<Record>);
static_assert(std::atomic_ref<std::uint64_t>::is_always_lock_free);

inline std::atomic_ref<std::uint64_t> atomic(std::uint64_t& word) {
  return std::atomic_ref<std::uint64_t>(word);
}

constexpr std::uint64_t round_up(std::uint64_t n, std::uint64_t step) {
  return (n + step - 1) / step * step;
}
constexpr std::uint64_t record_bytes(std::uint64_t payload) {
  return sizeof(Record) + round_up(payload, kLine);
}
constexpr std::uint64_t make_claim(std::uint64_t payload, std::uint32_t member) {
  return payload << 16 | (member + 1);
}
constexpr std::uint64_t claim_payload(std::uint64_t claim) { return claim >> 16; }
constexpr std::uint32_t claim_member(std::uint64_t claim) {
  return static_cast<std::uint32_t>(claim & 0xffff) - 1;
}

// A slot: high 24 bits of the key's hash, then (record offset / 64 + 1) in 40 bits (64 TiB of log).
constexpr std::uint64_t kOffsetBits = 40;
constexpr std::uint64_t kOffsetMask = (1ull << kOffsetBits) - 1;
constexpr std::uint64_t slot_offset(std::uint64_t slot) { return ((slot & kOffsetMask) - 1) * kLine; }
constexpr std::uint64_t slot_tag(std::uint64_t slot) { return slot >> kOffsetBits; }
constexpr std::uint64_t make_slot(std::uint64_t hash, std::uint64_t offset) {
  return (hash >> kOffsetBits) << kOffsetBits | (offset / kLine + 1);
}
// Keys are hashes already; mixed once more so that keys made by hand spread as well.
constexpr std::uint64_t hash_key(ItemKey key) {
  std::uint64_t h = (key.hi ^ std::rotl(key.lo, 32)) * 0x9e3779b97f4a7c15ull;
  h = (h ^ h >> 31 ^ key.lo) * 0xd6e8feb86659fd93ull;
  return h ^ h >> 32;
}

// What a log of that length has room for, whatever races and deaths cost of it.
constexpr std::uint64_t kSpare = std::uint64_t(64) << 20;
constexpr std::uint64_t log_for(std::uint64_t budget, std::uint64_t slots) {
  // Address space, not memory: twice the payload and some, as a lost race or a dead writer leaves a
  // hole of no memory behind.
  return round_up(2 * budget + 2 * kLine * slots + kSpare, kPage);
}
constexpr std::uint64_t budget_of(std::uint64_t log_bytes, std::uint64_t slots) {
  const std::uint64_t rest = 2 * kLine * slots + kSpare;
  return log_bytes > rest ? (log_bytes - rest) / 2 : 0;
}
// Memory is set aside in steps of a sixteenth of the budget, 256 KiB to 64 MiB.
constexpr std::uint64_t growth_step(std::uint64_t budget) {
  constexpr std::uint64_t least = std::uint64_t(256) << 10, most = std::uint64_t(64) << 20;
  return std::clamp(round_up(budget / 16, std::uint64_t(64) << 10), least, most);
}

// Where everything is, before the arena is created.
struct Plan {
  std::uint64_t slots = 0;
  std::uint64_t index_offset = 0, log_offset = 0, log_bytes = 0, file_bytes = 0;
};

// Room for budgets up to `capacity` and `expected_items` in half of the index.
constexpr Plan make_plan(std::uint64_t capacity, std::uint64_t expected_items) {
  Plan plan;
  plan.slots = std::bit_ceil(expected_items < 512 ? 1024 : 2 * expected_items);
  plan.index_offset = kPage + kMembers * sizeof(Member);
  plan.log_offset = round_up(plan.index_offset + 8 * plan.slots, kPage);
  plan.log_bytes = log_for(capacity, plan.slots);
  plan.file_bytes = plan.log_offset + plan.log_bytes;
  return plan;
}

}  // namespace coordl::layout
