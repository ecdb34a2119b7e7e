#include "os/limits.hpp"

#include <linux/magic.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>

namespace coordl {
namespace {

std::optional<std::uint64_t> parse(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end == text.data()) return std::nullopt;  // "max" among others
  return value;
}

std::optional<std::uint64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  if (!(file >> word)) return std::nullopt;
  return parse(word);
}

// Value of the line "key value" or "key: value kB".
std::optional<std::uint64_t> read_field(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name, value;
    words >> name >> value;
    if (name == key) return parse(value);
  }
  return std::nullopt;
}

struct Group {
  std::string directory;  // of this process's own memory cgroup
  std::string mount;      // ancestors end here
  bool v2 = false;
};

// The path in /proc/self/cgroup: of the v1 memory controller when there is one, else of v2.
std::optional<std::string> own_path(bool v2) {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (v2 ? line.substr(0, first) == "0" && controllers == ",,"
           : controllers.find(",memory,") != std::string::npos) {
      return line.substr(second + 1);
    }
  }
  return std::nullopt;
}

std::optional<Group> find_group(bool v2) {
  const auto path = own_path(v2);
  if (!path) return std::nullopt;
  std::ifstream mounts("/proc/self/mountinfo");
  std::string line;
  while (std::getline(mounts, line)) {
    const auto dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash)), right(line.substr(dash + 3));
    std::string id, parent, device, root, at, type, source, options;
    left >> id >> parent >> device >> root >> at;
    right >> type >> source >> options;
    const bool ours = v2 ? type == "cgroup2"
                         : type == "cgroup" && ("," + options + ",").find(",memory,") !=
                                                   std::string::npos;
    if (!ours) continue;
    // In a container the mount may show only our part of the tree.
    std::string below = *path;
    if (root != "/" && below.starts_with(root)) below = below.substr(root.size());
    Group group{at + below, at, v2};
    const std::string probe = v2 ? "/cgroup.procs" : "/memory.limit_in_bytes";
    if (!std::ifstream(group.directory + probe)) group.directory = at;
    return group;
  }
  return std::nullopt;
}

void apply_group(const Group& group, MemoryLimits& limits) {
  for (std::string at = group.directory; at.size() >= group.mount.size();
       at = at.substr(0, at.rfind('/'))) {
    const auto limit = read_number(at + (group.v2 ? "/memory.max" : "/memory.limit_in_bytes"));
    const auto used = read_number(at + (group.v2 ? "/memory.current" : "/memory.usage_in_bytes"));
    // v1 says "no limit" by a number near 2^63.
    if (limit && used && *limit < (std::uint64_t(1) << 60)) {
      const std::string stat = at + "/memory.stat", prefix = group.v2 ? "" : "total_";
      // The file lists hold no shared memory (that is on the anonymous lists): all of it can go.
      const std::uint64_t cache = read_field(stat, prefix + "inactive_file").value_or(0) +
                                  read_field(stat, prefix + "active_file").value_or(0);
      const std::uint64_t busy = *used > cache ? *used - cache : 0;
      const std::uint64_t free = *limit > busy ? *limit - busy : 0;
      if (free < limits.cgroup_free_bytes) {
        limits.cgroup_free_bytes = free;
        limits.cgroup_bytes = *limit;
      }
    }
    if (at.rfind('/') == std::string::npos || at == group.mount) break;
  }
}

bool is_memory(const std::string& directory) {
  struct statfs info {};
  if (::statfs(directory.c_str(), &info) != 0) return true;
  return info.f_type == TMPFS_MAGIC || info.f_type == RAMFS_MAGIC || info.f_type == HUGETLBFS_MAGIC;
}

std::uint64_t keep_free(std::uint64_t total) {
  constexpr std::uint64_t floor = std::uint64_t(256) << 20;
  return std::max(total / 20, std::min(floor, total / 4));
}

}  // namespace

MemoryLimits read_memory_limits(const std::string& directory) {
  MemoryLimits limits;
  struct statvfs info {};
  if (::statvfs(directory.c_str(), &info) == 0 && info.f_blocks > 0) {  // 0 blocks: no size limit
    limits.shm_bytes = std::uint64_t(info.f_blocks) * info.f_frsize;
    limits.shm_free_bytes = std::uint64_t(info.f_bavail) * info.f_frsize;
  }
  if (!is_memory(directory)) return limits;
  if (const auto total = read_field("/proc/meminfo", "MemTotal:")) {
    limits.memory_bytes = *total * 1024;
  }
  if (const auto free = read_field("/proc/meminfo", "MemAvailable:")) {
    limits.memory_free_bytes = *free * 1024;
  }
  for (const bool v2 : {false, true}) {
    if (const auto group = find_group(v2)) apply_group(*group, limits);
  }
  return limits;
}

int Allowance::error() const noexcept { return limit == Limit::shm ? ENOSPC : ENOMEM; }

Allowance memory_allowance(const MemoryLimits& limits, double share) noexcept {
  Allowance least{kUnlimited, Limit::none};
  const auto apply = [&](std::uint64_t free, std::uint64_t headroom, Limit limit) {
    if (free == kUnlimited) return;
    const auto keep = static_cast<std::uint64_t>(static_cast<double>(headroom) * share);
    const std::uint64_t bytes = free > keep ? free - keep : 0;
    if (bytes < least.bytes) least = {bytes, limit};
  };
  const std::uint64_t shm_headroom =
      std::min(limits.shm_bytes / 20, std::uint64_t(256) << 20);
  apply(limits.shm_free_bytes, shm_headroom, Limit::shm);
  apply(limits.cgroup_free_bytes, keep_free(limits.cgroup_bytes), Limit::cgroup);
  apply(limits.memory_free_bytes, keep_free(limits.memory_bytes), Limit::memory);
  return least;
}

}  // namespace coordl
