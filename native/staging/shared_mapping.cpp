#include "staging/shared_mapping.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

namespace coordl {
namespace {

#ifdef MADV_POPULATE_WRITE
constexpr int kPopulateWrite = MADV_POPULATE_WRITE;
#else
constexpr int kPopulateWrite = 23;  // headers older than Linux 5.14
#endif

[[noreturn]] void refuse(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

SharedMapping::SharedMapping(int fd, std::size_t bytes) : bytes_(bytes), pid_(getpid()) {
  void* raw = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (raw == MAP_FAILED) refuse("a slot of " + std::to_string(bytes) + " bytes cannot be mapped");
  data_ = static_cast<std::byte*>(raw);
  madvise(data_, bytes_, MADV_HUGEPAGE);  // refused is fine: small pages then
  if (madvise(data_, bytes_, MADV_DONTFORK) != 0) inherited_ = true;
}

SharedMapping::~SharedMapping() {
  if (inherited_ || getpid() == pid_) munmap(data_, bytes_);
}

bool SharedMapping::populate() const {
  while (madvise(data_, bytes_, kPopulateWrite) != 0) {
    if (errno == EINVAL) return false;
    if (errno != EINTR && errno != EAGAIN) {
      if (errno == EFAULT) errno = ENOMEM;  // what the kernel says where a page cannot be had
      refuse("no memory for a slot of " + std::to_string(bytes_) + " bytes");
    }
  }
  return true;
}

void SharedMapping::inherit(bool wanted) {
  if (madvise(data_, bytes_, wanted ? MADV_DOFORK : MADV_DONTFORK) != 0) {
    refuse("forked children cannot be given a slot, or spared it");
  }
  inherited_ = wanted;
}

}  // namespace coordl
