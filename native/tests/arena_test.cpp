#include "fetch/arena.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <system_error>
#include <thread>

#include "fetch/checksum.hpp"
#include "fetch/file.hpp"
#include "fetch/layout.hpp"
#include "os/shared_file.hpp"
#include "os/steps.hpp"
#include "test.hpp"

namespace {

using coordl::Arena;
using coordl::ItemKey;

std::string own_name(const char* what) {
  return "test-" + std::string(what) + "-" + std::to_string(::getpid());
}

// Item `i`: its bytes follow from its number, so that whoever reads it can check it.
std::vector<std::byte> item(std::uint64_t i) {
  std::vector<std::byte> bytes(100 + i * 37 % 5000);
  for (std::size_t b = 0; b < bytes.size(); ++b) bytes[b] = static_cast<std::byte>(i * 7 + b);
  return bytes;
}
ItemKey key(std::uint64_t i) { return {i * 0x9e3779b97f4a7c15ull, ~i}; }

std::uint64_t bytes_of(std::uint64_t count) {
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count; ++i) sum += item(i).size();
  return sum;
}

bool holds(const Arena& arena, std::uint64_t i) {
  const auto found = arena.find(key(i));
  const auto want = item(i);
  return found && found->size() == want.size() &&
         std::memcmp(found->data(), want.data(), want.size()) == 0;
}

// Runs `work` in a forked child; its exit status, or minus the signal that ended it.
int in_child(const std::function<int()>& work) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(work());
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

bool left_behind(const std::string& name) {
  const std::string path = coordl::arena_directory() + "/coordl." + std::to_string(::geteuid()) +
                           "." + name;
  return std::filesystem::exists(path) || std::filesystem::exists(path + ".lock");
}

const char* die_at = "";
void die(const char* step) noexcept {
  if (std::strcmp(step, die_at) == 0) ::raise(SIGKILL);
}

}  // namespace

// What a race costs is a copy that its loser abandons. Who comes later finds the item and stores none.
TEST(eight_processes_of_two_threads_store_each_item_once_beyond_one_race) {
  const std::string name = own_name("processes");
  constexpr std::uint64_t count = 400;
  constexpr int processes = 8, threads = 2;
  const auto arena = Arena::open(name, bytes_of(count), count);
  const auto admit_all = [&] {
    std::atomic<bool> good{true};
    std::vector<std::jthread> all;
    for (int t = 0; t < threads; ++t) {
      all.emplace_back([&] {
        for (std::uint64_t i = 0; i < count; ++i) {
          if (arena->admit(key(i), item(i)) && !holds(*arena, i)) good = false;
        }
      });
    }
    all.clear();
    return good ? 0 : 1;
  };
  const auto all_processes = [&] {
    std::vector<pid_t> children;
    for (int child = 0; child < processes; ++child) {
      const pid_t pid = ::fork();
      if (pid == 0) ::_exit(admit_all());
      children.push_back(pid);
    }
    for (const pid_t pid : children) {
      int status = 0;
      ::waitpid(pid, &status, 0);
      CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
  };
  all_processes();
  // While a race's loser held bytes, another item may have been refused. All are given back now.
  for (std::uint64_t i = 0; i < count; ++i) CHECK(arena->admit(key(i), item(i)));
  for (std::uint64_t i = 0; i < count; ++i) CHECK(holds(*arena, i));
  CHECK(arena->verify().empty());
  const auto stats = arena->stats();
  CHECK(stats.items == count && stats.used_bytes == bytes_of(count));
  CHECK(stats.held_bytes == stats.used_bytes && stats.users == 1);
  // At most one copy a racing thread, however often they come.
  CHECK(stats.abandoned_bytes <= bytes_of(count) * (processes * threads - 1));
  all_processes();
  CHECK(arena->stats().abandoned_bytes == stats.abandoned_bytes && arena->stats().items == count);
  arena->close();
  CHECK(!left_behind(name));
}

TEST(threads_raise_the_budget_while_others_fill_it) {
  const std::string name = own_name("raise");
  constexpr std::uint64_t count = 300;
  const auto arena = Arena::open(name, bytes_of(count) / 8, count);
  std::atomic<bool> good{true};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (std::uint64_t part = 1; part <= 8; ++part) {
          const auto raised = Arena::open(name, bytes_of(count) * part / 8, count);
          for (std::uint64_t k = 0; k < count; ++k) {
            const std::uint64_t i = (k * (t % 2 ? 7 : 11)) % count;
            if (raised->admit(key(i), item(i)) && !holds(*raised, i)) good = false;
          }
          const auto stats = raised->stats();
          if (stats.used_bytes > stats.budget_bytes) good = false;
        }
      });
    }
  }
  CHECK(good);
  CHECK(arena->budget_bytes() == bytes_of(count));
  for (std::uint64_t i = 0; i < count; ++i) CHECK(arena->admit(key(i), item(i)) && holds(*arena, i));
  CHECK(arena->stats().held_bytes == bytes_of(count) && arena->verify().empty());
  CHECK(Arena::open(name, 1, 1)->budget_bytes() == bytes_of(count));
}

