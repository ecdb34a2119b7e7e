// Memory shared by a descriptor: two mappings see one another, a forked child only what it was given.
#include "staging/shared_mapping.hpp"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>

#include "test.hpp"

namespace {

using coordl::SharedMapping;

constexpr std::size_t kBytes = std::size_t(3) << 20;

int memory_file(std::size_t bytes) {
  const int fd = memfd_create("slot", MFD_CLOEXEC);
  CHECK(fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes)) == 0);
  return fd;
}

int status_of_child(const auto& run) {
  const pid_t child = fork();
  if (child == 0) _exit(run());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// By name, not by address: a sanitizer's own memory may have come to lie there.
bool slot_is_mapped() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("memfd:slot") != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST(two_mappings_of_a_slot_are_the_same_memory) {
  const int fd = memory_file(kBytes);
  const SharedMapping one(fd, kBytes);
  const SharedMapping two(fd, kBytes);
  close(fd);
  one.populate();
  one.bytes()[kBytes - 1] = std::byte{7};
  CHECK(two.bytes()[kBytes - 1] == std::byte{7});
}

TEST(a_forked_child_sees_a_slot_only_where_it_was_given) {
  const int fd = memory_file(kBytes);
  SharedMapping slot(fd, kBytes);
  slot.bytes()[0] = std::byte{9};
  CHECK(status_of_child([&] { return slot_is_mapped() ? 1 : 0; }) == 0);
  slot.inherit(true);
  CHECK(status_of_child([&] { return static_cast<int>(slot.bytes()[0]); }) == 9);
  slot.inherit(false);
  CHECK(status_of_child([&] { return slot_is_mapped() ? 1 : 0; }) == 0);
  close(fd);
}

TEST(a_child_does_not_unmap_what_it_was_not_given) {
  const int fd = memory_file(kBytes);
  auto slot = std::make_unique<SharedMapping>(fd, kBytes);
  close(fd);
  CHECK(status_of_child([&] {
    auto* address = slot->bytes().data();
    void* other = mmap(address, kBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    slot.reset();
    unsigned char resident = 0;
    return other == address && mincore(address, 1, &resident) == 0 ? 3 : 4;
  }) == 3);
}

TEST(a_slot_that_cannot_be_mapped_is_an_error) {
  bool refused = false;
  try {
    const SharedMapping slot(-1, kBytes);
  } catch (const std::system_error& error) {
    refused = error.code().value() == EBADF;
  }
  CHECK(refused);
}
