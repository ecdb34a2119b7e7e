#include "prep/buffers.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace coordl {
namespace {

constexpr std::size_t kHuge = std::size_t(2) << 20;
constexpr std::size_t kPage = 4096;

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Small minibatches stay on small pages: rounding them to 2 MiB would waste more than it saves.
std::size_t mapped_size(std::size_t bytes) {
  return bytes < kHuge ? round_up(std::max<std::size_t>(bytes, 1), kPage) : round_up(bytes, kHuge);
}

}  // namespace

Mapping::Mapping(std::size_t bytes) {
  const std::size_t size = mapped_size(bytes);
  const bool huge = size >= kHuge;
  // mmap aligns to 4 KiB only: take 2 MiB more and give the ends back.
  const std::size_t asked = huge ? size + kHuge : size;
  void* raw = mmap(nullptr, asked, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) {
    throw std::system_error(errno, std::generic_category(),
                            "no memory for a minibatch of " + std::to_string(bytes) + " bytes");
  }
  auto* base = static_cast<std::byte*>(raw);
  if (huge) {
    const auto address = reinterpret_cast<std::uintptr_t>(base);
    const std::size_t head = round_up(address, kHuge) - address;
    if (head > 0) munmap(base, head);
    if (kHuge - head > 0) munmap(base + head + size, kHuge - head);
    base += head;
    madvise(base, size, MADV_HUGEPAGE);  // refused is fine: the buffer then sits on small pages
  }
  data_ = base;
  size_ = size;
}

Mapping::~Mapping() {
  if (data_ != nullptr) munmap(data_, size_);
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

std::shared_ptr<BufferPool> BufferPool::create(std::size_t max_free) {
  return std::shared_ptr<BufferPool>(new BufferPool(max_free));
}

BufferPool::BufferPool(std::size_t max_free) : max_free_(max_free), pid_(getpid()) {
  free_.reserve(max_free);  // so that give_back() never allocates
}

std::shared_ptr<Buffer> BufferPool::take(std::size_t bytes) {
  Mapping mapping;
  if (getpid() == pid_) {
    std::lock_guard lock(mutex_);
    for (auto it = free_.rbegin(); it != free_.rend(); ++it) {
      if (it->size() < bytes) continue;
      mapping = std::move(*it);
      free_.erase(std::next(it).base());
      break;
    }
  }
  if (mapping.data() == nullptr) mapping = Mapping(bytes);
  const std::span<std::byte> memory(mapping.data(), bytes);
  const std::shared_ptr<Mapping> owner(new Mapping(std::move(mapping)),
                                       [pool = shared_from_this()](Mapping* back) {
                                         pool->give_back(std::move(*back));
                                         delete back;
                                       });
  return std::make_shared<Buffer>(memory, owner);
}

void BufferPool::give_back(Mapping mapping) noexcept {
  // In a forked child the mutex may be locked for ever by a thread that was not copied.
  if (getpid() != pid_) return;
  std::lock_guard lock(mutex_);
  if (free_.size() < max_free_) free_.push_back(std::move(mapping));
}

std::size_t BufferPool::free_buffers() const {
  if (getpid() != pid_) return 0;
  std::lock_guard lock(mutex_);
  return free_.size();
}

}  // namespace coordl
