// Arena objects: handles on the one Core this process has per arena (registry.hpp).
#include "fetch/arena.hpp"

#include <utility>

#include "fetch/registry.hpp"

namespace coordl {
namespace {

class Handle final : public Arena {
 public:
  explicit Handle(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  ~Handle() override {
    Handle::close();
    drop_segment(std::move(core_));
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  std::optional<std::span<const std::byte>> find(ItemKey key) const noexcept override {
    if (!ready()) return std::nullopt;
    return core_->memory.find(key);
  }

  bool seems_held(ItemKey key) const noexcept override {
    return ready() && core_->memory.seems_held(key);
  }

  bool admit(ItemKey key, std::span<const std::byte> bytes, int kind) noexcept override {
    // Without a lease nobody would repair what we leave at death: a detached arena is only read.
    if (!ready()) return false;
    // First said, then looked: leave() ends the lease first and then waits for who said so. Else
    // another process could take the lease and "repair" the record that is being written here.
    core_->admitting.fetch_add(1);
    const bool held = core_->leased() && core_->memory.admit(key, bytes, kind, core_->member);
    core_->admitting.fetch_sub(1);
    return held;
  }

  std::uint64_t room_bytes() const noexcept override { return core_->memory.room_bytes(); }
  std::uint64_t budget_bytes() const noexcept override { return core_->memory.budget_bytes(); }

  ArenaStats stats() const noexcept override {
    ArenaStats stats = core_->memory.stats();
    stats.users = count_users(*core_);
    return stats;
  }

  std::vector<std::string> verify() const override { return core_->memory.verify().faults; }
  const std::string& name() const noexcept override { return core_->paths.name; }
  bool ensure_lease() noexcept override { return coordl::ensure_lease(*core_); }

  void close() noexcept override {
    if (!closed_.exchange(true, std::memory_order_acq_rel)) close_handle(*core_);
  }

 private:
  // Three loads; after a fork, once, the child's own lease. Not again when that failed: a gate that
  // stays taken must not stop every lookup.
  bool ready() const noexcept {
    if (closed_.load(std::memory_order_relaxed)) return false;
    if (!core_->leased() && tried_in_.exchange(fork_generation()) != fork_generation()) [[unlikely]] {
      coordl::ensure_lease(*core_);
    }
    return true;
  }

  std::shared_ptr<Core> core_;
  std::atomic<bool> closed_{false};
  mutable std::atomic<std::uint64_t> tried_in_{0};
};

}  // namespace

std::shared_ptr<Arena> Arena::open(const std::string& name, std::uint64_t budget_bytes,
                                   std::uint64_t expected_items, const ArenaPlace& place) {
  auto core = open_core(name, {budget_bytes, expected_items, place});
  try {
    return std::make_shared<Handle>(core);
  } catch (...) {
    close_handle(*core);
    drop_segment(std::move(core));
    throw;
  }
}

}  // namespace coordl
