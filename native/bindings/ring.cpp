// Bindings of staging/ring.hpp and staging/feed.hpp: check, convert, release the GIL, call.
#include "staging/ring.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/rows.hpp"
#include "os/steps.hpp"
#include "staging/feed.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using coordl::Feed;
using coordl::Portion;
using coordl::Ring;
using coordl::RowStatus;

using Numbers = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

nb::dict ring_dict(const coordl::RingInfo& info) {
  nb::dict out;
  out["name"] = info.name;
  out["readable"] = info.readable;
  out["users"] = info.users;
  out["slots"] = info.slots;
  out["slot_bytes"] = info.slot_bytes;
  out["file_bytes"] = info.file_bytes;
  out["sample_bytes"] = info.sample_bytes;
  out["run_samples"] = info.run_samples;
  out["epoch_samples"] = info.epoch_samples;
  out["claimed"] = info.claimed;
  out["published"] = info.published;
  out["record"] = info.record;
  nb::list members;
  const std::uint64_t runs =
      info.run_samples == 0 ? 1 : (info.epoch_samples + info.run_samples - 1) / info.run_samples;
  for (const coordl::RingMember& member : info.members) {
    nb::dict one;
    one["pid"] = member.pid;
    one["passes"] = member.passes;
    one["epoch"] = member.position / std::max<std::uint64_t>(1, runs);
    one["sample"] = member.position % std::max<std::uint64_t>(1, runs) * info.run_samples;
    one["prepared"] = member.prepared;
    one["alone"] = member.alone;
    one["staged"] = member.staged;
    one["began_s"] = member.began_s;
    members.append(one);
  }
  out["members"] = members;
  return out;
}

// Rows that did not end well: (row, what happened, errno).
std::vector<std::tuple<std::size_t, const char*, int>> exceptions_of(const Portion& portion) {
  std::vector<std::tuple<std::size_t, const char*, int>> rows;
  for (const Portion::Own& own : portion.own()) {
    for (std::size_t row = 0; row < own.ticket->size(); ++row) {
      if (own.ticket->status(row) == RowStatus::done) continue;
      rows.emplace_back(own.row + row, coordl::status_name(own.ticket->status(row)),
                        own.ticket->error(row));
    }
  }
  return rows;
}

nb::bytes item_of(const Portion& portion, std::size_t row) {
  for (const Portion::Own& own : portion.own()) {
    if (row < own.row || row - own.row >= own.ticket->size()) continue;
    const auto item = own.ticket->item(row - own.row);
    return nb::bytes(reinterpret_cast<const char*>(item.data()), item.size());
  }
  throw nb::index_error("that row was not prepared here");
}

nb::dict counts_of(const Feed& feed) {
  coordl::FeedCounts counts;
  {
    const nb::gil_scoped_release release;
    counts = feed.counts();
  }
  nb::dict out;
  out["prepared"] = counts.prepared;
  out["alone"] = counts.alone;
  out["staged"] = counts.staged;
  out["viewed"] = counts.viewed;
  out["given_up"] = counts.waits;
  out["taken_over"] = counts.taken;
  return out;
}

// A record of varying size: its length, then its bytes. Samples that do not fit are noted as not there.
bool put(Ring& ring, std::uint64_t run, const nb::bytes& record) {
  const std::span<std::byte> memory = ring.memory(run);
  const std::uint64_t size = record.size();
  const std::uint64_t done[] = {size > 0 && memory.size() >= sizeof size &&
                                size <= memory.size() - sizeof size};
  const auto* data = static_cast<const std::byte*>(record.data());
  const nb::gil_scoped_release release;
  if (done[0]) {
    std::memcpy(memory.data(), &size, sizeof size);
    std::memcpy(memory.data() + sizeof size, data, size);
  }
  coordl::at_step("fill:sample");
  ring.publish(run, done);
  return done[0];
}

