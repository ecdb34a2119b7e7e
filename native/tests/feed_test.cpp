// Passes over a ring: several members' minibatches are those of a lone loader, each sample prepared
// once while they keep pace, and no claim outlives its feed.
#include "staging/feed.hpp"

// clang-format off
#include <cstdio>
#include <jpeglib.h>
// clang-format on
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <thread>

#include "fetch/file.hpp"
#include "os/steps.hpp"
#include "test.hpp"

using namespace coordl;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t kCount = 30, kRun = 4;

// Small JPEGs of different pictures; with `bad`, that one is no JPEG.
class Pictures {
 public:
  explicit Pictures(std::size_t bad = kCount) {
    char name[] = "/tmp/coordl-feed-XXXXXX";
    CHECK(mkdtemp(name) != nullptr);
    folder_ = name;
    for (std::size_t i = 0; i < kCount; ++i) {
      const std::string path = folder_ + "/" + std::to_string(i);
      write(path, i, i == bad);
      FileStat found;
      stat_files({&path, 1}, 1, {&found, 1});
      table_->add(path, found.identity, {1, i});
    }
  }
  ~Pictures() { std::filesystem::remove_all(folder_); }
  Pictures(const Pictures&) = delete;
  Pictures& operator=(const Pictures&) = delete;
  std::shared_ptr<const ItemTable> table() const { return table_; }

 private:
  static void write(const std::string& path, std::size_t number, bool bad) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    CHECK(file != nullptr);
    if (bad) {
      std::fputs("no picture", file);
    } else {
      jpeg_compress_struct info{};
      jpeg_error_mgr errors{};
      info.err = jpeg_std_error(&errors);
      jpeg_create_compress(&info);
      jpeg_stdio_dest(&info, file);
      info.image_width = 40;
      info.image_height = 30;
      info.input_components = 3;
      info.in_color_space = JCS_RGB;
      jpeg_set_defaults(&info);
      jpeg_start_compress(&info, TRUE);
      std::vector<JSAMPLE> row(40 * 3);
      while (info.next_scanline < 30) {
        for (std::size_t x = 0; x < row.size(); ++x) {
          row[x] = static_cast<JSAMPLE>(x * 2 + info.next_scanline * 3 + number * 17);
        }
        JSAMPROW line = row.data();
        jpeg_write_scanlines(&info, &line, 1);
      }
      jpeg_finish_compress(&info);
      jpeg_destroy_compress(&info);
    }
    std::fclose(file);
  }
  std::string folder_;
  std::shared_ptr<ItemTable> table_ = std::make_shared<ItemTable>();
};

// 192 bytes a sample: slots have gaps, so that minibatches are copied.
Pass small_pass() {
  Pass pass;
  pass.geometry.out_height = pass.geometry.out_width = 8;
  return pass;
}
// 3,072 bytes a sample, three pages a slot: minibatches lie in one piece.
Pass gapless_pass() {
  Pass pass;
  pass.geometry.out_height = pass.geometry.out_width = 32;
  return pass;
}

std::shared_ptr<Workers> workers_of(const Pictures& pictures, const Pass& pass = small_pass()) {
  return std::make_shared<Workers>(pictures.table(), pass, nullptr, WorkersOptions{2, 4, 1 << 20});
}

RingShape shape(std::uint64_t slots, const Pass& pass = small_pass()) {
  const std::uint64_t sample = pass.sample_bytes();
  return {sample, kCount, kRun, slots * (ring_layout::round_up(sample * kRun, 4096) + 128), ""};
}

std::vector<std::int64_t> order_of(std::uint64_t epoch) {
  std::vector<std::int64_t> order(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    order[i] = static_cast<std::int64_t>((i * 7 + 3 + epoch * 11) % kCount);
  }
  return order;
}

FeedOptions options(std::uint64_t epoch) {
  FeedOptions asked;
  asked.epoch = epoch;
  asked.key = {5, epoch};
  asked.prep_threads = 2;
  asked.cores = 2;
  asked.patience = 300ms;
  return asked;
}

// The epoch's bytes as Workers alone make them.
std::vector<std::byte> reference(const Pictures& pictures, std::uint64_t epoch,
                                 const Pass& pass = small_pass()) {
  const auto workers = workers_of(pictures, pass);
  const auto order = order_of(epoch);
  const auto buffer = BufferPool::create(1)->take(kCount * pass.sample_bytes());
  const auto ticket = workers->ticket(order, order, {5, epoch});
  workers->submit(ticket, buffer);
  CHECK(workers->wait(*ticket, 60s));
  return {buffer->bytes().begin(), buffer->bytes().end()};
}

