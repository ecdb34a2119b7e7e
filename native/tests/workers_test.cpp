// The two-stage workers without Python: what is admitted, in which order, and that they stop.
#include "prep/workers.hpp"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <unordered_map>
#include <vector>

#include "os/steps.hpp"
#include "test.hpp"

using namespace coordl;
using namespace std::chrono_literals;

namespace {

// An arena in this process's memory: these tests are about the workers.
class Shelf : public Arena {
 public:
  explicit Shelf(std::size_t budget) : budget_(budget) {}
  std::optional<std::span<const std::byte>> find(ItemKey key) const noexcept override {
    std::lock_guard lock(mutex_);
    const auto found = items_.find(key.lo);
    if (found == items_.end()) return std::nullopt;
    return std::span<const std::byte>(*found->second);
  }
  bool seems_held(ItemKey key) const noexcept override { return find(key).has_value(); }
  bool admit(ItemKey key, std::span<const std::byte> bytes, int) noexcept override {
    std::lock_guard lock(mutex_);
    if (items_.contains(key.lo)) return true;
    if (used_ + bytes.size() > budget_) return false;
    used_ += bytes.size();
    items_[key.lo] = std::make_unique<std::vector<std::byte>>(bytes.begin(), bytes.end());
    return true;
  }
  std::uint64_t room_bytes() const noexcept override {
    std::lock_guard lock(mutex_);
    return budget_ - used_;
  }
  std::uint64_t budget_bytes() const noexcept override { return budget_; }
  ArenaStats stats() const noexcept override { return {}; }
  std::vector<std::string> verify() const override { return {}; }
  const std::string& name() const noexcept override { return name_; }
  bool ensure_lease() noexcept override { return true; }
  void close() noexcept override {}

 private:
  const std::size_t budget_;
  mutable std::mutex mutex_;
  std::size_t used_ = 0;
  std::unordered_map<std::uint64_t, std::unique_ptr<std::vector<std::byte>>> items_;
  std::string name_ = "shelf";
};

// `count` small files, none a JPEG: prep looks at them and says not_ours, bytes stay to be seen.
class Files {
 public:
  explicit Files(std::size_t count) {
    char name[] = "/tmp/coordl-workers-XXXXXX";
    CHECK(mkdtemp(name) != nullptr);
    folder_ = name;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string path = folder_ + "/" + std::to_string(i);
      std::ofstream(path) << "item " << i;
      FileStat found;
      stat_files({&path, 1}, 1, {&found, 1});
      table_->add(path, found.identity, {1, i});
    }
  }
  ~Files() { std::filesystem::remove_all(folder_); }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;
  std::shared_ptr<const ItemTable> table() const { return table_; }

 private:
  std::string folder_;
  std::shared_ptr<ItemTable> table_ = std::make_shared<ItemTable>();
};

std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Pass small_pass() {
  Pass pass;
  pass.geometry.out_height = pass.geometry.out_width = 8;
  return pass;
}

std::shared_ptr<Ticket> start(Workers& workers, BufferPool& pool, std::int64_t first,
                              std::size_t count) {
  std::vector<std::int64_t> items(count);
  std::iota(items.begin(), items.end(), first);
  auto ticket = workers.ticket(items, items, {1, 2});
  workers.submit(ticket, pool.take(count * workers.pass().sample_bytes()));
  return ticket;
}

bool wait_long(Workers& workers, const Ticket& ticket) { return workers.wait(ticket, 60s); }

}  // namespace

