// The arenas this process has open: what is particular to arenas in how segments come and go
// (os/segment.hpp).
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "fetch/arena_memory.hpp"
#include "fetch/arena_paths.hpp"
#include "os/segment.hpp"

namespace coordl {

struct Core final : Segment {
  Core(ArenaPaths paths, std::shared_ptr<LockFile> lock, ArenaMemory memory)
      : Segment(paths, std::move(lock)), paths(std::move(paths)), memory(std::move(memory)) {}

  void enter(std::uint32_t member) noexcept override;
  bool busy() const noexcept override { return admitting.load() != 0; }
  void forget_threads() noexcept override { admitting.store(0); }
  bool outlives_users() const noexcept override { return memory.persists(); }
  std::uint32_t most_members() const noexcept override { return layout::kMembers; }

  const ArenaPaths paths;
  ArenaMemory memory;
  std::atomic<std::uint32_t> admitting{0};  // threads inside admit(); none may be when the lease ends
};

// What an opener asks for.
struct Request {
  std::uint64_t budget_bytes = 0, expected_items = 0;
  ArenaPlace place;
};

std::shared_ptr<Core> open_core(const std::string& name, Request request);

}  // namespace coordl