// One pass in minibatches of `batch`, `ahead` of them asked for early; checks every byte.
FeedCounts pass(const std::shared_ptr<Ring>& ring, const Pictures& pictures, std::uint64_t epoch,
                std::size_t batch, std::size_t ahead, const std::vector<std::byte>& expected) {
  Feed feed(ring, workers_of(pictures), order_of(epoch), order_of(epoch), options(epoch));
  const auto pool = BufferPool::create(4);
  const std::size_t bytes = small_pass().sample_bytes();
  struct Out {
    std::shared_ptr<Buffer> buffer;
    std::shared_ptr<Portion> portion;
    std::size_t first;
  };
  std::vector<Out> window;
  const auto take = [&] {
    CHECK(feed.wait(*window.front().portion, 60s));
    const auto got = window.front().buffer->bytes();
    CHECK(std::memcmp(got.data(), expected.data() + window.front().first * bytes, got.size()) == 0);
    window.erase(window.begin());
  };
  for (std::size_t first = 0; first < kCount; first += batch) {
    const std::size_t count = std::min(batch, kCount - first);
    auto buffer = pool->take(count * bytes);
    auto portion = feed.put(first, count, buffer);
    window.push_back({std::move(buffer), std::move(portion), first});
    if (window.size() > ahead) take();
  }
  while (!window.empty()) take();
  return feed.counts();
}

}  // namespace

TEST(a_lone_member_prepares_each_sample_once) {
  const Pictures pictures;
  const auto ring = Ring::open("test-feed-lone-" + std::to_string(::getpid()), shape(16));
  for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
    const auto counts = pass(ring, pictures, epoch, 7, 2, reference(pictures, epoch));
    CHECK(counts.prepared == kCount && counts.alone == 0 && counts.staged == 0);
  }
}

TEST(members_of_different_batch_sizes_share_each_sample) {
  const Pictures pictures;
  const auto ring = Ring::open("test-feed-share-" + std::to_string(::getpid()), shape(16));
  for (std::uint64_t epoch = 0; epoch < 2; ++epoch) {
    const auto expected = reference(pictures, epoch);
    std::array<FeedCounts, 3> counts;
    {
      std::vector<std::jthread> jobs;
      const std::size_t batches[] = {5, 8, 11};
      for (std::size_t job = 0; job < 3; ++job) {
        jobs.emplace_back([&, job] {
          counts[job] = pass(ring, pictures, epoch, batches[job], 2, expected);
        });
      }
    }
    std::uint64_t prepared = 0, alone = 0;
    for (const FeedCounts& each : counts) prepared += each.prepared, alone += each.alone;
    CHECK(prepared == kCount && alone == 0);
  }
}

TEST(a_window_of_two_slots_is_enough_for_right_bytes) {
  const Pictures pictures;
  const auto ring = Ring::open("test-feed-narrow-" + std::to_string(::getpid()), shape(2));
  const auto expected = reference(pictures, 0);
  std::vector<std::jthread> jobs;
  for (const std::size_t batch : {3, 6, 13}) {
    jobs.emplace_back([&, batch] { pass(ring, pictures, 0, batch, 4, expected); });
  }
}

TEST(what_is_no_picture_each_job_gets_to_see_for_itself) {
  const Pictures pictures(3);
  const auto ring = Ring::open("test-feed-bad-" + std::to_string(::getpid()), shape(16));
  for (int job = 0; job < 2; ++job) {
    Feed feed(ring, workers_of(pictures), order_of(0), order_of(0), options(0));
    const auto portion =
        feed.put(0, kCount, BufferPool::create(1)->take(kCount * small_pass().sample_bytes()));
    CHECK(feed.wait(*portion, 60s));
    CHECK(portion->own().size() == 1 && order_of(0)[portion->own()[0].row] == 3);
    CHECK(portion->own()[0].ticket->status(0) == RowStatus::not_ours);
  }
}

