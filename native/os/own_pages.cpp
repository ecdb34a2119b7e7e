#include "os/own_pages.hpp"

#include <sys/mman.h>
#include <sys/types.h>

namespace coordl {
namespace {

constexpr std::uint64_t kPage = 4096;

#ifdef MADV_POPULATE_READ
constexpr int kPopulateRead = MADV_POPULATE_READ;
#else
constexpr int kPopulateRead = 22;  // headers older than Linux 5.14
#endif

}  // namespace

OwnPages::OwnPages(int fd, std::uint64_t offset, std::size_t bytes) noexcept {
  const std::uint64_t begin = offset / kPage * kPage;
  mapped_ = static_cast<std::size_t>(offset - begin) + bytes;
  void* at = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd,
                    static_cast<off_t>(begin));
  if (at == MAP_FAILED) return;
  base_ = static_cast<std::byte*>(at);
  data_ = base_ + (offset - begin);
  ::madvise(at, mapped_, kPopulateRead);  // refused is fine: pages come as they are touched
}

OwnPages::OwnPages(std::shared_ptr<OwnWindow> window, std::uint64_t from, std::size_t bytes,
                   std::uint64_t tag) noexcept
    : window_(std::move(window)), base_(window_->take(from, bytes, tag)) {
  if (base_ == nullptr) return;
  mapped_ = static_cast<std::size_t>(from % kPage) + bytes;
  data_ = base_ + from % kPage;
}

OwnPages::~OwnPages() {
  if (base_ == nullptr) return;
  if (window_ != nullptr) {
    window_->give_back(base_, mapped_);
  } else {
    ::munmap(base_, mapped_);
  }
}

void OwnPages::make_own() noexcept {
  // A write that changes nothing, whatever others write there at the time.
  for (std::size_t at = 0; at < mapped_; at += kPage) {
    __atomic_fetch_or(reinterpret_cast<unsigned char*>(base_ + at), 0, __ATOMIC_RELAXED);
  }
}

}  // namespace coordl
