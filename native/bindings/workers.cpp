// Bindings of prep/buffers.hpp and prep/workers.hpp: check, convert, release the GIL, call.
#include "prep/workers.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "bindings/rows.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using coordl::Buffer;
using coordl::BufferPool;
using coordl::ItemTable;
using coordl::RowStatus;
using coordl::Ticket;
using coordl::Workers;

template <class T, class Shape>
using Array = nb::ndarray<const T, Shape, nb::c_contig, nb::device::cpu>;
template <class T>
using Vector = Array<T, nb::ndim<1>>;

// In the file system's encoding, so that names that are no valid UTF-8 open as well.
nb::bytes file_name(nb::handle path) {
  nb::bytes encoded = nb::steal<nb::bytes>(PyUnicode_EncodeFSDefault(path.ptr()));
  if (!encoded.is_valid()) throw nb::python_error();
  return encoded;
}

std::shared_ptr<ItemTable> make_table(const nb::list& paths, Vector<std::int64_t> sizes,
                                      Vector<std::int64_t> mtimes_ns,
                                      Array<std::uint64_t, nb::shape<-1, 2>> keys) {
  const std::size_t count = paths.size();
  if (sizes.shape(0) != count || mtimes_ns.shape(0) != count || keys.shape(0) != count) {
    throw nb::value_error("paths, sizes, mtimes_ns and keys differ in length");
  }
  auto table = std::make_shared<ItemTable>();
  table->reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const nb::bytes path = file_name(paths[i]);
    table->add({path.c_str(), path.size()}, {static_cast<std::uint64_t>(sizes(i)), mtimes_ns(i)},
               {keys(i, 0), keys(i, 1)});
  }
  return table;
}

std::shared_ptr<ItemTable> make_parts(const nb::list& paths, Vector<std::int64_t> sizes,
                                      Vector<std::int64_t> mtimes_ns, Vector<std::uint32_t> shards,
                                      Vector<std::uint64_t> offsets, Vector<std::uint64_t> lengths,
                                      std::optional<Vector<std::uint64_t>> checksums,
                                      Array<std::uint64_t, nb::shape<-1, 2>> keys) {
  const std::size_t count = keys.shape(0);
  if (sizes.shape(0) != paths.size() || mtimes_ns.shape(0) != paths.size()) {
    throw nb::value_error("paths, sizes and mtimes_ns differ in length");
  }
  if (shards.shape(0) != count || offsets.shape(0) != count || lengths.shape(0) != count ||
      (checksums && checksums->shape(0) != count)) {
    throw nb::value_error("shards, offsets, lengths, checksums and keys differ in length");
  }
  auto table = std::make_shared<ItemTable>();
  table->reserve(count);
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const nb::bytes path = file_name(paths[i]);
    table->add_shard({path.c_str(), path.size()},
                     {static_cast<std::uint64_t>(sizes(i)), mtimes_ns(i)});
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (shards(i) >= paths.size()) throw nb::value_error("an item lies in a shard beyond the paths");
    const std::uint64_t sum = checksums ? (*checksums)(i) : 0;
    table->add_part({offsets(i), lengths(i), sum, shards(i), checksums.has_value()},
                    {keys(i, 0), keys(i, 1)});
  }
  return table;
}

// bfloat16 has no dtype in numpy: an array of its bits.
nb::dlpack::dtype dtype_of(const std::string& name) {
  if (name == "float32") return nb::dtype<float>();
  if (name == "uint8") return nb::dtype<std::uint8_t>();
  if (name == "float16") return {std::uint8_t(nb::dlpack::dtype_code::Float), 16, 1};
  if (name == "bfloat16") return nb::dtype<std::uint16_t>();
  throw nb::value_error(
      ("dtype '" + name + "' is unknown: use float32, uint8, float16 or bfloat16").c_str());
}

// The array owns the buffer: it goes back to the pool when the last view of the array dies.
nb::ndarray<nb::numpy> buffer_array(const std::shared_ptr<Buffer>& buffer,
                                    const std::vector<std::size_t>& shape,
                                    const std::string& dtype_name) {
  const nb::dlpack::dtype dtype = dtype_of(dtype_name);
  std::size_t bytes = dtype.bits / 8;
  for (const std::size_t extent : shape) bytes *= extent;
  if (bytes > buffer->bytes().size()) throw nb::value_error("shape exceeds the buffer");
  auto owner = std::make_unique<std::shared_ptr<Buffer>>(buffer);
  nb::capsule capsule(owner.get(), [](void* held) noexcept {
    std::unique_ptr<std::shared_ptr<Buffer>>(static_cast<std::shared_ptr<Buffer>*>(held));
  });
  static_cast<void>(owner.release());
  return nb::ndarray<nb::numpy>(buffer->bytes().data(), shape.size(), shape.data(), capsule,
                                nullptr, dtype);
}

