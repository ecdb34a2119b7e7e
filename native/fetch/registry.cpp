#include "fetch/registry.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <functional>
#include <system_error>
#include <vector>

#include "os/limits.hpp"
#include "os/refusal.hpp"
#include "os/steps.hpp"

namespace coordl {
namespace {

constexpr std::uint64_t kLeastBytes = std::uint64_t(1) << 20;
constexpr std::uint64_t kMostBudget = std::uint64_t(1) << 44;
constexpr std::uint64_t kMostSpace = std::uint64_t(1) << 42;  // for budgets to grow into
static_assert(layout::log_for(kMostBudget, std::uint64_t(1) << 33) / layout::kLine <
              layout::kOffsetMask);

[[noreturn]] void fail(int error, const std::string& what) {
  throw Refusal(error, what);
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

std::vector<std::string> reap_all() {
  std::vector<std::string> reaped;
  for (const std::string& name : arena_names()) {
    try {
      const ArenaPaths paths(name);
      if (reap_segment(paths, [&] { return persists(paths); })) reaped.push_back(name);
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
    remove_segment_file(paths.file);  // left by the dead, or by one killed half-way
    try {
      SharedFile file = SharedFile::create(paths.file, plan.file_bytes);
      at_step("open:sized");
      return ArenaMemory::create(std::move(file), plan, budget, request.budget_bytes,
                                 request.place.persist, paths.directory,
                                 paths.on_disk ? paths.check : nullptr);
    } catch (const std::system_error& error) {
      remove_segment_file(paths.file);
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
                                     bool in_use, const Request& request) {
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
  return std::make_shared<Core>(paths, std::move(lock), create_memory(paths, request));
}

}  // namespace

void Core::enter(std::uint32_t self) noexcept {
  Members dead;
  for (std::uint32_t other = 0; other < layout::kMembers; ++other) {
    if (!memory.needs_repair(other)) continue;
    // Its lock is free (or was, and is ours now): its process is dead. Unless it was ours all along,
    // kept by a thread that is still admitting, see give_lease_back().
    dead[other] = other == self ? admitting.load() == 0 : lock->take_lease(other);
  }
  if (dead.any()) memory.repair(dead);
  for (std::uint32_t other = 0; other < layout::kMembers; ++other) {
    if (dead[other] && other != self) lock->drop_lease(other);
  }
  memory.enlist(self);
  at_step("open:enlisted");
}

std::shared_ptr<Core> open_core(const std::string& name, Request request) {
  const ArenaPaths paths(name, request.place);
  request.place.persist |= paths.on_disk;
  if (request.budget_bytes == 0 || request.budget_bytes > kMostBudget) {
    fail(EINVAL, "a budget of " + std::to_string(request.budget_bytes) + " bytes: 1 byte to 16 TiB");
  }
  request.expected_items =
      std::clamp<std::uint64_t>(request.expected_items, 1, std::uint64_t(1) << 32);
  const std::lock_guard process(process_mutex());
  reap_all();
  auto segment = open_segment(
      paths, {[&](std::shared_ptr<LockFile> lock, bool in_use) {
                return join_or_create(paths, std::move(lock), in_use, request);
              },
              [&](Segment& known) { ask(static_cast<Core&>(known).memory, request); }});
  return std::static_pointer_cast<Core>(segment);  // an arena's lock file is no other kind's
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
      const std::uint64_t users = count_users_at(paths);
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
  clear_segment(ArenaPaths(name, place), force);
}

}  // namespace coordl