TEST(threads_admit_and_find_at_once) {
  const std::string name = own_name("threads");
  constexpr std::uint64_t count = 600;
  const auto arena = Arena::open(name, bytes_of(count) / 2, count);
  std::atomic<bool> good{true};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 6; ++t) {
      threads.emplace_back([&, t] {
        for (std::uint64_t k = 0; k < 2 * count; ++k) {
          const std::uint64_t i = (k * (t % 2 ? 7 : 11)) % count;
          if (arena->admit(key(i), item(i)) && !holds(*arena, i)) good = false;
          if (arena->stats().used_bytes > arena->stats().budget_bytes) good = false;
        }
      });
    }
  }
  CHECK(good);
  CHECK(arena->verify().empty());
  std::uint64_t held = 0, items = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (arena->find(key(i))) held += item(i).size(), ++items;
  }
  CHECK(arena->stats().used_bytes == held && arena->stats().items == items);
}

TEST(threads_open_and_close_at_once) {
  const std::string name = own_name("open");
  std::atomic<bool> good{true};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (std::uint64_t i = 0; i < 50; ++i) {
          const auto arena = Arena::open(name, 1 << 16, 16);
          if (!arena->admit(key(3), item(3)) || !holds(*arena, 3)) good = false;
        }
      });
    }
  }
  CHECK(good);
  CHECK(!left_behind(name));
}

TEST(processes_open_close_and_die_at_once) {
  const std::string name = own_name("come-and-go");
  std::vector<pid_t> children;
  for (int child = 0; child < 6; ++child) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      bool good = true;
      for (std::uint64_t round = 0; round < 60; ++round) {
        // A grandchild that dies with the arena open, in the middle of it all.
        if (round % 20 == 5 && in_child([&] {
              const auto arena = Arena::open(name, 1 << 16, 16);
              arena->admit(key(1), item(1));
              ::raise(SIGKILL);
              return 0;
            }) != -SIGKILL) {
          good = false;
        }
        const auto arena = Arena::open(name, 1 << 16, 16);
        good = good && arena->admit(key(round % 5), item(round % 5)) && holds(*arena, round % 5);
      }
      ::_exit(good ? 0 : 1);
    }
    children.push_back(pid);
  }
  for (const pid_t pid : children) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  coordl::reap_arenas();
  CHECK(!left_behind(name));
}