// Memory of a Python object, which lives as long as the buffer. The last user may be a native thread.
std::shared_ptr<Buffer> buffer_over(std::uintptr_t address, std::size_t bytes, nb::object owner) {
  const std::span<std::byte> memory(reinterpret_cast<std::byte*>(address), bytes);
  return std::make_shared<Buffer>(memory,
                                  std::shared_ptr<void>(owner.release().ptr(), [](void* held) {
                                    if (!Py_IsInitialized()) return;
                                    const nb::gil_scoped_acquire gil;
                                    Py_DECREF(static_cast<PyObject*>(held));
                                  }));
}

// Rows that did not end well: (row, what happened, errno).
std::vector<std::tuple<std::size_t, const char*, int>> exceptions_of(const Ticket& ticket) {
  std::vector<std::tuple<std::size_t, const char*, int>> rows;
  for (std::size_t row = 0; row < ticket.size(); ++row) {
    if (ticket.status(row) == RowStatus::done) continue;
    rows.emplace_back(row, coordl::status_name(ticket.status(row)), ticket.error(row));
  }
  return rows;
}

nb::bytes item_bytes(const Ticket& ticket, std::size_t row) {
  if (row >= ticket.size()) throw nb::index_error("row beyond the minibatch");
  const auto item = ticket.item(row);
  return nb::bytes(reinterpret_cast<const char*>(item.data()), item.size());
}

bool wait(Workers& workers, const std::shared_ptr<Ticket>& ticket, double timeout_s) {
  return coordl::wait_in_slices(timeout_s, [&](std::chrono::nanoseconds patience) {
    return workers.wait(*ticket, patience);
  });
}

coordl::FormPolicy policy_named(const std::string& name) {
  using coordl::FormPolicy;
  if (name == "auto") return FormPolicy::automatic;
  if (name == "packed") return FormPolicy::packed;
  if (name == "indexed") return FormPolicy::indexed;
  if (name == "original") return FormPolicy::original;
  throw nb::value_error(("form '" + name + "' is unknown: use auto, packed, indexed or original").c_str());
}

// What is read for whom, by name.
coordl::Keeper keeper_named(const std::string& name) {
  using coordl::Keeper;
  if (name == "here") return Keeper::here;
  if (name == "owner") return Keeper::owner;
  if (name == "nobody") return Keeper::nobody;
  throw nb::value_error(("keeper '" + name + "' is unknown: use here, owner or nobody").c_str());
}

// The bytes may be anyone's memory: native code copies them before it looks at them.
bool provide(Workers& workers, const std::shared_ptr<Ticket>& ticket, std::size_t row,
             nb::handle data, std::uint64_t sum) {
  Py_buffer view;
  if (PyObject_GetBuffer(data.ptr(), &view, PyBUF_SIMPLE) != 0) throw nb::python_error();
  bool right = false;
  try {
    nb::gil_scoped_release released;
    right = workers.provide(ticket, row,
                            {static_cast<const std::byte*>(view.buf), std::size_t(view.len)}, sum);
  } catch (...) {
    PyBuffer_Release(&view);
    throw;
  }
  PyBuffer_Release(&view);
  return right;
}

nb::list handed_over(Workers& workers, double timeout_s) {
  std::vector<coordl::FreshItem> items;
  {
    nb::gil_scoped_release released;
    items = workers.handed_over(std::chrono::nanoseconds(std::int64_t(timeout_s * 1e9)));
  }
  nb::list result;
  for (coordl::FreshItem& item : items) {
    result.append(nb::make_tuple(item.key.hi, item.key.lo,
                                 nb::bytes(reinterpret_cast<const char*>(item.bytes.data()),
                                           item.bytes.size())));
    std::vector<std::byte>().swap(item.bytes);
  }
  return result;
}

nb::dict counters(const Workers& workers) {
  const coordl::Counters& now = *workers.counters();
  nb::dict result;
  result["samples"] = now.samples.load();
  result["hits"] = now.hits.load();
  result["ssd_hits"] = now.disk_hits.load();
  result["remote_hits"] = now.remote_hits.load();
  result["remote_bytes"] = now.remote_bytes.load();
  result["misses"] = now.misses.load();
  result["storage_bytes"] = now.storage_bytes.load();
  result["admitted_bytes"] = now.admitted_bytes.load();
  result["read_ahead_bytes"] = now.read_ahead_bytes.load();
  result["fetch_s"] = static_cast<double>(now.fetch_ns.load()) * 1e-9;
  result["prep_s"] = static_cast<double>(now.prep_ns.load()) * 1e-9;
  result["admit_s"] = static_cast<double>(now.admit_ns.load()) * 1e-9;
  result["from_original"] = now.prepared[0].load();
  result["from_indexed"] = now.prepared[1].load();
  result["from_packed"] = now.prepared[2].load();
  return result;
}

}  // namespace