TEST(workers_deliver_every_item_with_its_own_bytes) {
  const Files files(200);
  const auto shelf = std::make_shared<Shelf>(900);
  const auto pool = BufferPool::create(4);
  // The bound on fetched bytes is below one minibatch: fetching must go on as prep frees bytes.
  Workers workers(files.table(), small_pass(), std::make_shared<Tiers>(shelf, nullptr), {3, 8, 64});
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::shared_ptr<Ticket>> tickets;
    for (std::int64_t first = 0; first < 200; first += 20) {
      tickets.push_back(start(workers, *pool, first, 20));
    }
    for (std::size_t t = 0; t < tickets.size(); ++t) {
      CHECK(wait_long(workers, *tickets[t]));
      for (std::size_t row = 0; row < 20; ++row) {
        CHECK(tickets[t]->status(row) == RowStatus::not_ours);
        CHECK(text(tickets[t]->item(row)) == "item " + std::to_string(20 * t + row));
      }
    }
  }
  const Counters& counters = *workers.counters();
  CHECK(counters.samples == 600);
  CHECK(counters.hits + counters.misses == 600);
  CHECK(counters.admitted_bytes <= 900);
  CHECK(counters.storage_bytes < 3 * 200 * 8);
}

TEST(workers_read_what_is_announced_up_to_the_bound_and_prepare_what_is_submitted) {
  const Files files(100);
  const auto pool = BufferPool::create(1);
  Workers workers(files.table(), small_pass(), nullptr, {1, 4, 70});  // some ten items
  std::vector<std::shared_ptr<Ticket>> tickets;
  for (std::int64_t first = 0; first < 100; first += 10) {
    std::vector<std::int64_t> items(10);
    std::iota(items.begin(), items.end(), first);
    tickets.push_back(workers.ticket(items, items, {1, 2}));
    workers.announce(tickets.back());
  }
  // Read ahead without a buffer, and no further than the bound: what was read waits for prep.
  const Counters& counters = *workers.counters();
  const auto patience = std::chrono::steady_clock::now() + 60s;
  while (counters.misses < 5 && std::chrono::steady_clock::now() < patience) {
    std::this_thread::sleep_for(1ms);
  }
  std::this_thread::sleep_for(50ms);
  CHECK(counters.misses >= 5 && counters.misses <= 20);
  CHECK(counters.samples == 0);
  for (std::size_t t = 0; t < tickets.size(); ++t) {
    workers.submit(tickets[t], pool->take(10 * workers.pass().sample_bytes()));
    CHECK(wait_long(workers, *tickets[t]));
    for (std::size_t row = 0; row < 10; ++row) {
      CHECK(text(tickets[t]->item(row)) == "item " + std::to_string(10 * t + row));
    }
  }
  CHECK(counters.misses == 100 && counters.samples == 100);
  CHECK(counters.read_ahead_bytes <= 70);
  bool refused = false;
  try {
    workers.announce(tickets[0]);
  } catch (const std::logic_error&) {
    refused = true;
  }
  CHECK(refused);
}

TEST(workers_refuse_a_file_that_shrinks_while_it_is_read) {
  static std::string shrinking;
  const Files files(3);
  shrinking = files.table()->path(1);
  step_hook = +[](const char* step) noexcept {
    if (std::string_view(step) == "read:begun") std::filesystem::resize_file(shrinking, 2);
  };
  const auto shelf = std::make_shared<Shelf>(1000);
  const auto pool = BufferPool::create(1);
  {
    Workers workers(files.table(), small_pass(), std::make_shared<Tiers>(shelf, nullptr), {1, 1, 1000});
    const auto ticket = start(workers, *pool, 1, 1);
    CHECK(wait_long(workers, *ticket));
    CHECK(ticket->status(0) == RowStatus::truncated);
  }
  step_hook = nullptr;
  CHECK(!shelf->find({1, 1}));
}

TEST(workers_report_a_missing_file_and_go_on) {
  auto table = std::make_shared<ItemTable>();
  table->add("/nonexistent/picture.jpg", {}, {});
  const auto pool = BufferPool::create(1);
  Workers workers(table, small_pass(), nullptr, {1, 2, 1000});
  for (int again = 0; again < 2; ++again) {
    const auto ticket = start(workers, *pool, 0, 1);
    CHECK(wait_long(workers, *ticket));
    CHECK(ticket->status(0) == RowStatus::io_error);
    CHECK(ticket->error(0) == ENOENT);
  }
}