TEST(a_pass_left_early_gives_its_claims_up) {
  const Pictures pictures;
  const auto ring = Ring::open("test-feed-left-" + std::to_string(::getpid()), shape(16));
  for (int round = 0; round < 20; ++round) {
    Feed feed(ring, workers_of(pictures), order_of(0), order_of(0), options(0));
    feed.put(0, 20, BufferPool::create(1)->take(20 * small_pass().sample_bytes()));
    feed.close();
    CHECK(ring->info().claimed == 0);
  }
  pass(ring, pictures, 0, 4, 2, reference(pictures, 0));
  for (const RingMember& member : ring->info().members) CHECK(member.passes == 0);
}

TEST(a_member_that_dies_or_stops_at_any_step_of_a_pass_is_not_waited_for_beyond_patience) {
  const Pictures pictures;
  const auto expected = reference(pictures, 0);
  static const char* at = "";
  static int how = 0;
  for (const int signal : {SIGKILL, SIGSTOP}) {
    for (const std::string step : kStagingSteps) {
      const bool passes = step.starts_with("claim:claimed") || step.starts_with("fill:") ||
                          step.starts_with("publish:") || step.starts_with("read:");
      if (!passes) continue;
      const auto ring = Ring::open("test-feed-step-" + std::to_string(::getpid()), shape(16));
      at = step.c_str();
      how = signal;
      const pid_t pid = ::fork();
      if (pid == 0) {
        step_hook = [](const char* reached) noexcept {
          if (std::strcmp(reached, at) == 0) ::raise(how);
        };
        pass(ring, pictures, 0, 6, 2, expected);
        ::_exit(0);
      }
      int status = 0;
      CHECK(::waitpid(pid, &status, WUNTRACED) == pid);
      CHECK(signal == SIGKILL ? WIFSIGNALED(status) : WIFSTOPPED(status));
      pass(ring, pictures, 0, 5, 2, expected);
      if (signal == SIGSTOP) {
        step_hook = nullptr;
        ::kill(pid, SIGKILL);
        CHECK(::waitpid(pid, &status, 0) == pid);
      }
      // What the dead had claimed is taken over when its slot's turn comes: 16 slots are two epochs.
      for (const std::uint64_t epoch : {1, 2}) {
        const auto counts = pass(ring, pictures, epoch, 5, 2, reference(pictures, epoch));
        CHECK(counts.prepared == kCount && counts.alone == 0);
      }
      CHECK(ring->info().claimed == 0 && ring->info().users == 1);
    }
  }
}

