// A file's parts as a process's own memory: what it writes is gone with the last user of the part.
#include "os/own_window.hpp"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "os/own_pages.hpp"
#include "test.hpp"

namespace {

using coordl::OwnPages;
using coordl::OwnWindow;

constexpr std::size_t kPage = 4096, kPart = 3 * kPage, kParts = 4, kOffset = kPage;

// A file of parts, and another's mapping of them.
struct Shared {
  Shared() : fd(memfd_create("parts", MFD_CLOEXEC)) {
    CHECK(fd >= 0 && ftruncate(fd, kOffset + kParts * kPart) == 0);
    bytes = static_cast<unsigned char*>(mmap(nullptr, kOffset + kParts * kPart, PROT_READ | PROT_WRITE,
                                             MAP_SHARED, fd, 0)) +
            kOffset;
    window = std::make_shared<OwnWindow>(fd, kOffset, kPart, kParts);
  }
  ~Shared() {
    munmap(bytes - kOffset, kOffset + kParts * kPart);
    close(fd);
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  void fill(std::size_t part, int value) { std::memset(bytes + part * kPart, value, kPart); }

  int fd;
  unsigned char* bytes = nullptr;
  std::shared_ptr<OwnWindow> window;
};

bool all(const OwnPages& pages, std::size_t from, std::size_t bytes, int value) {
  for (std::size_t i = from; i < from + bytes; ++i) {
    if (pages.data()[i] != static_cast<std::byte>(value)) return false;
  }
  return true;
}

}  // namespace

TEST(a_part_is_seen_as_the_file_has_it_each_time) {
  Shared shared;
  const std::byte* before = nullptr;
  for (int lap = 1; lap < 4; ++lap) {
    shared.fill(1, lap);
    const OwnPages pages(shared.window, kPart, kPart, static_cast<std::uint64_t>(lap) * kParts + 1);
    CHECK(pages.data() != nullptr && all(pages, 0, kPart, lap));
    CHECK(before == nullptr || before == pages.data());  // mapped once
    before = pages.data();
    std::memset(pages.data(), 99, kPart);
    CHECK(shared.bytes[kPart] == lap && shared.bytes[2 * kPart - 1] == lap);
  }
}

TEST(what_users_of_a_part_write_stays_until_the_last_is_gone) {
  Shared shared;
  shared.fill(0, 1);
  {
    const OwnPages second(shared.window, kPart / 2, kPart / 2, 0);
    {
      const OwnPages first(shared.window, 0, kPart / 2, 0);  // they share a page
      std::memset(first.data(), 2, kPart / 2);
      std::memset(second.data(), 3, kPart / 2);
      CHECK(all(first, 0, kPart / 2, 2));
    }
    CHECK(all(second, 0, kPart / 2, 3));
    // What somebody had, and may have written to, is nobody else's meanwhile.
    CHECK(OwnPages(shared.window, 0, kPart / 2, 0).data() == nullptr);
    CHECK(OwnPages(shared.window, kPart - 1, 1, 0).data() == nullptr);
    CHECK(all(second, 0, kPart / 2, 3));
  }
  shared.fill(0, 4);
  CHECK(all(OwnPages(shared.window, 0, kPart, 4), 0, kPart, 4));
}

TEST(a_part_that_is_kept_is_not_to_be_had_for_other_content) {
  Shared shared;
  for (std::size_t part = 0; part < kParts; ++part) shared.fill(part, 1);
  OwnPages kept(shared.window, kPart, 2 * kPart, 1);
  kept.make_own();
  for (std::size_t part = 0; part < kParts; ++part) shared.fill(part, 2);
  CHECK(OwnPages(shared.window, 2 * kPart, kPart, kParts + 2).data() == nullptr);
  CHECK(OwnPages(shared.window, 0, 2 * kPart, kParts).data() == nullptr);  // half of it is kept
  CHECK(all(OwnPages(shared.window, 0, kPart, kParts), 0, kPart, 2));
  CHECK(all(kept, 0, 2 * kPart, 1));
  { const OwnPages gone(std::move(kept)); }
  CHECK(all(OwnPages(shared.window, 2 * kPart, kPart, kParts + 2), 0, kPart, 2));
}

TEST(pages_outlive_the_windows_owner_and_the_descriptor) {
  std::unique_ptr<OwnPages> kept;
  {
    Shared shared;
    shared.fill(3, 5);
    kept = std::make_unique<OwnPages>(shared.window, 3 * kPart, kPart, 3);
    kept->make_own();
  }
  CHECK(all(*kept, 0, kPart, 5));
}

TEST(a_forked_child_keeps_what_it_has_and_gets_nothing_more) {
  Shared shared;
  shared.fill(0, 1);
  auto pages = std::make_unique<OwnPages>(shared.window, 0, kPart, 0);
  pages->make_own();
  const pid_t child = fork();
  if (child == 0) {
    const bool own = all(*pages, 0, kPart, 1);
    const bool none = OwnPages(shared.window, kPart, kPart, 1).data() == nullptr;
    pages.reset();
    _exit(own && none ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(all(*pages, 0, kPart, 1));
}

TEST(no_two_users_have_the_same_memory) {
  Shared shared;
  shared.fill(2, 1);
  const OwnPages one(shared.window, 2 * kPart, kPart, 2);
  CHECK(OwnPages(shared.window, 2 * kPart, kPart, 2).data() == nullptr);
  CHECK(OwnPages(shared.window, kPart, 2 * kPart, 1).data() == nullptr);
  CHECK(OwnPages(shared.window, 3 * kPart - 1, 2, 2).data() == nullptr);
  CHECK(OwnPages(shared.window, kPart, kPart, 1).data() != nullptr);
}

TEST(locked_memory_that_keeps_its_copies_is_not_to_be_had) {
  Shared shared;
  shared.fill(0, 1);
  {
    const OwnPages pages(shared.window, 0, kPart, 0);
    if (mlock(pages.data(), kPart) != 0) return;  // RLIMIT_MEMLOCK
    std::memset(pages.data(), 9, kPart);
  }
  shared.fill(0, 2);
  const OwnPages again(shared.window, 0, kPart, 4);
  CHECK(again.data() == nullptr || all(again, 0, kPart, 2));
  shared.fill(1, 3);
  CHECK(all(OwnPages(shared.window, kPart, kPart, 5), 0, kPart, 3));
}

TEST(threads_take_write_and_give_back_at_once) {
  Shared shared;
  for (std::size_t part = 0; part < kParts; ++part) shared.fill(part, 7);
  std::vector<std::thread> threads;
  std::atomic<int> had{0};
  for (std::size_t who = 0; who < 3; ++who) {
    threads.emplace_back([&, who] {
      for (int turn = 0; turn < 300; ++turn) {
        const std::size_t at = who * kPage + static_cast<std::size_t>(turn) % kParts * kPart;
        const OwnPages pages(shared.window, at, kPage, at / kPart);
        if (pages.data() == nullptr) continue;  // it had that, and others have the part still
        CHECK(all(pages, 0, kPage, 7));
        std::memset(pages.data(), 8, kPage);
        ++had;
      }
    });
  }
  for (std::thread& each : threads) each.join();
  CHECK(had > 0);
  for (std::size_t part = 0; part < kParts; ++part) {
    CHECK(all(OwnPages(shared.window, part * kPart, kPart, part), 0, kPart, 7));
  }
}