void bind_workers(nb::module_& m) {
  // A script may end with a minibatch or an iterator alive: the process frees them, not a leak.
  nb::set_leak_warnings(false);

  nb::class_<ItemTable>(m, "ItemTable", "Paths and identities of a data set's items; immutable.")
      .def(nb::new_(&make_table), "paths"_a, "sizes"_a, "mtimes_ns"_a, "keys"_a)
      .def_static("of_parts", &make_parts, "paths"_a, "sizes"_a, "mtimes_ns"_a, "shards"_a,
                  "offsets"_a, "lengths"_a, "checksums"_a.none(), "keys"_a,
                  "Items that are parts of shards: paths, sizes and times of the S shards; shard,\n"
                  "offset, length, checksum and key of the N items. Without checksums the shards are a\n"
                  "user's: their bytes hold while a shard has its size and time.")
      .def("__len__", &ItemTable::size);

  nb::class_<Buffer>(m, "Buffer", "Memory of one minibatch.")
      .def(nb::new_(&buffer_over), "address"_a, "bytes"_a, "owner"_a,
           "Over memory of another, which it keeps alive.")
      .def("array", &buffer_array, "shape"_a, "dtype"_a,
           "A writable numpy array over the buffer, which it keeps alive. dtype: float32, uint8,\n"
           "float16 or bfloat16 (an array of its bits, uint16).");

  nb::class_<BufferPool>(m, "BufferPool", "Recycles the memory of minibatches.")
      .def(nb::new_([](std::size_t max_free) { return BufferPool::create(max_free); }),
           "max_free"_a)
      .def("take", &BufferPool::take, "bytes"_a)
      .def_prop_ro("free_buffers", &BufferPool::free_buffers);

  nb::class_<Ticket>(m, "Ticket", "One minibatch on its way.")
      .def("__len__", &Ticket::size)
      .def_prop_ro("missing", [](const Ticket& ticket) { return ticket.missing(); },
                   "Rows whose item was not in the cache when the ticket was made.")
      .def("exceptions", &exceptions_of, "(row, what, errno) of rows that are not done.")
      .def("item", &item_bytes, "row"_a, "Encoded bytes of a row that is not ours.");

  nb::class_<Workers>(m, "Workers", "Fetch and prep threads; see native/prep/workers.hpp.")
      .def(nb::new_([](const std::shared_ptr<ItemTable>& items, const coordl::Pass& pass,
                       const std::shared_ptr<coordl::Tiers>& cache, int prep_threads,
                       int fetch_threads, std::size_t read_ahead_bytes, const std::string& form,
                       int servers, std::size_t handover_bytes) {
             return std::make_shared<Workers>(
                 items, pass, cache,
                 coordl::WorkersOptions{prep_threads, fetch_threads, read_ahead_bytes,
                                        policy_named(form), servers, handover_bytes});
           }),
           "items"_a, "pass_"_a, "cache"_a.none(), "prep_threads"_a, "fetch_threads"_a,
           "read_ahead_bytes"_a, "form"_a = "auto", "servers"_a = 1, "handover_bytes"_a = 0)
      .def("ticket",
           [](const Workers& workers, Vector<std::int64_t> items, Vector<std::int64_t> indices,
              std::uint64_t seed, std::uint64_t epoch) {
             return workers.ticket({items.data(), items.shape(0)},
                                   {indices.data(), indices.shape(0)}, {seed, epoch});
           },
           "items"_a, "indices"_a, "seed"_a, "epoch"_a)
      .def("announce",
           [](Workers& workers, const std::shared_ptr<Ticket>& ticket,
              const std::optional<Vector<std::int64_t>>& asked) {
             nb::gil_scoped_release released;
             if (asked) {
               workers.announce(ticket, {asked->data(), asked->shape(0)});
             } else {
               workers.announce(ticket);
             }
           },
           "ticket"_a, "asked"_a.none() = nb::none(),
           "Reads ahead what it lacks; in the order in which tickets are submitted. `asked`: rows\n"
           "another server is asked for, which provide() or read() must end.")
      .def("provide", &provide, "ticket"_a, "row"_a, "data"_a, "checksum"_a,
           nb::sig("def provide(self, ticket: Ticket, row: int, data: bytes | bytearray | memoryview, "
                   "checksum: int) -> bool"),
           "What another server gave for an asked row. False when it is not the row's item.")
      .def("read",
           [](Workers& workers, const std::shared_ptr<Ticket>& ticket, Vector<std::int64_t> rows,
              const std::string& keeper) {
             const coordl::Keeper whose = keeper_named(keeper);
             nb::gil_scoped_release released;
             workers.read(ticket, {rows.data(), rows.shape(0)}, whose);
           },
           "ticket"_a, "rows"_a, "keeper"_a,
           "Reads asked rows from storage, for the cache 'here', for their 'owner' or for 'nobody'.")
      .def("handed_over", &handed_over, "timeout_s"_a = 0.0,
           nb::sig("def handed_over(self, timeout_s: float = 0.0) -> list[tuple[int, int, bytes]]"),
           "(high, low, bytes) of items read for their owners; waits for the first up to timeout_s.")
      .def("submit",
           [](Workers& workers, const std::shared_ptr<Ticket>& ticket,
              const std::shared_ptr<Buffer>& buffer) {
             nb::gil_scoped_release released;
             workers.submit(ticket, buffer);
           },
           "ticket"_a, "buffer"_a)
      .def("wait", &wait, "ticket"_a, "timeout_s"_a = 0.0,
           "True when every row ended; False after timeout_s (0: never).")
      .def("close",
           [](Workers& workers) {
             nb::gil_scoped_release released;
             workers.close();
           })
      .def("counters", &counters);
}