TEST(a_member_that_stays_silent_is_waited_for_once_not_in_each_pass) {
  const Pictures pictures;
  const auto expected = reference(pictures, 0);
  const auto ring = Ring::open("test-feed-silent-" + std::to_string(::getpid()), shape(16));
  const pid_t pid = ::fork();
  if (pid == 0) {
    step_hook = [](const char* reached) noexcept {
      if (std::strcmp(reached, "fill:begun") == 0) ::raise(SIGSTOP);
    };
    pass(ring, pictures, 0, 6, 2, expected);
    ::_exit(0);
  }
  int status = 0;
  CHECK(::waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
  const auto first = pass(ring, pictures, 0, 5, 2, expected);
  CHECK(first.waits == 1 && first.alone > 0);
  const auto again = pass(ring, pictures, 0, 5, 2, expected);
  CHECK(again.waits == 0 && again.alone == first.alone);
  ::kill(pid, SIGKILL);
  CHECK(::waitpid(pid, &status, 0) == pid);
}

namespace {

// A minibatch that somebody keeps: where it lies, and what it must hold for ever.
struct Kept {
  std::shared_ptr<Buffer> buffer;
  std::vector<std::byte> expected;
  bool is_right() const { return std::ranges::equal(buffer->bytes(), expected); }
};

// One pass without buffers, in minibatches of `batch`; all of them.
std::vector<Kept> kept_pass(Feed& feed, std::size_t batch, const std::vector<std::byte>& expected) {
  const std::size_t bytes = gapless_pass().sample_bytes();
  std::vector<Kept> kept;
  for (std::size_t first = 0; first < kCount; first += batch) {
    const std::size_t count = std::min(batch, kCount - first);
    const auto portion = feed.put(first, count, nullptr);
    CHECK(feed.wait(*portion, 60s));
    const auto begin = expected.begin() + static_cast<std::ptrdiff_t>(first * bytes);
    kept.push_back({portion->memory(), {begin, begin + static_cast<std::ptrdiff_t>(count * bytes)}});
    CHECK(kept.back().is_right());
  }
  return kept;
}

std::unique_ptr<Feed> gapless_feed(const std::shared_ptr<Ring>& ring, const Pictures& pictures,
                                   std::uint64_t epoch) {
  FeedOptions asked = options(epoch);
  asked.pool = BufferPool::create(4);
  return std::make_unique<Feed>(ring, workers_of(pictures, gapless_pass()), order_of(epoch),
                                order_of(epoch), asked);
}

}  // namespace

TEST(minibatches_lie_in_the_ring_and_stay_what_they_are_when_their_slots_are_used_again) {
  const Pictures pictures;
  const auto ring =
      Ring::open("test-feed-view-" + std::to_string(::getpid()), shape(16, gapless_pass()));
  std::vector<Kept> kept;
  std::uint64_t viewed = 0;
  for (std::uint64_t epoch = 0; epoch < 6; ++epoch) {  // a ring of two epochs
    const auto expected = reference(pictures, epoch, gapless_pass());
    const auto feed = gapless_feed(ring, pictures, epoch);
    for (Kept& one : kept_pass(*feed, 5, expected)) kept.push_back(std::move(one));
    const FeedCounts counts = feed->counts();
    CHECK(counts.prepared == kCount && counts.alone == 0);
    viewed += counts.viewed;
    CHECK(std::ranges::all_of(kept, &Kept::is_right));
  }
  CHECK(viewed >= 6 * 5);
  CHECK(std::ranges::all_of(kept, &Kept::is_right));
}

TEST(what_a_job_writes_into_its_minibatch_no_other_sees) {
  const Pictures pictures;
  const auto ring =
      Ring::open("test-feed-own-" + std::to_string(::getpid()), shape(16, gapless_pass()));
  const auto expected = reference(pictures, 0, gapless_pass());
  const std::array feeds{gapless_feed(ring, pictures, 0), gapless_feed(ring, pictures, 0)};
  for (const auto& feed : feeds) {
    for (Kept& one : kept_pass(*feed, 4, expected)) std::ranges::fill(one.buffer->bytes(), std::byte{7});
    CHECK(feed->counts().viewed > 0);
  }
}

TEST(a_forked_child_keeps_the_minibatch_it_inherits) {
  const Pictures pictures;
  const auto ring =
      Ring::open("test-feed-fork-" + std::to_string(::getpid()), shape(16, gapless_pass()));
  auto feed = gapless_feed(ring, pictures, 0);
  const auto expected = reference(pictures, 0, gapless_pass());
  const auto portion = feed->put(0, 5, nullptr);
  CHECK(feed->wait(*portion, 60s));
  CHECK(feed->counts().viewed == 5);
  int go[2];
  CHECK(::pipe(go) == 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    char byte = 0;
    if (::read(go[0], &byte, 1) != 1) ::_exit(2);
    const auto bytes = portion->memory()->bytes();
    ::_exit(std::memcmp(bytes.data(), expected.data(), bytes.size()) == 0 ? 0 : 1);
  }
  feed.reset();
  for (std::uint64_t epoch = 1; epoch < 4; ++epoch) {
    const auto later = gapless_feed(ring, pictures, epoch);
    kept_pass(*later, 6, reference(pictures, epoch, gapless_pass()));
  }
  CHECK(::write(go[1], "x", 1) == 1);
  int status = 0;
  CHECK(::waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(a_view_is_no_reason_to_wait_for_long) {
  const Pictures pictures;
  const auto ring =
      Ring::open("test-feed-held-" + std::to_string(::getpid()), shape(16, gapless_pass()));
  const auto slow = gapless_feed(ring, pictures, 0);  // keeps its first minibatch
  const auto expected = reference(pictures, 0, gapless_pass());
  const auto portion = slow->put(0, 5, nullptr);
  CHECK(slow->wait(*portion, 60s));
  CHECK(slow->counts().viewed == 5);
  const auto begin = std::chrono::steady_clock::now();
  for (std::uint64_t epoch = 0; epoch < 4; ++epoch) {
    const auto fast = gapless_feed(ring, pictures, epoch);
    kept_pass(*fast, 6, reference(pictures, epoch, gapless_pass()));
    CHECK(fast->counts().alone == 0 && fast->counts().waits == 0);
  }
  CHECK(std::chrono::steady_clock::now() - begin < 30s);
  const auto bytes = portion->memory()->bytes();
  CHECK(std::memcmp(bytes.data(), expected.data(), bytes.size()) == 0);
}