TEST(workers_stop_with_work_pending) {
  const Files files(100);
  const auto pool = BufferPool::create(2);
  for (int again = 0; again < 20; ++again) {
    Workers workers(files.table(), small_pass(), nullptr, {2, 4, 100});
    std::vector<std::shared_ptr<Ticket>> tickets;
    for (int i = 0; i < 10; ++i) tickets.push_back(start(workers, *pool, 0, 100));
    workers.close();
    bool refused = false;
    try {
      start(workers, *pool, 0, 1);
    } catch (const std::logic_error&) {
      refused = true;
    }
    CHECK(refused);
  }
}

TEST(workers_take_tickets_of_several_threads) {
  const Files files(50);
  const auto pool = BufferPool::create(4);
  Workers workers(files.table(), small_pass(),
                  std::make_shared<Tiers>(std::make_shared<Shelf>(1 << 20), nullptr), {2, 4, 1000});
  std::atomic<int> good{0};
  std::vector<std::thread> consumers;
  for (int c = 0; c < 3; ++c) {
    consumers.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        const auto ticket = start(workers, *pool, 0, 50);
        good += wait_long(workers, *ticket) && text(ticket->item(49)) == "item 49";
      }
    });
  }
  for (auto& consumer : consumers) consumer.join();
  CHECK(good == 60);
}

TEST(workers_of_a_parent_refuse_in_a_forked_child) {
  const Files files(10);
  const auto pool = BufferPool::create(2);
  auto workers = std::make_unique<Workers>(files.table(), small_pass(), nullptr,
                                           WorkersOptions{2, 2, 1000});
  const auto ticket = start(*workers, *pool, 0, 10);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    int code = 1;
    try {
      wait_long(*workers, *ticket);
    } catch (const std::runtime_error&) {
      code = 0;
    }
    workers.reset();  // neither joins nor hangs
    _exit(code);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(wait_long(*workers, *ticket));
}

TEST(buffers_outlive_their_pools_owner_and_come_back) {
  auto pool = BufferPool::create(1);
  auto first = pool->take(5 << 20);
  auto second = pool->take(100);
  CHECK(reinterpret_cast<std::uintptr_t>(first->bytes().data()) % (2 << 20) == 0);
  const auto* address = first->bytes().data();
  first.reset();
  CHECK(pool->free_buffers() == 1);
  CHECK(pool->take(4 << 20)->bytes().data() == address);
  pool.reset();
  second->bytes()[99] = std::byte{1};
}

TEST(parts_of_a_users_shard_are_read_only_while_it_is_the_one_that_was_indexed) {
  char name[] = "/tmp/coordl-shard-XXXXXX";
  CHECK(mkdtemp(name) != nullptr);
  const std::string path = std::string(name) + "/shard";
  std::ofstream(path) << "one two";
  FileStat found;
  stat_files({&path, 1}, 1, {&found, 1});
  const auto table = std::make_shared<ItemTable>();
  table->add_shard(path, found.identity);
  table->add_part({.offset = 0, .length = 3, .summed = false}, {1, 0});
  table->add_part({.offset = 4, .length = 3, .summed = false}, {1, 1});
  const auto pool = BufferPool::create(1);
  Workers workers(table, small_pass(), nullptr, {1, 1});
  const auto before = start(workers, *pool, 0, 2);
  CHECK(wait_long(workers, *before));
  CHECK(before->status(0) == RowStatus::not_ours && text(before->item(0)) == "one");
  CHECK(before->status(1) == RowStatus::not_ours && text(before->item(1)) == "two");
  std::ofstream(path) << "zero one two";
  const auto after = start(workers, *pool, 0, 2);
  CHECK(wait_long(workers, *after));
  CHECK(after->status(0) == RowStatus::changed && after->item(0).empty());
  CHECK(after->status(1) == RowStatus::changed && after->item(1).empty());
  std::filesystem::remove_all(name);
}
