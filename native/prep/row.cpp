#include "prep/row.hpp"

#include <cerrno>
#include <chrono>
#include <exception>
#include <string>

#include "fetch/checksum.hpp"
#include "prep/keep.hpp"

namespace coordl {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMostGrowth = 4;           // of an item, by a form of ours
constexpr std::uint64_t kLeastRoom = 64 << 10;     // and for what the smallest need besides

std::uint64_t since_ns(Clock::time_point start) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

void add(std::atomic<std::uint64_t>& counter, std::uint64_t amount) {
  counter.fetch_add(amount, std::memory_order_relaxed);
}

FileRead read_item(const std::string& path, const Part* part, std::vector<std::byte>& bytes,
                   StorageRate& rate) {
  StorageRate::Reading reading(rate);
  const FileRead read = part != nullptr ? read_part(path, part->offset, part->length, bytes)
                                        : read_file(path, bytes);
  if (read.error == 0) reading.got(bytes.size());
  return read;
}

// What was read comes from outside: whatever calls itself an item of ours is decoded without further
// checks. Pending: go on. Our form in a file of the user's is his loader's affair.
RowStatus vet(const Part* part, std::span<const std::byte> bytes) {
  if (part == nullptr || !part->summed) {
    return form_of(bytes) == Form::original ? RowStatus::pending : RowStatus::not_ours;
  }
  const bool whole = checksum({part->offset, part->length}, bytes) == part->checksum;
  return whole && check_item(bytes) ? RowStatus::pending : RowStatus::damaged;
}

}  // namespace

// On the disk, or in memory by now: another process may have brought it since the ticket was made.
bool RowSteps::find(Row& row) noexcept {
  const auto held = cache_ != nullptr ? cache_->find(items_.key(row.item)) : std::nullopt;
  if (!held) return false;
  add(counters_.hits, 1);
  if (held->on_disk) add(counters_.disk_hits, 1);
  row.view = held->bytes;
  return true;
}

void RowSteps::fetch(Row& row, std::vector<std::byte>& bytes) noexcept {
  const auto start = Clock::now();
  try {
    if (!find(row)) read(row, bytes);
  } catch (...) {  // bad_alloc
    row.status = RowStatus::io_error;
    row.error = ENOMEM;
  }
  add(counters_.fetch_ns, since_ns(start));
}

void RowSteps::read(Row& row, std::vector<std::byte>& bytes) {
  add(counters_.misses, 1);
  const Part* const part = items_.part(row.item);
  const FileRead read = read_item(items_.path(row.item), part, bytes, forms_.storage());
  if (read.error == 0 && part != nullptr && !part->summed &&
      read.identity != items_.identity(row.item)) {
    row.status = RowStatus::changed;  // at its offset there may be anything now
    return;
  }
  if (read.error != 0 || read.truncated) {
    row.status = read.error != 0 ? RowStatus::io_error : RowStatus::truncated;
    row.error = read.error;
    return;
  }
  add(counters_.storage_bytes, bytes.size());
  row.view = bytes;
  row.status = vet(part, bytes);
  if (row.status == RowStatus::damaged) row.view = {};
  // An identity other than the table's is a changed file: good to train on, as any reader would, but
  // its key names the old one.
  row.fresh = cache_ != nullptr && row.keeper != Keeper::nobody &&
              read.identity == items_.identity(row.item);
}

// What comes over the wire may be anything. Its checksum names the item; an original has the length of
// its file, and no form of ours is many times as long.
bool RowSteps::take(Row& row, std::span<const std::byte> given, std::uint64_t sum,
                    std::vector<std::byte>& bytes) const {
  const std::uint64_t known = items_.bytes(row.item);
  if (given.empty() || given.size() > kMostGrowth * known + kLeastRoom) return false;
  bytes.assign(given.begin(), given.end());  // checked is what nobody else can write to
  if (checksum(items_.key(row.item), bytes) != sum) return false;
  if (form_of(bytes) == Form::original ? bytes.size() != known : !check_item(bytes)) return false;
  return true;
}

bool RowSteps::has_room(const Row& row, std::size_t bytes) const {
  return row.keeper == Keeper::here ? cache_->takes(items_.key(row.item), bytes)
                                    : handover_.takes(bytes);
}

// Rewrites a fresh item into the form that serves best and admits it, the row then reading what is
// held; or hands it over to who sends it to its owner. Work of a prep thread: it computes.
void RowSteps::admit(Row& row, PrepThread& thread) noexcept {
  const auto start = Clock::now();
  const ItemKey key = items_.key(row.item);
  if (!has_room(row, row.view.size())) return;
  try {
    const DataSetSize size{double(items_.size()), double(items_.total_bytes()),
                           double(cache_->budget_bytes()) * servers_};
    std::span<const std::byte> bytes = row.view;
    Form form = form_of(bytes);  // a packed shard's items are in theirs already
    const Form wanted = form == Form::original ? forms_.choose(key, size) : form;
    if (wanted != form && thread.decoder.recode(bytes, wanted, true, thread.rewritten) &&
        has_room(row, thread.rewritten.size())) {
      forms_.rewritten(wanted, bytes.size(), thread.rewritten.size());
      form = wanted;
      bytes = thread.rewritten;
    }
    if (row.keeper == Keeper::owner) {
      handover_.push(key, bytes);
    } else if (cache_->admit(key, bytes, static_cast<int>(form))) {
      add(counters_.admitted_bytes, bytes.size());
      const Part whole;
      const Part& part = items_.part(row.item) != nullptr ? *items_.part(row.item) : whole;
      drop_from_page_cache(items_.path(row.item), part.offset, part.length);  // held once
      if (const auto held = cache_->find_in_memory(key)) row.view = *held;
    }
  } catch (const std::exception&) {  // no memory: the row has its bytes
  }
  trim(thread.rewritten);
  add(counters_.admit_ns, since_ns(start));
}

void RowSteps::prepare(Row& row, DrawKey key, std::span<std::byte> out, PrepThread& thread) noexcept {
  if (row.fresh) admit(row, thread);
  const auto start = Clock::now();
  const Form form = form_of(row.view);
  const Prepared result =
      coordl::prepare(row.view, pass_, key.seed, key.epoch, row.index, out, thread.scratch);
  row.status = result == Prepared::done ? RowStatus::done : RowStatus::not_ours;
  const std::uint64_t ns = since_ns(start);
  if (result == Prepared::done) {
    forms_.prepared(form, ns, items_.bytes(row.item));
    add(counters_.prepared[static_cast<std::size_t>(form)], 1);
  }
  add(counters_.prep_ns, ns);
}

}  // namespace coordl
