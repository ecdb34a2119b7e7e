// Where arenas are files, and what these are called.
#pragma once
#include <set>
#include <string>

#include "fetch/arena.hpp"
#include "os/segment.hpp"

namespace coordl {

// The paths of one arena. Throws std::system_error EINVAL for a bad name.
struct ArenaPaths : SegmentPaths {
  explicit ArenaPaths(const std::string& name, const ArenaPlace& place = {});
  std::string name;
  bool on_disk;  // its files then have names that no reaping looks for
  ItemCheck check;
};

// Names of this user's arenas at that place, alive or not.
std::set<std::string> arena_names(const ArenaPlace& place = {});

}  // namespace coordl
