#include "fetch/registry.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <pthread.h>
#include <system_error>
#include <thread>

#include "os/limits.hpp"
#include "os/refusal.hpp"
#include "os/steps.hpp"

namespace coordl {
namespace {

constexpr int kGateWaitMs = 10'000;
constexpr std::uint64_t kLeastBytes = std::uint64_t(1) << 20;
constexpr std::uint64_t kMostBudget = std::uint64_t(1) << 44;
constexpr std::uint64_t kMostSpace = std::uint64_t(1) << 42;  // for budgets to grow into
static_assert(layout::log_for(kMostBudget, std::uint64_t(1) << 33) / layout::kLine <
              layout::kOffsetMask);

[[noreturn]] void fail(int error, const std::string& what) {
  throw Refusal(error, what);
}

// Strong, and pruned under process_mutex() by drop_core(): a Core that closed its lock file outside
// it would drop the lease of its successor in this process. Never destroyed, as leases are given
// back by an exit handler that may run late.
std::vector<std::shared_ptr<Core>>& cores() {
  static auto& all = *std::make_unique<std::vector<std::shared_ptr<Core>>>().release();
  return all;
}

// This process's Core whose lock file is the one at `path` now.
std::shared_ptr<Core> core_at(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return nullptr;
  for (const auto& core : cores()) {
    if (core->lock->same_file(info.st_dev, info.st_ino)) return core;
  }
  return nullptr;
}

std::shared_ptr<LockFile> open_lock(const std::string& path, bool create) {
  return std::make_shared<LockFile>(LockFile::open(path, create));
}

// The gate, held; or not, when `wait_ms` ran out.
class Gate {
 public:
  Gate(LockFile& lock, int wait_ms) : lock_(lock), held_(lock.lock_gate(wait_ms)) {}
  ~Gate() {
    if (held_) lock_.unlock_gate();
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  explicit operator bool() const noexcept { return held_; }

 private:
  LockFile& lock_;
  bool held_;
};

// Takes a lease, repairing what dead members left. REQUIRES the gate.
bool take_lease(Core& core) noexcept {
  const auto member = core.lock->take_lease();
  if (!member) return false;
  Members dead;
  for (std::uint32_t other = 0; other < layout::kMembers; ++other) {
    if (!core.memory.needs_repair(other)) continue;
    // Its lock is free (or was, and is ours now): its process is dead. Unless it was ours all along,
    // kept by a thread that is still admitting, see give_lease_back().
    dead[other] = other == *member ? core.admitting.load() == 0 : core.lock->take_lease(other);
  }
  if (dead.any()) core.memory.repair(dead);
  for (std::uint32_t other = 0; other < layout::kMembers; ++other) {
    if (dead[other] && other != *member) core.lock->drop_lease(other);
  }
  core.memory.enlist(*member);
  at_step("open:enlisted");
  core.member = *member;
  core.leased_generation.store(fork_generation(), std::memory_order_release);
  return true;
}

// Lets admissions of other threads end first: one copy each. One that does not end (a stopped thread)
// keeps its byte locked until the process dies, so that nobody repairs what it still writes.
void give_lease_back(Core& core) noexcept {
  core.leased_generation.store(0);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kGateWaitMs);
  while (core.admitting.load() != 0) {
    if (std::chrono::steady_clock::now() >= deadline) return;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  core.lock->drop_lease(core.member);
}

// In a forked child: the threads that were admitting are not here.
void forget_admitting() {
  for (const auto& core : cores()) core->admitting.store(0);
}

// Removes an arena file. Throws EACCES for what is another user's or no plain file: it was put in
// our place, and is not ours to remove, even as root.
void remove_arena_file(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return;
  if (info.st_uid != ::geteuid() || !S_ISREG(info.st_mode)) {
    fail(EACCES, path + " is no plain file or belongs to user " + std::to_string(info.st_uid) +
                     ", so coordl does not trust it; remove it");
  }
  ::unlink(path.c_str());
}

void unlink_files(const ArenaPaths& paths, const char* step) {
  remove_arena_file(paths.file);  // first: a lock file alone is found and reaped, see reap_one()
  at_step(step);
  ::unlink(paths.lock.c_str());
}

// Is there a finished arena that outlives its users? Also when it is another version's.
bool persists(const ArenaPaths& paths) {
  if (::access(paths.file.c_str(), F_OK) != 0) return false;
  const Descriptor file = open_ours(paths.file, O_RDONLY);
  struct {
    std::uint64_t magic;
    std::uint32_t version, persist;
  } head{};
  static_assert(sizeof head == offsetof(layout::Header, file_bytes));
  constexpr std::uint32_t first_version = 3;  // that could persist
  return ::pread(file.get(), &head, sizeof head, 0) == ssize_t(sizeof head) &&
         head.magic == layout::kMagic && head.version >= first_version && head.persist == 1;
}

void leave(Core& core) noexcept {
  if (!core.leased()) return;  // a fork that never used it: the lease is the parent's
  try {
    const Gate gate(*core.lock, kGateWaitMs);
    at_step("close:gate");
    give_lease_back(core);
    at_step("close:left");
    if (!gate || core.detached || !core.lock->is_at(core.paths.lock)) return;
    if (core.lock->other_users() == 0 && !core.memory.persists()) {
      unlink_files(core.paths, "close:unlinked");
    }
  } catch (const std::system_error&) {
    give_lease_back(core);  // no gate to be had: the next open reaps it
  }
}

void leave_all() {
  const std::lock_guard lock(process_mutex());
  for (const auto& core : cores()) leave(*core);
}

// Unlinks the arena if nobody lives in it. False when somebody does, its gate is taken or it persists.
// REQUIRES process_mutex().
bool reap_one(const ArenaPaths& paths) {
  if (core_at(paths.lock)) return false;
  const bool existed = ::access(paths.lock.c_str(), F_OK) == 0;
  const auto lock = open_lock(paths.lock, true);
  const Gate gate(*lock, 0);
  if (!gate || !lock->is_at(paths.lock) || lock->other_users() > 0) return false;
  at_step("reap:gate");
  try {
    if (persists(paths)) return false;
    unlink_files(paths, "reap:unlinked");
  } catch (...) {
    if (!existed) ::unlink(paths.lock.c_str());
    throw;
  }
  return true;
}

std::vector<std::string> reap_all() {
  std::vector<std::string> reaped;
  for (const std::string& name : arena_names()) {
    try {
      if (reap_one(ArenaPaths(name))) reaped.push_back(name);
    } catch (const std::system_error&) {  // not ours to touch, or gone meanwhile
    }
  }
  return reaped;
}

// The budget the machine allows. Throws ENOSPC when that is hardly any.
std::uint64_t allowed_budget(const ArenaPaths& paths, const MemoryLimits& limits,
                             const Request& request) {
  const Allowance allowance = memory_allowance(limits);
  const std::uint64_t overhead = layout::make_plan(0, request.expected_items).log_offset +
                                 2 * layout::kLine * request.expected_items;
  const std::uint64_t rest = allowance.bytes > overhead ? allowance.bytes - overhead : 0;
  if (rest < request.budget_bytes && rest < kLeastBytes) {
    fail(ENOSPC, "an arena of " + std::to_string(request.budget_bytes) + " bytes does not fit in " +
                     paths.directory + ": " + std::to_string(allowance.bytes) +
                     " bytes may be taken, " + std::to_string(overhead) +
                     " go to its index. " +
                     (limits.memory_bytes == kUnlimited
                          ? "Make room there, or name another directory"
                          : "Free memory, or raise the limit (see coordl doctor)"));
  }
  return std::min(rest, request.budget_bytes);
}

ArenaMemory create_memory(const ArenaPaths& paths, const Request& request) {
  const MemoryLimits limits = read_memory_limits(paths.directory);
  const std::uint64_t budget = allowed_budget(paths, limits, request);
  // Address space for any budget this machine could ever grant, so that this one can be raised; only
  // for this one where ulimit or the file system does not give as much.
  // On a disk people look at file sizes, and copy files: there a few times the budget must do.
  const std::uint64_t machine =
      std::min({limits.shm_bytes, limits.cgroup_bytes, limits.memory_bytes, kMostSpace,
                paths.on_disk ? 4 * budget : kMostSpace});
  for (const std::uint64_t capacity : {std::max(machine, budget), budget}) {
    const layout::Plan plan = layout::make_plan(capacity, request.expected_items);
    remove_arena_file(paths.file);  // left by the dead, or by one killed half-way
    try {
      SharedFile file = SharedFile::create(paths.file, plan.file_bytes);
      at_step("open:sized");
      return ArenaMemory::create(std::move(file), plan, budget, request.budget_bytes,
                                 request.place.persist, paths.directory,
                                 paths.on_disk ? paths.check : nullptr);
    } catch (const std::system_error& error) {
      remove_arena_file(paths.file);
      const int code = error.code().value();
      if (capacity == budget || (code != ENOMEM && code != EFBIG && code != EINVAL)) throw;
    }
  }
  fail(ENOMEM, "no address space for " + paths.file);  // not reached: the last attempt throws
}

ArenaMemory attach_memory(const ArenaPaths& paths, bool in_use) {
  try {
    const bool outside = paths.on_disk || persists(paths);
    return ArenaMemory::attach(SharedFile::open(paths.file), paths.directory,
                               outside ? paths.check : nullptr);
  } catch (const std::system_error& error) {
    if (error.code().value() != EPROTO) throw;
    std::string clear = "run coordl clear " + paths.name;
    if (paths.on_disk) clear += " --ssd " + paths.directory;
    fail(EPROTO, paths.file + (in_use ? " is in use" : " is kept (persist=True)") +
                     " and cannot be joined: " + error.what() +
                     (in_use ? ". End the jobs that use it, or " : ". To be rid of it, ") + clear +
                     (in_use ? " --force" : ""));
  }
}

// REQUIRES the gate.
void ask(ArenaMemory& memory, const Request& request) {
  memory.raise(request.place.raise_budget ? request.budget_bytes : 0);
  if (request.place.persist) memory.keep();
}

std::shared_ptr<Core> join_or_create(const ArenaPaths& paths, std::shared_ptr<LockFile> lock,
                                     const Request& request) {
  const bool in_use = lock->other_users() > 0 && ::access(paths.file.c_str(), F_OK) == 0;
  try {
    if (in_use || persists(paths)) {
      try {
        auto core = std::make_shared<Core>(paths, lock, attach_memory(paths, in_use));
        ask(core->memory, request);
        return core;
      } catch (const std::system_error& error) {
        // A cache on a disk that cannot be read nobody misses: it is made anew.
        if (in_use || !paths.on_disk || error.code().value() != EPROTO) throw;
      }
    }
    return std::make_shared<Core>(paths, lock, create_memory(paths, request));
  } catch (...) {
    if (lock->other_users() == 0) ::unlink(paths.lock.c_str());
    throw;
  }
}

}  // namespace

std::shared_ptr<Core> open_core(const std::string& name, Request request) {
  const ArenaPaths paths(name, request.place);
  request.place.persist |= paths.on_disk;
  if (request.budget_bytes == 0 || request.budget_bytes > kMostBudget) {
    fail(EINVAL, "a budget of " + std::to_string(request.budget_bytes) + " bytes: 1 byte to 16 TiB");
  }
  request.expected_items =
      std::clamp<std::uint64_t>(request.expected_items, 1, std::uint64_t(1) << 32);
  const std::lock_guard process(process_mutex());
  static const int registered = std::atexit(leave_all) + ::pthread_atfork(nullptr, nullptr, forget_admitting);
  static_cast<void>(registered);
  reap_all();

  // Others may unlink the lock file between our opening it and our getting its gate: then again.
  for (int attempt = 0; attempt < 1000; ++attempt) {
    auto core = core_at(paths.lock);
    const auto lock = core ? core->lock : open_lock(paths.lock, true);
    const Gate gate(*lock, kGateWaitMs);
    if (!gate) {
      fail(ETIMEDOUT, "arena " + name + ": somebody holds its gate for more than 10 s; a process "
                      "is stopped (SIGSTOP, debugger) while it opens or closes it");
    }
    if (!lock->is_at(paths.lock)) continue;
    at_step("open:gate");
    if (core) {
      ask(core->memory, request);
    } else {
      core = join_or_create(paths, lock, request);
    }
    if (!core->leased() && !take_lease(*core)) {
      fail(EUSERS, "arena " + name + " has " + std::to_string(layout::kMembers) + " users already");
    }
    at_step("open:leased");
    if (core.use_count() == 1) cores().push_back(core);
    ++core->handles;
    return core;
  }
  fail(EAGAIN, "arena " + name + " came and went too often while it was opened; try again");
}

bool ensure_lease(Core& core) noexcept {
  if (core.leased()) return true;
  if (core.detached.load(std::memory_order_relaxed)) return false;
  const std::lock_guard process(process_mutex());
  if (core.leased()) return true;
  try {
    const Gate gate(*core.lock, kGateWaitMs);
    if (!gate) return false;
    core.detached = !core.lock->is_at(core.paths.lock);
    return !core.detached && take_lease(core);
  } catch (const std::system_error&) {
    return false;
  }
}

void drop_core(std::shared_ptr<Core> core) noexcept {
  const std::lock_guard process(process_mutex());
  core.reset();
  std::erase_if(cores(), [](const auto& kept) { return kept.use_count() == 1; });
}

void close_handle(Core& core) noexcept {
  const std::lock_guard process(process_mutex());
  if (--core.handles == 0) leave(core);
}

std::uint64_t count_users(Core& core) noexcept {
  const std::lock_guard process(process_mutex());
  return core.lock->other_users() + (core.leased() ? 1 : 0);
}

std::vector<std::string> reap_arenas() {
  const std::lock_guard process(process_mutex());
  return reap_all();
}

std::vector<ArenaInfo> list_arenas(const ArenaPlace& place) {
  const std::lock_guard process(process_mutex());
  std::vector<ArenaInfo> found;
  for (const std::string& name : arena_names(place)) {
    ArenaInfo info;
    info.name = name;
    try {
      const ArenaPaths paths(name, place);
      std::uint64_t users = 0;
      if (const auto core = core_at(paths.lock)) {
        users = core->lock->other_users() + (core->leased() ? 1 : 0);
      } else if (::access(paths.lock.c_str(), F_OK) == 0) {
        users = open_lock(paths.lock, false)->other_users();
      }
      info.stats.users = users;
      found.push_back(info);  // whatever is wrong with it
      if (users == 0 && !persists(paths)) {
        found.pop_back();
        continue;
      }
      ArenaStats stats =
          ArenaMemory::attach(SharedFile::open(paths.file, false), paths.directory, nullptr).stats();
      stats.users = users;
      found.back() = {name, stats, true};
    } catch (const std::system_error&) {  // gone meanwhile, not ours, or another version's
    }
  }
  return found;
}

Verified verify_arena(const std::string& name, const ArenaPlace& place) {
  const ArenaPaths paths(name, place);
  if (::access(paths.file.c_str(), F_OK) != 0) {
    fail(ENOENT, "there is no arena " + name + " of this user in " + paths.directory);
  }
  try {
    return ArenaMemory::attach(SharedFile::open(paths.file, false), paths.directory, paths.check).verify();
  } catch (const std::system_error& error) {
    if (error.code().value() != EPROTO) throw;
    fail(EPROTO, paths.file + " cannot be verified: " + error.what());
  }
}

void clear_arena(const std::string& name, bool force, const ArenaPlace& place) {
  const ArenaPaths paths(name, place);
  const std::lock_guard process(process_mutex());
  if (::access(paths.file.c_str(), F_OK) != 0 && ::access(paths.lock.c_str(), F_OK) != 0) {
    fail(ENOENT, "there is no arena " + name + " of this user in " + paths.directory);
  }
  const auto own = core_at(paths.lock);
  const auto lock = own ? own->lock : open_lock(paths.lock, true);
  const Gate gate(*lock, kGateWaitMs);
  if (!gate) fail(ETIMEDOUT, "arena " + name + ": somebody holds its gate; try again");
  if (!lock->is_at(paths.lock)) return;  // its last user unlinked it meanwhile
  const std::uint64_t users = lock->other_users() + (own && own->leased() ? 1 : 0);
  if (users > 0 && !force) {
    fail(EBUSY, "arena " + name + " is in use by " + std::to_string(users) +
                    (users == 1 ? " process" : " processes") + ". End them, or clear it with --force: they keep what they have "
                    "mapped, and its memory is free when they end");
  }
  unlink_files(paths, "close:unlinked");
  if (own) own->detached = true;
}

}  // namespace coordl
