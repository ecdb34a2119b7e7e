// The staging ring: one member prepares a run for all, and nobody's death or stop hurts the others.
#include "staging/ring.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <system_error>
#include <thread>

#include "os/segment.hpp"
#include "os/steps.hpp"
#include "test.hpp"

using namespace coordl;

namespace {

constexpr std::uint64_t kSample = 3000, kRun = 4, kEpoch = 22;

std::string own_name(const char* what) {
  return "test-" + std::string(what) + "-" + std::to_string(::getpid());
}

RingShape shape(std::uint64_t slots = 8) {
  return {kSample, kEpoch, kRun, slots * (ring_layout::round_up(kSample * kRun, 4096) + 128), "seed 1"};
}

int in_child(const std::function<int()>& work) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(work());
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

bool left_behind(const std::string& name) {
  const std::string path = segment_directory() + "/coordl-group." + std::to_string(::geteuid()) +
                           "." + name;
  return std::filesystem::exists(path) || std::filesystem::exists(path + ".lock");
}

const char* die_at = "";
void die(const char* step) noexcept {
  if (std::strcmp(step, die_at) == 0) ::raise(SIGKILL);
}

std::byte level(std::uint64_t run, std::uint64_t sample) {
  return static_cast<std::byte>(run * 31 + sample * 7 + 1);
}

constexpr std::uint64_t kAll[] = {(1 << kRun) - 1};

void fill(Ring& ring, std::uint64_t run) {
  for (std::uint64_t i = 0; i < kRun; ++i) {
    const auto at = ring.memory(run).subspan(i * kSample, kSample);
    std::memset(at.data(), static_cast<int>(level(run, i)), at.size());
  }
}

bool make(Ring& ring, std::uint64_t run) {
  if (!ring.claim(run)) return false;
  at_step("fill:begun");
  fill(ring, run);
  at_step("fill:sample");
  ring.publish(run, kAll);
  return true;
}

// Reads it, and checks every byte.
bool holds(Ring& ring, std::uint64_t run) {
  std::vector<std::byte> out(kRun * kSample);
  std::vector<bool> done(kRun);
  if (!ring.read(run, 0, kRun, out, done)) return false;
  for (std::uint64_t i = 0; i < kRun; ++i) {
    CHECK(done[i]);
    for (std::uint64_t b = 0; b < kSample; ++b) CHECK(out[i * kSample + b] == level(run, i));
  }
  return true;
}

Run look(Ring& ring, std::uint64_t run) {
  std::uint32_t holder = 0;
  return ring.look(run, holder);
}

}  // namespace

TEST(a_run_is_claimed_once_and_read_by_all) {
  const std::string name = own_name("once");
  const auto ring = Ring::open(name, shape());
  CHECK(look(*ring, 5) == Run::open && !holds(*ring, 5));
  CHECK(ring->claim(5) && !ring->claim(5) && look(*ring, 5) == Run::mine);
  CHECK(in_child([&] { return look(*ring, 5) == Run::others && !ring->claim(5) ? 0 : 1; }) == 0);
  fill(*ring, 5);
  ring->publish(5, kAll);
  CHECK(look(*ring, 5) == Run::staged && holds(*ring, 5));
  CHECK(in_child([&] { return holds(*ring, 5) ? 0 : 1; }) == 0);
  // Slot 5 of 8 goes to run 13; who is still at run 5 finds it gone.
  ring->at(13);
  CHECK(look(*ring, 13) == Run::open && make(*ring, 13) && holds(*ring, 13));
  CHECK(look(*ring, 5) == Run::gone && !ring->claim(5) && !holds(*ring, 5));
  ring->close();
  CHECK(!left_behind(name));
}

TEST(what_lies_far_ahead_of_all_members_is_in_nobodys_way) {
  const auto ring = Ring::open(own_name("ahead"), shape());
  const auto visit = [&] {
    ring->at(805);
    return make(*ring, 805) ? 0 : 1;
  };
  CHECK(in_child(visit) == 0);  // slot 5 of 8
  ring->at(4);
  CHECK(look(*ring, 5) == Run::open && make(*ring, 5) && holds(*ring, 5));
  CHECK(look(*ring, 805) == Run::open && !holds(*ring, 805));
}

TEST(a_claim_given_up_is_anybodys) {
  const auto ring = Ring::open(own_name("released"), shape());
  CHECK(ring->claim(3));
  ring->release(3);
  CHECK(look(*ring, 3) == Run::open && make(*ring, 3) && holds(*ring, 3));
}

TEST(threads_and_processes_prepare_each_run_once_and_read_nothing_but_whole_runs) {
  const std::string name = own_name("race");
  constexpr std::uint64_t runs = 400;
  const auto ring = Ring::open(name, shape(5));
  const auto work = [&] {
    std::uint64_t made = 0;
    for (std::uint64_t run = 0; run < runs; ++run) {
      for (int tries = 0; tries < 2000; ++tries) {
        if (make(*ring, run)) ++made;
        if (holds(*ring, run) || look(*ring, run) == Run::gone) break;
        std::this_thread::yield();
      }
    }
    ring->count(made, 0, 0);
    return 0;
  };
  std::vector<pid_t> children;
  for (int i = 0; i < 3; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      std::vector<std::jthread> threads;
      for (int t = 0; t < 2; ++t) threads.emplace_back(work);
      threads.clear();
      ::_exit(ring->info().members.empty() ? 1 : 0);
    }
    children.push_back(pid);
  }
  work();
  for (const pid_t pid : children) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  const RingInfo info = ring->info();
  CHECK(info.claimed == 0 && info.published == 5 && info.users == 1);
}

