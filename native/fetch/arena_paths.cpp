#include "fetch/arena_paths.hpp"

#include <unistd.h>

#include <cerrno>

#include "os/refusal.hpp"

namespace coordl {
namespace {

std::string directory_of(const ArenaPlace& place) {
  return place.directory.empty() ? arena_directory() : place.directory;
}

std::string file_prefix(const ArenaPlace& place) {
  std::string prefix(!place.directory.empty() ? "coordl-kept." : "coordl.");
  return prefix.append(std::to_string(::geteuid())).append(".");
}

}  // namespace

std::string arena_directory() { return segment_directory(); }

ArenaPaths::ArenaPaths(const std::string& given, const ArenaPlace& place)
    : name(given), on_disk(!place.directory.empty()), check(place.check) {
  if (!is_segment_name(name)) {
    throw Refusal(EINVAL, "bad arena name '" + name + "': 1 to 128 of A-Z a-z 0-9 . _ -, no "
                          "leading dot, not ending in .lock");
  }
  what = "arena " + name;
  directory = directory_of(place);
  file = directory + "/" + file_prefix(place) + name;
  lock = file + ".lock";
}

std::set<std::string> arena_names(const ArenaPlace& place) {
  return segment_names(directory_of(place), file_prefix(place));
}

}  // namespace coordl