nb::object take(Ring& ring, std::uint64_t run) {
  nb::object out = nb::none();
  ring.show(run, [&](std::span<const std::byte> memory, const std::uint64_t* done) {
    std::uint64_t size = 0;
    std::memcpy(&size, memory.data(), sizeof size);
    const bool there = (done[0] & 1) != 0 && size <= memory.size() - sizeof size;
    out = nb::bytes(memory.data() + sizeof size, there ? size : 0);
  });
  return out;
}

const char* run_name(coordl::Run found) {
  using coordl::Run;
  switch (found) {
    case Run::staged: return "staged";
    case Run::mine: return "mine";
    case Run::others: return "others";
    case Run::open: return "open";
    case Run::gone: break;
  }
  return "gone";
}

std::vector<std::int64_t> copied(const Numbers& numbers) {
  return {numbers.data(), numbers.data() + numbers.shape(0)};
}

}  // namespace

void bind_ring(nb::module_& m) {
  nb::class_<Ring>(m, "Ring",
                   "The staging ring of a group; see docs/shared-memory.md. Any thread and any forked\n"
                   "child may use it.")
      .def_static("open",
                  [](const std::string& name, std::uint64_t sample_bytes,
                     std::uint64_t epoch_samples, std::uint64_t run_samples, std::uint64_t bytes,
                     const std::string& record) {
                    return Ring::open(name, {sample_bytes, epoch_samples, run_samples, bytes, record});
                  },
                  "name"_a, "sample_bytes"_a, "epoch_samples"_a, "run_samples"_a, "bytes"_a,
                  "record"_a, nb::call_guard<nb::gil_scoped_release>(),
                  "Makes it so, or takes what is there. Raises OSError with the kernel's errno.")
      .def_prop_ro("record", [](const Ring& ring) { return ring.shape().record; })
      .def_prop_ro("sample_bytes", [](const Ring& ring) { return ring.shape().sample_bytes; })
      .def_prop_ro("epoch_samples", [](const Ring& ring) { return ring.shape().epoch_samples; })
      .def_prop_ro("run_samples", [](const Ring& ring) { return ring.shape().run_samples; })
      .def_prop_ro("slots", &Ring::slots)
      .def_prop_ro("slot_bytes", [](const Ring& ring) { return ring.memory(0).size(); })
      .def("ensure_lease", &Ring::ensure_lease, nb::call_guard<nb::gil_scoped_release>(),
           "Takes this process's lease now. False when the ring was cleared meanwhile.")
      .def("agree", &Ring::agree, "epoch"_a, "digest"_a,
           "False when another member said that the epoch's order has another digest.")
      .def("info", [](const Ring& ring) { return ring_dict(ring.info()); },
           nb::sig("def info(self) -> dict[str, typing.Any]"))
      .def("look",
           [](Ring& ring, std::uint64_t run) {
             std::uint32_t holder = 0;
             const char* found = run_name(ring.look(run, holder));
             return std::make_tuple(found, holder);
           },
           "run"_a, "('staged' | 'mine' | 'others' | 'open' | 'gone', who is waited for)")
      .def("claim", &Ring::claim, "run"_a, nb::call_guard<nb::gil_scoped_release>(),
           "Makes an open run, or a dead member's, this process's to prepare.")
      .def("release", &Ring::release, "run"_a, "Gives a claim up.")
      .def("put", &put, "run"_a, "record"_a,
           "Publishes a run of ours that is one record. False when that is too large: then it is\n"
           "noted that it is not there.")
      .def("take", &take, "run"_a, nb::sig("def take(self, run: int) -> bytes | None"),
           "The record; empty when it is not there, None when the run is not staged.")
      .def("bell", &Ring::bell)
      .def("listen", &Ring::listen, "run"_a, "Has the bell rung when the run's slot changes.")
      .def("wait", &Ring::wait, "seen"_a, "most_ms"_a, nb::call_guard<nb::gil_scoped_release>(),
           "Until the bell rang since bell() said `seen`, or that long.")
      .def("beat_of", &Ring::beat_of, "member"_a)
      .def("count_pass", &Ring::count_pass, "change"_a)
      .def("cores", &Ring::cores, "Cores that live processes in a pass may run on, together.")
      .def("active", &Ring::active, "passes"_a, "Live processes that are in so many passes or more.")
      .def("at", &Ring::at, "run"_a)
      .def("count", &Ring::count, "prepared"_a, "alone"_a, "staged"_a)
      .def("close", &Ring::close, nb::call_guard<nb::gil_scoped_release>());

  nb::class_<Portion>(m, "Portion", "One minibatch on its way through a ring.")
      .def("__len__", &Portion::size)
      .def("memory", &Portion::memory, "Where its samples are; None where put() was given a buffer.")
      .def("exceptions", &exceptions_of, "(row, what, errno) of rows that are not done.")
      .def("item", &item_of, "row"_a, "Encoded bytes of a row that is not ours.");

  nb::class_<Feed>(m, "Feed", "One pass over a ring; see native/staging/feed.hpp.")
      .def(nb::new_([](const std::shared_ptr<Ring>& ring,
                       const std::shared_ptr<coordl::Workers>& workers, Numbers items,
                       Numbers indices, std::uint64_t seed, std::uint64_t epoch, int prep_threads,
                       int cores, double patience_s, std::shared_ptr<coordl::BufferPool> pool) {
             coordl::FeedOptions options;
             options.epoch = epoch;
             options.key = {seed, epoch};
             options.prep_threads = prep_threads;
             options.cores = cores;
             options.pool = std::move(pool);
             options.patience = std::chrono::nanoseconds(std::int64_t(patience_s * 1e9));
             auto all = copied(items), drawn = copied(indices);
             const nb::gil_scoped_release release;
             return std::make_shared<Feed>(ring, workers, std::move(all), std::move(drawn), options);
           }),
           "ring"_a, "workers"_a, "items"_a, "indices"_a, "seed"_a, "epoch"_a, "prep_threads"_a,
           "cores"_a, "patience_s"_a, "pool"_a = nullptr)
      // Without the GIL, as all that takes the feed's mutex: its threads may let go of a buffer that
      // Python holds, for which they need the GIL.
      .def("put", &Feed::put, "first"_a, "count"_a, "buffer"_a.none() = nullptr,
           nb::call_guard<nb::gil_scoped_release>(),
           "Samples [first, first + count) of the epoch's order, into the buffer or, without one,\n"
           "where Portion.memory() says once they are there.")
      .def("wait",
           [](Feed& feed, const std::shared_ptr<Portion>& portion, double timeout_s) {
             return coordl::wait_in_slices(timeout_s, [&](std::chrono::nanoseconds patience) {
               return feed.wait(*portion, patience);
             });
           },
           "portion"_a, "timeout_s"_a = 0.0, "True when all of it is there; False after timeout_s (0: never).")
      .def("counts", &counts_of, nb::sig("def counts(self) -> dict[str, int]"))
      .def("close", &Feed::close, nb::call_guard<nb::gil_scoped_release>());

  m.def("list_rings", [] {
    nb::list out;
    for (const coordl::RingInfo& info : coordl::list_rings()) out.append(ring_dict(info));
    return out;
  }, nb::sig("def list_rings() -> list[dict[str, typing.Any]]"),
        "Staging rings of this user that live: Ring.info() of each.");
  m.def("reap_rings", &coordl::reap_rings,
        "Unlinks this user's staging rings that no live user has; their names.");
  m.def("clear_ring", &coordl::clear_ring, "name"_a, "force"_a = false,
        nb::call_guard<nb::gil_scoped_release>(),
        "Unlinks a ring. OSError EBUSY when in use and not force, ENOENT when there is none.");
  m.attr("_staging_steps") = nb::cast(
      std::vector<std::string>(coordl::kStagingSteps.begin(), coordl::kStagingSteps.end()));
}
