// Which tier and which items: Tiers over small arenas.
#include "fetch/tiers.hpp"

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "fetch/arena.hpp"
#include "fetch/layout.hpp"
#include "os/shared_file.hpp"
#include "test.hpp"

using namespace coordl;

namespace {

bool any(std::span<const std::byte>) noexcept { return true; }
bool none(std::span<const std::byte>) noexcept { return false; }

// A directory of its own for shared memory and for the disk.
class Places {
 public:
  Places() {
    char name[] = "/tmp/coordl-tiers-XXXXXX";
    CHECK(mkdtemp(name) != nullptr);
    home_ = name;
    setenv("COORDL_SHM_DIR", name, 1);
  }
  ~Places() {
    unsetenv("COORDL_SHM_DIR");
    std::filesystem::remove_all(home_);
  }
  Places(const Places&) = delete;
  Places& operator=(const Places&) = delete;
  std::shared_ptr<Arena> memory(std::uint64_t budget) { return Arena::open("t", budget, 100); }
  std::shared_ptr<Arena> disk(std::uint64_t budget, ItemCheck check = any) {
    return Arena::open("t", budget, 100, {.directory = home_, .check = check});
  }
  std::string disk_file() const {
    return home_ + "/coordl-kept." + std::to_string(::geteuid()) + ".t";
  }

 private:
  std::string home_;
};

std::vector<std::byte> item(std::uint64_t i) {
  return std::vector<std::byte>(100, static_cast<std::byte>(i));
}

}  // namespace

TEST(tiers_fill_memory_then_the_disk_and_hold_each_item_once) {
  Places places;
  Tiers tiers(places.memory(1000), places.disk(2000));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (std::uint64_t i = 0; i < 25; ++i) tiers.admit({i, i}, item(i), 0);
    });
  }
  for (auto& thread : threads) thread.join();
  int held = 0, on_disk = 0;
  for (std::uint64_t i = 0; i < 40; ++i) {
    const auto found = tiers.find({i, i});
    if (!found) continue;
    ++held;
    on_disk += found->on_disk;
    CHECK(found->bytes.size() == 100 && found->bytes[99] == static_cast<std::byte>(i));
    CHECK(found->on_disk == !tiers.find_in_memory({i, i}).has_value());
    if (found->on_disk) CHECK(tiers.seems_on_disk({i, i}));
  }
  CHECK(held == 25 && on_disk == 15);
  CHECK(tiers.budget_bytes() == 3000);
  CHECK(tiers.takes({99, 99}, 500) && !tiers.takes({99, 99}, 501));
}

TEST(tiers_keep_the_disk_for_the_next_time_and_check_its_bytes) {
  Places places;
  {
    Tiers tiers(nullptr, places.disk(2000));
    for (std::uint64_t i = 0; i < 5; ++i) CHECK(tiers.admit({i, i}, item(i), 0));
  }
  {
    Tiers tiers(places.memory(1000), places.disk(2000));
    for (std::uint64_t i = 0; i < 5; ++i) CHECK(tiers.find({i, i}).has_value());
    CHECK(!tiers.find_in_memory({0, 0}));
  }
  Tiers doubtful(nullptr, places.disk(2000, none));
  for (std::uint64_t i = 0; i < 5; ++i) CHECK(!doubtful.find({i, i}));
  CHECK(!doubtful.seems_on_disk({0, 0}));  // found out just now
}

// A damaged length may lead into what is address space only: gigabytes of zeros, were they read.
TEST(a_damaged_length_on_the_disk_reads_no_more_than_is_there) {
  namespace layout = coordl::layout;
  Places places;
  constexpr std::uint64_t budget = 1 << 30, length = 512 << 20;
  { CHECK(places.disk(budget)->admit({1, 1}, item(1))); }
  {
    const auto file = coordl::SharedFile::open(places.disk_file());
    const auto& header = *reinterpret_cast<layout::Header*>(file.data());
    CHECK(header.set_aside < length && length < header.log_bytes);
    auto& record = *reinterpret_cast<layout::Record*>(file.data() + header.log_offset);
    record.claim = layout::make_claim(length, layout::claim_member(record.claim));
  }
  const auto resident_pages = [] {
    std::uint64_t size = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> size >> resident;
    return resident;
  };
  const std::uint64_t before = resident_pages();
  const auto disk = places.disk(budget);
  CHECK(!disk->find({1, 1}));
  CHECK(resident_pages() < before + length / layout::kPage / 2);
  CHECK(!disk->verify().empty());
}

TEST(tiers_take_the_chosen_items_only) {
  Places places;
  Tiers tiers(places.memory(100'000), nullptr);
  const std::uint64_t limit = ~std::uint64_t(0) / 2;
  tiers.choose(7, limit);
  int chosen = 0;
  for (std::uint64_t i = 0; i < 200; ++i) {
    const bool wanted = admission_number(7, {i, ~i}) <= limit;
    chosen += wanted;
    CHECK(tiers.takes({i, ~i}, 100) == wanted);
    CHECK(tiers.admit({i, ~i}, item(i), 0) == wanted);
  }
  CHECK(chosen > 60 && chosen < 140);
}
