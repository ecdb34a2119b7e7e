// Ring objects: handles on the one segment this process has per ring (os/segment.hpp).
#include "staging/ring.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <functional>
#include <system_error>
#include <utility>

#include "os/limits.hpp"
#include "os/refusal.hpp"
#include "os/segment.hpp"
#include "os/steps.hpp"
#include "staging/ring_memory.hpp"

namespace coordl {
namespace {

constexpr std::uint64_t kLeastSlots = 2;

[[noreturn]] void fail(int error, const std::string& what) { throw Refusal(error, what); }

std::string file_prefix() { return "coordl-group." + std::to_string(::geteuid()) + "."; }

SegmentPaths paths_of(const std::string& name) {
  if (!is_segment_name(name)) {
    fail(EINVAL, "bad group name '" + name + "': 1 to 128 of A-Z a-z 0-9 . _ -, no leading dot, "
                 "not ending in .lock");
  }
  SegmentPaths paths;
  paths.what = "group " + name;
  paths.directory = segment_directory();
  paths.file = paths.directory + "/" + file_prefix() + name;
  paths.lock = paths.file + ".lock";
  return paths;
}

struct RingCore final : Segment {
  RingCore(SegmentPaths paths, std::shared_ptr<LockFile> lock, RingMemory memory)
      : Segment(std::move(paths), std::move(lock)), memory(std::move(memory)) {}

  void enter(std::uint32_t number) noexcept override {
    memory.enter(number, number == member && inside.load() != 0);
  }
  bool busy() const noexcept override { return inside.load() != 0; }
  void forget_threads() noexcept override {
    inside.store(0);
    memory.forget_readers();
  }
  bool outlives_users() const noexcept override { return false; }
  void abandon() noexcept override { memory.give_back(); }
  std::uint32_t most_members() const noexcept override { return ring_layout::kMembers; }