TEST(a_death_at_any_step_of_admit_leaves_a_sound_arena_that_lost_no_budget) {
  for (const std::string step : coordl::kSteps) {
    if (!step.starts_with("reserve:") && !step.starts_with("write:") &&
        !step.starts_with("publish:") && !step.starts_with("count:")) {
      continue;
    }
    const std::string name = own_name("admit");
    const auto arena = Arena::open(name, bytes_of(8), 8);
    CHECK(arena->admit(key(0), item(0)));
    die_at = step.c_str();
    CHECK(in_child([&] {
            coordl::step_hook = &die;
            return arena->admit(key(1), item(1)) ? 0 : 1;
          }) == -SIGKILL);
    CHECK(arena->verify().empty());
    for (std::uint64_t i = 2; i < 8; ++i) CHECK(arena->admit(key(i), item(i)));
    // The next process to join gives back what the dead one held: all fits now.
    CHECK(in_child([&] { return arena->admit(key(1), item(1)) ? 0 : 1; }) == 0);
    for (std::uint64_t i = 0; i < 8; ++i) CHECK(holds(*arena, i));
    CHECK(arena->stats().held_bytes == bytes_of(8) && arena->stats().used_bytes == bytes_of(8));
    CHECK(arena->verify().empty());
    arena->close();
    CHECK(!left_behind(name));
  }
}

