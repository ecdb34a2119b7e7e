// Memory that processes share by a descriptor, mapped from its beginning.
//
// Thread safety: none of its own; the bytes belong to whoever the owner of the slot says.
//
// A forked child does not get the mapping unless inherit(true) was called before: so it cannot keep
// memory alive that it never looks at. What it did not get it must not unmap either, for the address
// may be something else's by then: hence the PID.
#pragma once
#include <sys/types.h>

#include <cstddef>
#include <span>

namespace coordl {

class SharedMapping {
 public:
  // On huge pages where the system grants them for shared memory. Throws std::system_error.
  SharedMapping(int fd, std::size_t bytes);
  ~SharedMapping();
  SharedMapping(const SharedMapping&) = delete;
  SharedMapping& operator=(const SharedMapping&) = delete;

  std::span<std::byte> bytes() const noexcept { return {data_, bytes_}; }
  // Has the kernel provide every page, so that none is missing when it is written to. False where the
  // kernel cannot be asked (before 5.14); throws std::system_error where there is no memory.
  bool populate() const;
  // Whether children forked from now on see the mapping. Throws std::system_error.
  void inherit(bool wanted);

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  const pid_t pid_;
  bool inherited_ = false;
};

}  // namespace coordl
