// Arenas whose memory was changed from outside, before or after they were attached: refused, or each
// item is the one admitted or a fault; no wild pointer, no endless loop.
//
// An input: one byte of flags, then patches of 16 bytes. What they change is one sound arena.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <system_error>

#include "fetch/arena_memory.hpp"
#include "fetch/checksum.hpp"
#include "fuzz/fuzz.hpp"

namespace coordl::fuzz {
namespace {

constexpr std::uint64_t kBudget = 200'000;
constexpr std::uint64_t kItems = 12;
constexpr std::uint32_t kDead = 2, kUs = 5;  // members
enum Flag : std::uint8_t { attached_first = 1, cut = 2, lengthened = 4 };

struct Patch {
  std::uint8_t region;  // header, member, slot, record header, any byte of the log
  std::uint8_t change;  // set, xor, add, set the offset and keep the tag
  std::uint16_t which;  // member, item or slot
  std::uint32_t field;
  std::uint64_t value;
};
static_assert(sizeof(Patch) == 16);

ItemKey key_of(std::uint64_t i) { return {i * 0x9e3779b97f4a7c15ull, ~i}; }
std::vector<std::byte> item_of(std::uint64_t i) {
  std::vector<std::byte> bytes(40 + i * 1733 % 9000);
  for (std::size_t b = 0; b < bytes.size(); ++b) bytes[b] = static_cast<std::byte>(i * 7 + b);
  return bytes;
}

// A sound arena in a file of its own; restored before each input.
class Arena {
 public:
  Arena() : path_("/dev/shm/coordl-fuzz-" + std::to_string(::getpid())) {
    const auto plan = layout::make_plan(kBudget, kItems);
    bytes_ = plan.file_bytes;
    {
      auto memory = ArenaMemory::create(SharedFile::create(path_, plan.file_bytes), plan, kBudget,
                                        kBudget, false, "/dev/shm", nullptr);
      memory.enlist(kUs);
      for (std::uint64_t i = 0; i < kItems; ++i) {
        HOLDS(memory.admit(key_of(i), item_of(i), int(i % 3), i % 2 ? kDead : kUs));
      }
    }
    file_ = open_ours(path_, O_RDWR);
    image_.resize(plan.log_offset + layout::growth_step(kBudget));
    HOLDS(::pread(file_.get(), image_.data(), image_.size(), 0) == ssize_t(image_.size()));
    log_ = plan.log_offset;
    index_ = plan.index_offset;
    for (std::uint64_t at = 0; records_.size() < kItems;) {
      records_.push_back(at);
      at += layout::record_bytes(item_of(records_.size() - 1).size());
    }
    for (std::uint64_t slot = 0; slot < plan.slots; ++slot) {
      if (word(index_ + 8 * slot) != 0) slots_.push_back(slot);
    }
    slots_in_all_ = plan.slots;
  }
  ~Arena() { ::unlink(path_.c_str()); }

  const std::string& path() const { return path_; }

  void restore() {
    HOLDS(::ftruncate(file_.get(), off_t(bytes_)) == 0);
    HOLDS(::pwrite(file_.get(), image_.data(), image_.size(), 0) == ssize_t(image_.size()));
    ::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(image_.size()),
                off_t(bytes_ - image_.size()));
  }
  void resize(std::uint64_t bytes) { HOLDS(::ftruncate(file_.get(), off_t(bytes)) == 0); }
  std::uint64_t bytes() const { return bytes_; }

  void apply(const Patch& patch) {
    const std::uint64_t at = place(patch);
    std::uint64_t now = word(at);
    switch (patch.change % 4) {
      case 0: now = patch.value; break;
      case 1: now ^= patch.value; break;
      case 2: now += patch.value; break;
      default: now = (now & ~layout::kOffsetMask) | (patch.value & layout::kOffsetMask);
    }
    HOLDS(::pwrite(file_.get(), &now, 8, off_t(at)) == 8);
  }

 private:
  std::uint64_t word(std::uint64_t at) const {
    std::uint64_t value = 0;
    std::memcpy(&value, image_.data() + std::min<std::uint64_t>(at, image_.size() - 8), 8);
    return value;
  }
  std::uint64_t place(const Patch& patch) const {
    switch (patch.region % 5) {
      case 0: return 8 * (patch.field % 64);
      case 1:
        return layout::kPage + patch.which % 8 * sizeof(layout::Member) +
               patch.field % 16 * 8;
      case 2:
        return index_ + 8 * (patch.field % 2 ? slots_[patch.which % slots_.size()]
                                             : patch.which % slots_in_all_);
      case 3: return log_ + records_[patch.which % records_.size()] + patch.field % 8 * 8;
      default: return log_ + patch.field % (image_.size() - log_ - 8);
    }
  }