TEST(the_dead_holders_run_is_taken_over_and_a_dead_readers_slot_is_used_again) {
  const auto ring = Ring::open(own_name("dead"), shape());
  CHECK(in_child([&] {
          if (ring->claim(2)) ::raise(SIGKILL);
          return 1;
        }) == -SIGKILL);
  CHECK(look(*ring, 2) == Run::others);  // until somebody looks after its holder
  CHECK(make(*ring, 2) && holds(*ring, 2));
  CHECK(in_child([&] {
          step_hook = [](const char* step) noexcept {
            if (std::strcmp(step, "read:entered") == 0) ::raise(SIGKILL);
          };
          return holds(*ring, 2) ? 0 : 1;
        }) == -SIGKILL);
  CHECK(make(*ring, 10) && holds(*ring, 10));
  // And in a slot that a dead member held for an earlier run.
  CHECK(in_child([&] {
          if (ring->claim(3)) ::raise(SIGKILL);
          return 1;
        }) == -SIGKILL);
  CHECK(make(*ring, 11) && holds(*ring, 11));
}

TEST(a_stopped_holders_slot_stays_its_own_until_it_goes_on) {
  const auto ring = Ring::open(own_name("stopped"), shape());
  for (const bool reads : {false, true}) {
    const std::uint64_t run = reads ? 6 : 4;
    CHECK(!reads || make(*ring, run));
    const pid_t pid = ::fork();
    if (pid == 0) {
      step_hook = [](const char* step) noexcept {
        if (std::strcmp(step, "read:entered") == 0 || std::strcmp(step, "fill:begun") == 0) {
          ::raise(SIGSTOP);
        }
      };
      ::_exit((reads ? holds(*ring, run) : make(*ring, run)) ? 0 : 1);
    }
    int status = 0;
    CHECK(::waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    CHECK(!ring->claim(run) && !ring->claim(run + 8));
    CHECK(look(*ring, run) == (reads ? Run::staged : Run::others));
    ::kill(pid, SIGCONT);
    CHECK(::waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(holds(*ring, run) && make(*ring, run + 8) && holds(*ring, run + 8));
  }
}

TEST(a_death_at_any_step_costs_the_others_nothing) {
  for (const std::string step : kStagingSteps) {
    if (step.starts_with("ring:")) continue;
    const std::string name = own_name("step");
    const auto ring = Ring::open(name, shape());
    CHECK(make(*ring, 1));
    die_at = step.c_str();
    const int ended = in_child([&] {
      ring->ensure_lease();  // before others come and go: their number is not ours
      if (step == "claim:taken" && in_child([&] { return ring->claim(9) ? ::raise(SIGKILL) : 1; }) != -SIGKILL) {
        return 1;
      }
      step_hook = &die;
      if (step == "release:freed") {
        if (!ring->claim(9)) return 1;
        ring->release(9);
      }
      ring->listen(9);
      if (!make(*ring, 9)) return 2;
      return holds(*ring, 9) ? 0 : 3;
    });
    if (ended != -SIGKILL) throw std::runtime_error(step + " was not reached: " + std::to_string(ended));
    CHECK(make(*ring, 9) || holds(*ring, 9));
    CHECK(holds(*ring, 9) && make(*ring, 17) && holds(*ring, 17));
    CHECK(ring->info().users == 1 && ring->info().claimed == 0);
    ring->close();
    CHECK(!left_behind(name));
  }
}

TEST(a_last_member_killed_leaves_what_the_next_removes) {
  for (const std::string step : kStagingSteps) {
    const bool opening = step.starts_with("ring:");
    if (!opening && step != "publish:noted") continue;
    const std::string name = own_name("alone");
    die_at = step.c_str();
    CHECK(in_child([&] {
            step_hook = &die;
            return make(*Ring::open(name, shape()), 1) ? 0 : 1;
          }) == -SIGKILL);
    CHECK(left_behind(name));
    const auto ring = Ring::open(name, shape());
    CHECK(look(*ring, 1) == Run::open && make(*ring, 1) && holds(*ring, 1));
    ring->close();
    CHECK(!left_behind(name));
    CHECK(in_child([&] {
            step_hook = &die;
            return make(*Ring::open(name, shape()), 1) ? 0 : 1;
          }) == -SIGKILL);
    reap_rings();
    CHECK(!left_behind(name));
  }
}

TEST(who_joins_takes_what_is_there_and_orders_must_agree) {
  const std::string name = own_name("join");
  const auto ring = Ring::open(name, shape());
  RingShape other = shape();
  other.record = "seed 2";
  other.sample_bytes = 10;
  const auto joined = Ring::open(name, other);
  CHECK(joined->shape().record == "seed 1" && joined->shape().sample_bytes == kSample);
  CHECK(ring->agree(3, 77) && joined->agree(3, 77) && !joined->agree(3, 78));
  CHECK(joined->agree(67, 5) && ring->agree(3, 1));  // too long ago to tell
  RingShape none = shape();
  none.sample_bytes = 0;
  bool refused = false;
  try {
    Ring::open(own_name("none"), none);
  } catch (const std::system_error& error) {
    refused = error.code().value() == EINVAL;
  }
  CHECK(refused);
}