  RingMemory memory;
  std::atomic<std::uint32_t> inside{0};  // claims and reads of this process
};

// Of a ring that nobody lives in: somebody may keep it mapped with a minibatch, which is that one's own.
void give_memory_back(const SegmentPaths& paths) noexcept {
  try {
    const SharedFile file = SharedFile::open(paths.file);
    file.give_back(0, file.size());
  } catch (const std::system_error&) {  // no file, or not ours to touch
  }
}

RingMemory create_memory(const SegmentPaths& paths, const RingShape& shape) {
  const std::uint64_t slot_bytes =
      ring_layout::make_plan(shape.sample_bytes, shape.run_samples, 1).slot_bytes;
  const std::uint64_t runs = (shape.epoch_samples + shape.run_samples - 1) / shape.run_samples;
  const std::uint64_t allowed = memory_allowance(read_memory_limits(paths.directory)).bytes;
  const std::uint64_t overhead =
      ring_layout::make_plan(shape.sample_bytes, shape.run_samples, kLeastSlots).data_offset;
  const std::uint64_t room = allowed > overhead ? allowed - overhead : 0;
  // Two epochs' runs are a window nobody falls out of who has something to share.
  const std::uint64_t slots = std::min({shape.bytes, room}) / (slot_bytes + sizeof(ring_layout::Slot));
  if (slots < kLeastSlots) {
    fail(ENOSPC, paths.what + ": two slots of " + std::to_string(slot_bytes) +
                     " bytes do not fit in the " + std::to_string(std::min(shape.bytes, room)) +
                     " bytes asked for or to be had in " + paths.directory +
                     ". Ask for more (staging=), or free memory (see coordl doctor)");
  }
  const ring_layout::Plan plan =
      ring_layout::make_plan(shape.sample_bytes, shape.run_samples,
                             std::min(slots, std::max(kLeastSlots, 2 * runs)));
  give_memory_back(paths);
  remove_segment_file(paths.file);  // left by the dead, or by one killed half-way
  try {
    SharedFile file = SharedFile::create(paths.file, plan.file_bytes);
    at_step("ring:sized");
    return RingMemory::create(std::move(file), plan, shape);
  } catch (const std::system_error&) {
    remove_segment_file(paths.file);
    throw;
  }
}

std::shared_ptr<Segment> join_or_create(const SegmentPaths& paths, std::shared_ptr<LockFile> lock,
                                        bool in_use, const RingShape& shape) {
  if (!in_use) {
    return std::make_shared<RingCore>(paths, std::move(lock), create_memory(paths, shape));
  }
  try {
    return std::make_shared<RingCore>(paths, std::move(lock),
                                      RingMemory::attach(SharedFile::open(paths.file)));
  } catch (const std::system_error& error) {
    if (error.code().value() != EPROTO) throw;
    fail(EPROTO, paths.file + " is in use and cannot be joined: " + error.what() +
                     ". End the jobs that use it, or name another group");
  }
}

// Who makes a ring has the kernel zero all of it, with the gate held: a second for some 500 MB, at worst.
int gate_ms(std::uint64_t bytes) {
  constexpr std::uint64_t bytes_per_ms = 500'000, most_ms = 600'000;
  return kGateWaitMs + static_cast<int>(std::min(bytes / bytes_per_ms, most_ms));
}

void check(const RingShape& shape) {
  constexpr std::uint64_t most = std::uint64_t(1) << 40;
  const bool good = shape.sample_bytes > 0 && shape.sample_bytes < most && shape.epoch_samples > 0 &&
                    shape.epoch_samples < most && shape.run_samples > 0 &&
                    shape.run_samples <= ring_layout::kMostRunSamples && shape.bytes < 16 * most &&
                    shape.record.size() <= ring_layout::kRecordBytes;
  if (!good) fail(EINVAL, "a ring's shape is beyond its bounds");
}

std::vector<std::string> reap_all() {
  std::vector<std::string> reaped;
  for (const std::string& name : segment_names(segment_directory(), file_prefix())) {
    try {
      const SegmentPaths paths = paths_of(name);
      const auto keep = [&paths] {
        give_memory_back(paths);
        return false;
      };
      if (reap_segment(paths, keep)) reaped.push_back(name);
    } catch (const std::system_error&) {  // not ours to touch, or gone meanwhile
    }
  }
  return reaped;
}

class Handle final : public Ring {
 public:
  explicit Handle(std::shared_ptr<RingCore> core) : core_(std::move(core)) {}
  ~Handle() override {
    Handle::close();
    drop_segment(std::move(core_));
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  const RingShape& shape() const noexcept override { return core_->memory.shape(); }
  std::uint64_t slots() const noexcept override { return core_->memory.plan().slots; }
  bool ensure_lease() noexcept override { return coordl::ensure_lease(*core_); }
  bool agree(std::uint64_t epoch, std::uint64_t digest) noexcept override {
    return core_->memory.agree(epoch, digest);
  }

  Run look(std::uint64_t run, std::uint32_t& holder) noexcept override {
    return ready() ? core_->memory.look(run, *core_->lock, holder) : Run::gone;
  }

  bool claim(std::uint64_t run) noexcept override {
    if (run >= ring_layout::kMostRuns || !enter()) return false;
    if (core_->memory.claim(run, *core_->lock)) return true;
    leave();
    return false;
  }
  std::span<std::byte> memory(std::uint64_t run) const noexcept override {
    return core_->memory.data_of(run);
  }
  void beat() noexcept override { add(&ring_layout::Member::beat, 1); }
  void publish(std::uint64_t run, std::span<const std::uint64_t> done) noexcept override {
    core_->memory.publish(run, done);
    leave();
  }
  void release(std::uint64_t run) noexcept override {
    core_->memory.release(run);
    leave();
  }

  bool read(std::uint64_t run, std::uint64_t first, std::uint64_t count, std::span<std::byte> out,
            std::vector<bool>& done) noexcept override {
    const std::uint64_t bytes = shape().sample_bytes;
    if (first + count > shape().run_samples || out.size() < count * bytes) return false;
    return show(run, [&](std::span<const std::byte> memory, const std::uint64_t* bits) {
      for (std::uint64_t i = first; i < first + count; ++i) done[i - first] = bits[i / 64] >> i % 64 & 1;
      std::memcpy(out.data(), memory.data() + first * bytes, count * bytes);
    });
  }
  bool show(std::uint64_t run, const std::function<void(std::span<const std::byte>,
                                                        const std::uint64_t*)>& see) override {
    if (!enter()) return false;
    RingMemory& memory = core_->memory;
    const bool staged = memory.enter_reading(run);
    if (staged) {
      at_step("read:entered");
      std::array<std::uint64_t, ring_layout::kMostRunSamples / 64> done;
      for (std::size_t i = 0; i < done.size(); ++i) {
        done[i] = ring_layout::atomic(memory.slot_of(run).done[i]).load(std::memory_order_relaxed);
      }
      see(memory.data_of(run), done.data());
      at_step("read:copied");
      memory.leave_reading(run);
      at_step("read:left");
    }
    leave();
    return staged;
  }

  bool hold(std::uint64_t run) noexcept override {
    if (!enter()) return false;
    const bool staged = core_->memory.enter_reading(run);
    if (staged) {
      add(&ring_layout::Member::beat, 1);
      at_step("read:entered");
    }
    leave();
    return staged;
  }
  void let_go(std::uint64_t run) noexcept override {
    if (!enter()) return;
    add(&ring_layout::Member::beat, 1);
    core_->memory.leave_reading(run);
    at_step("read:left");
    leave();
  }
  bool whole(std::uint64_t run, std::uint64_t first, std::uint64_t count) const noexcept override {
    for (std::uint64_t i = first; i < first + count; ++i) {
      std::uint64_t& bits = core_->memory.slot_of(run).done[i / 64];
      if ((ring_layout::atomic(bits).load(std::memory_order_relaxed) >> i % 64 & 1) == 0) return false;
    }
    return true;
  }
  bool wanted(std::uint64_t run) const noexcept override { return core_->memory.wanted(run); }
  std::uint64_t readers(std::uint64_t run) const noexcept override {
    const std::uint64_t self = std::uint64_t(1) << core_->memory.self();
    return ring_layout::atomic(core_->memory.slot_of(run).readers).load() & ~self;
  }
  OwnPages own_pages(std::uint64_t run, std::uint64_t from,
                     std::uint64_t count) const noexcept override {
    return core_->memory.own_pages(run, from, count);
  }

  std::uint32_t bell() const noexcept override { return std::atomic_ref(own().bell).load(); }
  void wait(std::uint32_t seen, int most_ms) const noexcept override {
    const timespec patience{most_ms / 1000, most_ms % 1000 * 1'000'000L};
    ::syscall(SYS_futex, &own().bell, FUTEX_WAIT, seen, &patience, nullptr, 0);
  }
  void ring() noexcept override { core_->memory.ring_bell(core_->memory.self()); }
  void listen(std::uint64_t run) noexcept override { core_->memory.listen(run); }

  std::uint64_t beat_of(std::uint32_t number) const noexcept override {
    ring_layout::Member& member = core_->memory.member(number % ring_layout::kMembers);
    // A successor of the number is another, whatever it has counted.
    return ring_layout::atomic(member.incarnation).load() << 48 ^ ring_layout::atomic(member.beat).load();
  }
  void count_pass(int change) noexcept override {
    if (core_->leased()) add(&ring_layout::Member::passes, static_cast<std::uint64_t>(change));
  }
  std::uint32_t cores() const noexcept override {
    std::array<std::uint64_t, ring_layout::kCoreWords> all{};
    for (std::uint32_t who = 0; who < ring_layout::kMembers; ++who) {
      ring_layout::Member& member = core_->memory.member(who);
      if (ring_layout::atomic(member.passes).load() == 0) continue;
      if (who != core_->memory.self() && !core_->lock->held_by_other(who)) continue;
      for (std::size_t i = 0; i < all.size(); ++i) {
        all[i] |= ring_layout::atomic(member.cores[i]).load(std::memory_order_relaxed);
      }
    }
    std::uint32_t count = 0;
    for (const std::uint64_t word : all) count += static_cast<std::uint32_t>(std::popcount(word));
    return count;
  }
  std::uint32_t active(std::uint64_t passes) const noexcept override {
    std::uint32_t count = 0;
    for (std::uint32_t who = 0; who < ring_layout::kMembers; ++who) {
      if (ring_layout::atomic(core_->memory.member(who).passes).load() < passes) continue;
      count += who == core_->memory.self() || core_->lock->held_by_other(who);
    }
    return count;
  }
  void at(std::uint64_t run) noexcept override {
    ring_layout::atomic(own().position).store(run, std::memory_order_relaxed);
  }
  void count(std::uint64_t prepared, std::uint64_t alone, std::uint64_t staged) noexcept override {
    add(&ring_layout::Member::prepared, prepared);
    add(&ring_layout::Member::alone, alone);
    add(&ring_layout::Member::staged, staged);
  }
  RingInfo info() const override {
    RingInfo info = core_->memory.info(core_->lock.get());
    info.users = count_users(*core_);
    return info;
  }

  void close() noexcept override {
    if (!closed_.exchange(true)) close_handle(*core_);
  }

 private:
  ring_layout::Member& own() const noexcept { return core_->memory.member(core_->memory.self()); }
  void add(std::uint64_t ring_layout::Member::* what, std::uint64_t amount) noexcept {
    ring_layout::atomic(own().*what).fetch_add(amount, std::memory_order_relaxed);
  }
  bool ready() noexcept {
    if (closed_.load(std::memory_order_relaxed)) return false;
    if (!core_->leased() && tried_in_.exchange(fork_generation()) != fork_generation()) [[unlikely]] {
      coordl::ensure_lease(*core_);
    }
    return core_->leased();
  }
  // First said, then looked: leave() of the segment ends the lease first and then waits for who said
  // so. Else a successor of our number could end what is being done here.
  bool enter() noexcept {
    if (!ready()) return false;
    core_->inside.fetch_add(1);
    if (core_->leased()) return true;
    core_->inside.fetch_sub(1);
    return false;
  }
  void leave() noexcept { core_->inside.fetch_sub(1); }

  std::shared_ptr<RingCore> core_;
  std::atomic<bool> closed_{false};
  std::atomic<std::uint64_t> tried_in_{0};
};

}  // namespace

std::shared_ptr<Ring> Ring::open(const std::string& name, const RingShape& shape) {
  const SegmentPaths paths = paths_of(name);
  check(shape);
  std::shared_ptr<RingCore> core;
  {
    const std::lock_guard process(process_mutex());
    reap_all();
    auto segment = open_segment(
        paths, {[&](std::shared_ptr<LockFile> lock, bool in_use) {
                  return join_or_create(paths, std::move(lock), in_use, shape);
                },
                [](Segment&) {}, gate_ms(shape.bytes)});
    core = std::static_pointer_cast<RingCore>(segment);  // a ring's lock file is no other kind's
  }
  try {
    return std::make_shared<Handle>(core);
  } catch (...) {
    close_handle(*core);
    drop_segment(std::move(core));
    throw;
  }
}

std::vector<RingInfo> list_rings() {
  const std::lock_guard process(process_mutex());
  std::vector<RingInfo> found;
  for (const std::string& name : segment_names(segment_directory(), file_prefix())) {
    try {
      const SegmentPaths paths = paths_of(name);
      RingInfo info;
      const std::uint64_t users = count_users_at(paths);
      if (users == 0) continue;
      info.name = name;
      info.users = users;
      found.push_back(info);  // whatever is wrong with it
      const auto own = segment_at(paths.lock);
      const std::shared_ptr<LockFile> lives =
          own ? own->lock : std::make_shared<LockFile>(LockFile::open(paths.lock, false));
      info = own ? static_cast<RingCore&>(*own).memory.info(lives.get())
                 : RingMemory::attach(SharedFile::open(paths.file, false)).info(lives.get());
      info.name = name;
      info.users = users;
      found.back() = std::move(info);
    } catch (const std::system_error&) {  // gone meanwhile, not ours, or another version's
    }
  }
  return found;
}

std::vector<std::string> reap_rings() {
  const std::lock_guard process(process_mutex());
  return reap_all();
}

void clear_ring(const std::string& name, bool force) { clear_segment(paths_of(name), force); }

}  // namespace coordl