  std::string path_;
  Descriptor file_;
  std::uint64_t bytes_ = 0, log_ = 0, index_ = 0, slots_in_all_ = 0;
  Bytes image_;
  std::vector<std::uint64_t> records_, slots_;
};

// Everything that is done with an arena.
void use(ArenaMemory& memory) {
  const auto find_all = [&](bool sound) {
    for (std::uint64_t i = 0; i < kItems + 4; ++i) {
      const auto found = memory.find(key_of(i));
      if (!found) continue;
      const auto want = item_of(i);
      const bool same = std::ranges::equal(*found, want);  // reads every byte
      HOLDS(same || !sound);
    }
  };
  const bool sound = memory.verify().faults.empty();
  find_all(sound);
  const auto stats = memory.stats();
  HOLDS(!sound || stats.held_bytes <= stats.budget_bytes);
  memory.enlist(kUs);
  for (const std::uint64_t i : {kItems, kItems + 1}) {
    const bool held = memory.admit(key_of(i), item_of(i), 1, kUs);
    HOLDS(!sound || !held || memory.find(key_of(i)));
  }
  memory.raise(2 * kBudget);
  Members dead;
  for (std::uint32_t i = 0; i < layout::kMembers; ++i) dead[i] = i != kUs && memory.needs_repair(i);
  dead[kDead] = true;
  memory.repair(dead);
  static_cast<void>(memory.admit(key_of(kItems + 2), std::vector<std::byte>(150'000), 2, kUs));
  static_cast<void>(memory.admit(key_of(kItems + 3), item_of(kItems + 3), 2, kUs));
  static_cast<void>(memory.room_bytes());
  find_all(false);
  static_cast<void>(memory.verify());
}

void put(Bytes& input, const Patch& patch) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&patch);
  input.insert(input.end(), bytes, bytes + sizeof patch);
}

Patch random_patch(Chance& chance) {
  Patch patch{};
  patch.region = static_cast<std::uint8_t>(chance.below(5));
  patch.change = static_cast<std::uint8_t>(chance.below(4));
  if (patch.region == 2 && chance.one_in(2)) patch.change = 3;
  patch.which = static_cast<std::uint16_t>(chance.below(chance.one_in(3) ? 1 << 16 : 12));
  patch.field = static_cast<std::uint32_t>(chance.below(1 << 20));
  // Words are offsets, lengths, counts and claims: near each other, near powers of two, near the end.
  switch (chance.below(6)) {
    case 0: patch.value = std::uint64_t(1) << chance.below(64); break;
    case 1: patch.value = ~std::uint64_t(0) << chance.below(64); break;
    case 2: patch.value = std::uint64_t(chance.within(-2, 2)); break;
    case 3: patch.value = std::uint64_t(chance.within(-8, 8)) * layout::kLine; break;
    case 4: patch.value = layout::make_claim(std::uint64_t(chance.below(1 << 20)), std::uint32_t(chance.below(8))); break;
    default: patch.value = chance.next();
  }
  return patch;
}

}  // namespace

std::vector<Bytes> seeds() {
  std::vector<Bytes> all;
  for (const std::uint8_t flags : {0, int(attached_first), int(cut), int(lengthened)}) {
    all.push_back({flags});
  }
  Chance chance(1);
  for (int i = 0; i < 200; ++i) {
    Bytes input{static_cast<std::uint8_t>(chance.below(2))};
    for (int n = chance.within(1, 3); n > 0; --n) put(input, random_patch(chance));
    all.push_back(std::move(input));
  }
  return all;
}

void mutate(Bytes& input, Chance& chance) {
  if (input.empty()) input.push_back(0);
  const std::size_t patches = (input.size() - 1) / sizeof(Patch);
  if (chance.one_in(8)) {
    input[0] = static_cast<std::uint8_t>(chance.one_in(9) ? chance.below(8) : chance.below(2));
  } else if (patches > 0 && chance.one_in(3)) {
    const std::size_t at = 1 + std::size_t(chance.below(patches)) * sizeof(Patch);
    input[at + std::size_t(chance.below(sizeof(Patch)))] = chance.byte();
  } else if (patches > 20) {
    input.resize(1 + sizeof(Patch) * std::size_t(chance.below(patches)));
  } else {
    put(input, random_patch(chance));
  }
}

void check(std::span<const std::uint8_t> input) {
  static Arena arena;
  if (input.empty()) return;
  arena.restore();
  const std::uint8_t flags = input[0];
  const auto apply_all = [&] {
    for (auto rest = input.subspan(1); rest.size() >= sizeof(Patch); rest = rest.subspan(sizeof(Patch))) {
      Patch patch;
      std::memcpy(&patch, rest.data(), sizeof patch);
      arena.apply(patch);
    }
  };
  if (flags & cut) arena.resize(arena.bytes() / 2);
  if (flags & lengthened) arena.resize(arena.bytes() + layout::kPage);
  if (!(flags & attached_first)) apply_all();
  std::optional<ArenaMemory> memory;
  try {
    memory.emplace(ArenaMemory::attach(SharedFile::open(arena.path()), "/dev/shm", nullptr));
  } catch (const std::system_error& error) {
    HOLDS(error.code().value() == EPROTO);
    return;
  }
  HOLDS(!(flags & (cut | lengthened)) || input.size() > sizeof(Patch));  // who lies about the length
  if (flags & attached_first) apply_all();
  use(*memory);
}

}  // namespace coordl::fuzz