// Its cause: close() let the lease go while a thread was still copying, and the next process to open
// the arena took the record for a dead writer's and gave its pages back.
TEST(closing_waits_for_an_admission_so_that_nobody_repairs_what_is_being_written) {
  static std::atomic<bool> copied, released;
  copied = released = false;
  const std::string name = own_name("closing");
  int go[2], done[2];
  CHECK(::pipe(go) == 0 && ::pipe(done) == 0);
  const pid_t other = ::fork();
  if (other == 0) {  // holds the arena, so that it stays; then another process opens it
    const auto keeper = Arena::open(name, 1 << 20, 10);
    char byte = 0;
    ::write(done[1], &byte, 1);
    ::read(go[0], &byte, 1);
    const int code = in_child([&] { return Arena::open(name, 1 << 20, 10)->admit(key(2), item(2)) ? 0 : 1; });
    ::write(done[1], &byte, 1);
    ::read(go[0], &byte, 1);
    ::_exit(code == 0 && keeper->verify().empty() ? 0 : 1);
  }
  char byte = 0;
  CHECK(::read(done[0], &byte, 1) == 1);
  const auto arena = Arena::open(name, 1 << 20, 10);
  coordl::step_hook = [](const char* step) noexcept {
    if (std::strcmp(step, "write:copied") != 0) return;
    copied = true;
    while (!released) std::this_thread::yield();
  };
  const std::vector<std::byte> pages(200'000, std::byte{5});  // whole pages, which repair gives back
  std::thread admitting([&] { arena->admit(key(1), pages); });
  while (!copied) std::this_thread::yield();
  std::thread closing([&] { arena->close(); });
  CHECK(::write(go[1], &byte, 1) == 1);
  pollfd opened{done[0], POLLIN, 0};
  ::poll(&opened, 1, 500);  // it is through at once where close() does not wait; else it waits too
  released = true;
  admitting.join();
  closing.join();
  coordl::step_hook = nullptr;
  CHECK(::read(done[0], &byte, 1) == 1);
  CHECK(::write(go[1], &byte, 1) == 1);
  int status = 0;
  ::waitpid(other, &status, 0);
  for (const int fd : {go[0], go[1], done[0], done[1]}) ::close(fd);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(a_full_arena_still_takes_what_fits) {
  const auto arena = Arena::open(own_name("full"), 1000, 10);
  const std::vector<std::byte> large(900), medium(200), small(100), none;
  CHECK(arena->admit(key(1), large));
  CHECK(!arena->admit(key(2), medium));
  CHECK(arena->admit(key(3), small));
  CHECK(!arena->admit(key(4), small));
  CHECK(arena->admit(key(5), none) && arena->find(key(5))->empty());
  CHECK(arena->stats().used_bytes == 1000 && arena->find(key(1))->size() == 900);
}

TEST(a_kept_arena_outlives_its_users_until_it_is_cleared) {
  const std::string name = own_name("kept");
  Arena::open(name, 10000, 10)->close();
  CHECK(!left_behind(name));
  CHECK(in_child([&] { return Arena::open(name, 10000, 10, {.persist = true})->admit(key(1), item(1)) ? 0 : 1; }) == 0);
  coordl::reap_arenas();
  CHECK(left_behind(name));
  const auto listed = coordl::list_arenas();
  CHECK(std::any_of(listed.begin(), listed.end(), [&](const auto& info) {
    return info.name == name && info.readable && info.stats.persist && info.stats.users == 0 &&
           info.stats.items == 1;
  }));
  CHECK(coordl::verify_arena(name).items == 1);
  {
    const auto arena = Arena::open(name, 20000, 10);
    CHECK(holds(*arena, 1) && arena->budget_bytes() == 20000 && arena->stats().persist);
  }
  CHECK(left_behind(name));
  coordl::clear_arena(name, false);
  CHECK(!left_behind(name));
}

TEST(verify_names_a_flipped_byte) {
  const std::string name = own_name("flip");
  const auto arena = Arena::open(name, 10000, 10);
  CHECK(arena->admit(key(1), item(1)));
  const auto found = *arena->find(key(1));
  const_cast<std::byte&>(found[50]) ^= std::byte(4);
  CHECK(arena->verify().size() == 1);
  CHECK(arena->verify()[0].find("checksum") != std::string::npos);
  CHECK(coordl::verify_arena(name).faults == arena->verify());
}

// What another process of this user can write into the index and the log must not be followed.
TEST(slots_and_lengths_from_outside_are_missed_not_followed) {
  namespace layout = coordl::layout;
  const std::string name = own_name("outside");
  const auto arena = Arena::open(name, 10000, 10);
  CHECK(arena->admit(key(1), item(1)));
  const auto file = coordl::SharedFile::open(coordl::arena_directory() + "/coordl." +
                                             std::to_string(::geteuid()) + "." + name);
  const auto& header = *reinterpret_cast<layout::Header*>(file.data());
  auto* const index = reinterpret_cast<std::uint64_t*>(file.data() + header.index_offset);
  auto* const slot = std::find_if(index, index + header.slots, [](auto word) { return word != 0; });
  const std::uint64_t tag = *slot & ~layout::kOffsetMask, was = *slot;
  // No offset (it would be 64 bytes before the log), the last there is, just past what is set aside.
  for (const std::uint64_t offset : {std::uint64_t(0), layout::kOffsetMask,
                                     header.set_aside / layout::kLine + 1}) {
    *slot = tag | offset;
    CHECK(!arena->find(key(1)));
    CHECK(!arena->verify().empty());
  }
  *slot = was;
  CHECK(holds(*arena, 1));
  auto& record = *reinterpret_cast<layout::Record*>(file.data() + header.log_offset);
  for (const std::uint64_t length : {header.set_aside - sizeof(record) + 1, ~std::uint64_t(0) >> 16}) {
    record.claim = layout::make_claim(length, 0);
    CHECK(!arena->find(key(1)));
    CHECK(!arena->verify().empty());
  }
}

TEST(the_checksum_sees_every_bit_every_length_and_the_key) {
  std::vector<std::byte> bytes(67, std::byte(1));
  const auto sum = coordl::checksum(key(1), bytes);
  CHECK(sum != coordl::checksum(key(2), bytes));
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    CHECK(sum != coordl::checksum(key(1), bytes));
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
  }
  const std::vector<std::byte> zeros(67);
  for (std::size_t n = 0; n < 67; ++n) {
    CHECK(coordl::checksum(key(1), std::span(zeros).first(n)) != coordl::checksum(key(1), zeros));
  }
}

TEST(bad_files_are_errors_and_never_block) {
  std::vector<std::byte> bytes;
  CHECK(coordl::read_file("/no/such/file", bytes).error == ENOENT);
  CHECK(coordl::read_file("/tmp", bytes).error == EISDIR);
  const std::string fifo = "/tmp/" + own_name("fifo");
  CHECK(::mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(coordl::read_file(fifo, bytes).error == EINVAL);
  ::unlink(fifo.c_str());
}
