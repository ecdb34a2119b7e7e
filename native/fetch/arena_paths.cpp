#include "fetch/arena_paths.hpp"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string_view>

#include "os/refusal.hpp"

namespace coordl {
namespace {

constexpr std::string_view kLockSuffix = ".lock";

std::string directory_of(const ArenaPlace& place) {
  return place.directory.empty() ? arena_directory() : place.directory;
}

std::string file_prefix(const ArenaPlace& place) {
  std::string prefix(!place.directory.empty() ? "coordl-kept." : "coordl.");
  return prefix.append(std::to_string(::geteuid())).append(".");
}

}  // namespace

std::string arena_directory() {
  const char* chosen = std::getenv("COORDL_SHM_DIR");
  return chosen != nullptr && *chosen != '\0' ? chosen : "/dev/shm";
}

ArenaPaths::ArenaPaths(const std::string& given, const ArenaPlace& place)
    : name(given),
      directory(directory_of(place)),
      on_disk(!place.directory.empty()),
      check(place.check) {
  const auto allowed = [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '.' || c == '_' || c == '-';
  };
  if (name.empty() || name.size() > 128 || name[0] == '.' || name.ends_with(kLockSuffix) ||
      !std::all_of(name.begin(), name.end(), allowed)) {
    throw Refusal(EINVAL, "bad arena name '" + name + "': 1 to 128 of A-Z a-z 0-9 . _ -, no "
                          "leading dot, not ending in .lock");
  }
  file = directory + "/" + file_prefix(place) + name;
  lock = file + std::string(kLockSuffix);
}

std::set<std::string> arena_names(const ArenaPlace& place) {
  std::set<std::string> names;
  const std::string prefix = file_prefix(place);
  DIR* directory = ::opendir(directory_of(place).c_str());
  if (directory == nullptr) return names;
  while (const dirent* entry = ::readdir(directory)) {
    std::string name = entry->d_name;
    if (!name.starts_with(prefix)) continue;
    name = name.substr(prefix.size());
    if (name.ends_with(kLockSuffix)) name.resize(name.size() - kLockSuffix.size());
    names.insert(name);
  }
  ::closedir(directory);
  return names;
}

}  // namespace coordl
