// Bindings of native/fetch: Arena, file reads, and the tests' step hook. Check and convert only.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "bindings/bytes.hpp"
#include "bindings/held.hpp"
#include "fetch/arena.hpp"
#include "fetch/file.hpp"
#include "fetch/tiers.hpp"
#include "os/limits.hpp"
#include "os/numa.hpp"
#include "os/steps.hpp"
#include "prep/item.hpp"

namespace nb = nanobind;
using namespace nb::literals;

using coordl::Bytes;

namespace {

using coordl::Arena;
using coordl::HeldItem;
using coordl::ItemKey;
using coordl::Tiers;

// OSError, or its subclass for that errno, with the path as its filename.
[[noreturn]] void raise_os_error(int error, nb::handle path) {
  errno = error;
  PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path.ptr());
  throw nb::python_error();
}

// std::system_error -> OSError (and its errno's subclass, PermissionError and so on).
void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const std::system_error& error) {
    PyObject* args = Py_BuildValue("(is)", error.code().value(), error.what());
    if (args != nullptr) PyErr_SetObject(PyExc_OSError, args);
    Py_XDECREF(args);
  }
}

// A path as the kernel takes it: str (undecodable bytes escaped), bytes or os.PathLike.
std::string file_path(nb::handle object) {
  PyObject* bytes = nullptr;
  if (PyUnicode_FSConverter(object.ptr(), &bytes) == 0) throw nb::python_error();
  const nb::bytes owned = nb::steal<nb::bytes>(bytes);
  return {owned.c_str(), owned.size()};
}

int item_buffer(PyObject* self, Py_buffer* view, int flags) {
  if (!nb::inst_ready(self)) {  // made by __new__ alone
    PyErr_SetString(PyExc_BufferError, "no item");
    return -1;
  }
  const HeldItem* item = nb::inst_ptr<HeldItem>(self);
  return PyBuffer_FillInfo(view, self, const_cast<std::byte*>(item->bytes.data()),
                           static_cast<Py_ssize_t>(item->bytes.size()), /*readonly=*/1, flags);
}

PyType_Slot item_slots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(item_buffer)}, {0, nullptr}};

nb::object view_of(std::shared_ptr<const void> home, std::span<const std::byte> bytes) {
  const nb::object item = nb::cast(HeldItem{std::move(home), bytes});
  return nb::steal(PyMemoryView_FromObject(item.ptr()));
}

nb::object find(const std::shared_ptr<Arena>& arena, std::uint64_t hi, std::uint64_t lo) {
  const auto bytes = arena->find({hi, lo});
  return bytes ? view_of(arena, *bytes) : nb::none();
}

nb::object find_in_tiers(const std::shared_ptr<Tiers>& tiers, std::uint64_t hi, std::uint64_t lo) {
  if (const auto bytes = tiers->find_in_memory({hi, lo})) return view_of(tiers, *bytes);
  if (!tiers->seems_on_disk({hi, lo})) return nb::none();
  std::optional<coordl::Held> held;
  {
    const nb::gil_scoped_release release;  // it waits for the disk
    held = tiers->find({hi, lo});
  }
  return held ? view_of(tiers, held->bytes) : nb::none();
}

template <class Home>
bool admit(Home& home, std::uint64_t hi, std::uint64_t lo, nb::handle buffer) {
  const Bytes bytes(buffer);
  // Who reads it later decodes what calls itself an item of ours unchecked.
  if (!coordl::check_item(bytes.span())) throw nb::value_error("the item is damaged");
  const int kind = static_cast<int>(coordl::form_of(bytes.span()));
  const nb::gil_scoped_release release;
  return home.admit({hi, lo}, bytes.span(), kind);
}

nb::dict stats_dict(const coordl::ArenaStats& stats) {
  nb::dict out;
  out["budget_bytes"] = stats.budget_bytes;
  out["asked_bytes"] = stats.asked_bytes;
  out["used_bytes"] = stats.used_bytes;
  out["held_bytes"] = stats.held_bytes;
  out["most_bytes"] = stats.most_bytes;
  out["index_slots"] = stats.index_slots;
  out["persist"] = static_cast<int>(stats.persist);
  out["reserved_bytes"] = stats.reserved_bytes;
  out["items"] = stats.items;
  out["users"] = stats.users;
  out["stopped_errno"] = stats.stopped;
  out["damaged_items"] = stats.damaged;
  constexpr const char* forms[] = {"original", "indexed", "packed"};  // the kinds of item we admit
  for (int kind = 0; kind < 3; ++kind) {
    out[(std::string(forms[kind]) + "_items").c_str()] = stats.kind_items[kind];
    out[(std::string(forms[kind]) + "_bytes").c_str()] = stats.kind_bytes[kind];
  }
  return out;
}

using Keys = nb::ndarray<const std::uint64_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;

// Admits fresh items of `bytes` zeros, `count` of them: seconds of copy, checksum and index.
double time_admissions(Arena& arena, std::uint64_t first, std::uint64_t count, std::size_t bytes) {
  const std::vector<std::byte> item(bytes);
  const nb::gil_scoped_release release;
  const auto begin = std::chrono::steady_clock::now();
  for (std::uint64_t i = first; i < first + count; ++i) arena.admit({i, ~i}, item);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Lookups of every key, `rounds` times, in native code: (hits, seconds). For benchmarks.
std::pair<std::uint64_t, double> time_lookups(const Arena& arena, const Keys& keys, int rounds) {
  const std::uint64_t* key = keys.data();
  const std::size_t count = keys.shape(0);
  const nb::gil_scoped_release release;
  std::uint64_t hits = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < count; ++i) {
      hits += arena.find({key[2 * i], key[2 * i + 1]}).has_value();
    }
  }
  return {hits, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count()};
}

template <typename T>
nb::object numpy_array(std::vector<T> values) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  std::vector<T>* data = owned.get();
  const nb::capsule owner(data, [](void* p) noexcept {
    const std::unique_ptr<std::vector<T>> dropped(static_cast<std::vector<T>*>(p));
  });
  static_cast<void>(owned.release());
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(data->data(), {data->size()}, owner));
}

nb::tuple stat_files(const nb::sequence& given, unsigned threads) {
  std::vector<std::string> paths;
  for (const nb::handle path : given) paths.push_back(file_path(path));
  std::vector<coordl::FileStat> found(paths.size());
  std::vector<std::int64_t> sizes(paths.size()), mtimes(paths.size());
  std::vector<std::int32_t> errors(paths.size());
  {
    const nb::gil_scoped_release release;
    coordl::stat_files(paths, threads, found);
    for (std::size_t i = 0; i < found.size(); ++i) {
      sizes[i] = static_cast<std::int64_t>(found[i].identity.size);
      mtimes[i] = found[i].identity.mtime_ns;
      errors[i] = found[i].error;
    }
  }
  return nb::make_tuple(numpy_array(std::move(sizes)), numpy_array(std::move(mtimes)),
                        numpy_array(std::move(errors)));
}

// What read(path, bytes) found, without the GIL: (bytes, size, mtime_ns of the file).
template <class Read>
nb::tuple read_result(nb::handle given, const Read& reading) {
  const std::string path = file_path(given);
  std::vector<std::byte> bytes;
  coordl::FileRead read;
  {
    const nb::gil_scoped_release release;
    read = reading(path, bytes);
  }
  if (read.error != 0) raise_os_error(read.error, given);
  if (read.truncated) {
    const std::string text = path + " changed while it was read: " + std::to_string(bytes.size()) +
                             " of " + std::to_string(read.identity.size) + " bytes";
    PyErr_SetString(PyExc_EOFError, text.c_str());
    throw nb::python_error();
  }
  return nb::make_tuple(nb::bytes(bytes.data(), bytes.size()), read.identity.size,
                        read.identity.mtime_ns);
}

nb::tuple read_identified(nb::handle path) { return read_result(path, coordl::read_file); }

nb::tuple read_part(nb::handle path, std::uint64_t offset, std::uint64_t length) {
  return read_result(path, [&](const std::string& name, std::vector<std::byte>& bytes) {
    return coordl::read_part(name, offset, length, bytes);
  });
}

// The tests' hook: a signal to oneself at some steps, and where one is. Static storage, as the hook
// is a function.
std::map<std::string, int, std::less<>> chosen_signals;
std::uint8_t* reached_step = nullptr;

void hook_of_tests(const char* reached) noexcept {
  if (reached_step != nullptr) {
    const auto& steps = coordl::kSteps;
    const auto at = std::find_if(steps.begin(), steps.end(),
                                 [&](const char* step) { return std::strcmp(step, reached) == 0; });
    *reached_step = static_cast<std::uint8_t>(at - steps.begin() + 1);
  }
  const auto at = chosen_signals.find(reached);
  if (at == chosen_signals.end()) return;
  if (const int number = std::atomic_ref(at->second).exchange(0)) ::raise(number);  // by one thread
}

void signal_at(std::map<std::string, int> signals) {
  chosen_signals = {signals.begin(), signals.end()};
  coordl::step_hook = chosen_signals.empty() ? nullptr : &hook_of_tests;
}

void record_steps(const nb::ndarray<std::uint8_t, nb::shape<1>, nb::device::cpu>& where) {
  reached_step = where.data();
  coordl::step_hook = &hook_of_tests;
}

nb::dict memory_limits() {
  const auto limits = coordl::read_memory_limits(coordl::arena_directory());
  const auto allowance = coordl::memory_allowance(limits);
  nb::dict out;
  const auto put = [&](const char* name, std::uint64_t bytes) {
    out[name] = bytes == coordl::kUnlimited ? nb::object(nb::none()) : nb::object(nb::int_(bytes));
  };
  put("shm_bytes", limits.shm_bytes);
  put("shm_free_bytes", limits.shm_free_bytes);
  put("cgroup_bytes", limits.cgroup_bytes);
  put("cgroup_free_bytes", limits.cgroup_free_bytes);
  put("memory_bytes", limits.memory_bytes);
  put("memory_free_bytes", limits.memory_free_bytes);
  put("allowed_bytes", allowance.bytes);
  constexpr const char* names[] = {"none", "shm", "cgroup", "memory"};
  out["limit"] = names[static_cast<int>(allowance.limit)];
  return out;
}

// Shared memory, or the disk of that directory.
coordl::ArenaPlace place_of(const std::optional<std::string>& kept_in) {
  return {.directory = kept_in.value_or(""), .check = &coordl::check_item};
}

void bind_arena(nb::module_& m) {
  nb::class_<HeldItem>(m, "_Item", nb::type_slots(item_slots), "Exporter behind Arena.find's views.");
  nb::class_<Arena>(m, "Arena",
                    "A never-evict shared-memory cache of this user; see docs/shared-memory.md.\n\n"
                    "Any thread and any forked child may use it.")
      .def_static("open",
                  [](const std::string& name, std::uint64_t budget_bytes,
                     std::uint64_t expected_items, bool persist, bool raise_budget,
                     const std::optional<std::string>& kept_in) {
                    coordl::ArenaPlace place = place_of(kept_in);
                    place.persist = persist;
                    place.raise_budget = raise_budget;
                    return Arena::open(name, budget_bytes, expected_items, place);
                  },
                  "name"_a, "budget_bytes"_a, "expected_items"_a, "persist"_a = false,
                  "raise_budget"_a = true, "kept_in"_a.none() = nb::none(),
                  nb::call_guard<nb::gil_scoped_release>(),
                  "Opens or creates: in shared memory, or on the disk of the directory `kept_in`,\n"
                  "where it stays. Raises OSError with the kernel's errno.")
      .def("find", &find, "hi"_a, "lo"_a,
           nb::sig("def find(self, hi: int, lo: int) -> memoryview | None"),
           "The item as a read-only memoryview, or None. No copy; valid as long as it lives.")
      .def("admit", &admit<Arena>, "hi"_a, "lo"_a, "data"_a,
           nb::sig("def admit(self, hi: int, lo: int, data: bytes | bytearray | memoryview) -> bool"),
           "Copies the item in. False when it does not fit; True when it is held now.")
      .def("stats", [](const Arena& arena) { return stats_dict(arena.stats()); },
           nb::sig("def stats(self) -> dict[str, int]"))
      .def("verify", [](const Arena& arena) {
        std::vector<std::string> faults;
        {
          const nb::gil_scoped_release release;
          faults = arena.verify();
        }
        return faults;
      },
           "One line per fault; empty when every item is as it was admitted.")
      .def("ensure_lease", &Arena::ensure_lease, nb::call_guard<nb::gil_scoped_release>(),
           "Takes this process's lease now. False when the arena was cleared meanwhile.")
      .def("close", &Arena::close, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("name", &Arena::name)
      .def("_time_admissions", &time_admissions, "first"_a, "count"_a, "bytes"_a)
      .def("_time_lookups", &time_lookups, "keys"_a, "rounds"_a);
  m.def("list_arenas", [](const std::optional<std::string>& kept_in) {
    nb::list out;
    for (const auto& info : coordl::list_arenas(place_of(kept_in))) {
      nb::dict entry = stats_dict(info.stats);
      entry["name"] = info.name;
      entry["readable"] = info.readable;
      out.append(entry);
    }
    return out;
  }, "kept_in"_a.none() = nb::none(),
        nb::sig("def list_arenas(kept_in: str | None = None) -> list[dict[str, typing.Any]]"),
        "Arenas of this user that live or persist in shared memory, or on the disk of a directory:\n"
        "Arena.stats() of each, with name and readable.");
  m.def("verify_arena", [](const std::string& name, const std::optional<std::string>& kept_in) {
    coordl::Verified found;
    {
      const nb::gil_scoped_release release;
      found = coordl::verify_arena(name, place_of(kept_in));
    }
    return nb::make_tuple(found.items, found.bytes, found.faults);
  }, "name"_a, "kept_in"_a.none() = nb::none(),
        nb::sig("def verify_arena(name: str, kept_in: str | None = None) "
                "-> tuple[int, int, list[str]]"),
        "(items, bytes, faults) of an arena, re-checked from outside. OSError ENOENT when there is\n"
        "none, EPROTO when it is another version's or damaged.");
  m.def("reap_arenas", &coordl::reap_arenas,
        "Unlinks this user's arenas in shared memory that no live user has and that do not persist;\n"
        "their names.");
  m.def("numa_nodes", &coordl::numa_nodes, "NUMA nodes online.");
  m.def("clear_arena",
        [](const std::string& name, bool force, const std::optional<std::string>& kept_in) {
          coordl::clear_arena(name, force, place_of(kept_in));
        },
        "name"_a, "force"_a = false, "kept_in"_a.none() = nb::none(),
        nb::call_guard<nb::gil_scoped_release>(),
        "Unlinks an arena. OSError EBUSY when in use and not force, ENOENT when there is none.");
  m.def("arena_directory", &coordl::arena_directory);
  m.def("memory_limits", &memory_limits,
        nb::sig("def memory_limits() -> dict[str, typing.Any]"),
        "Bytes by limit (None: unlimited), and what an arena may take now (allowed_bytes, limit).");
}

void bind_tiers(nb::module_& m) {
  nb::class_<Tiers>(m, "Tiers", "Shared memory, then perhaps a disk; and which items they take.")
      .def(nb::new_([](const std::shared_ptr<Arena>& memory, const std::shared_ptr<Arena>& disk) {
             return std::make_shared<Tiers>(memory, disk);
           }),
           "memory"_a.none(), "disk"_a.none() = nb::none())
      .def("find", &find_in_tiers, "hi"_a, "lo"_a,
           nb::sig("def find(self, hi: int, lo: int) -> memoryview | None"),
           "The item as a read-only memoryview, or None. No copy; valid as long as it lives.")
      .def("seems_on_disk",
           [](const Tiers& tiers, std::uint64_t hi, std::uint64_t lo) {
             return tiers.seems_on_disk({hi, lo});
           },
           "hi"_a, "lo"_a, "Whether find() most likely reads it from the disk.")
      .def("seems_held",
           [](const Tiers& tiers, std::uint64_t hi, std::uint64_t lo) {
             return tiers.find_in_memory({hi, lo}) || tiers.seems_on_disk({hi, lo});
           },
           "hi"_a, "lo"_a, "Whether find() most likely finds it, without reading a disk.")
      .def("takes",
           [](const Tiers& tiers, std::uint64_t hi, std::uint64_t lo, std::uint64_t bytes) {
             return tiers.takes({hi, lo}, bytes);
           },
           "hi"_a, "lo"_a, "bytes"_a, "Whether it is chosen and there is room.")
      .def("admit", &admit<Tiers>, "hi"_a, "lo"_a, "data"_a,
           nb::sig("def admit(self, hi: int, lo: int, data: bytes | bytearray | memoryview) -> bool"),
           "Copies the item in. False when it is not chosen or does not fit; True when held now.")
      .def("choose", &Tiers::choose, "seed"_a, "limit"_a,
           "Only items whose admission number is at most `limit` are admitted from now on.");
  m.def("admission_numbers", [](std::uint64_t seed, const Keys& keys) {
    std::vector<std::uint64_t> numbers(keys.shape(0));
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = coordl::admission_number(seed, {keys(i, 0), keys(i, 1)});
    }
    return numpy_array(std::move(numbers));
  }, "seed"_a, "keys"_a,
        nb::sig("def admission_numbers(seed: int, keys: numpy.ndarray) -> numpy.ndarray"),
        "(N,) uint64 for (N, 2) keys: random numbers that are a function of seed and key.");
}

}  // namespace

void bind_fetch(nb::module_& m) {
  nb::register_exception_translator(translate);
  bind_arena(m);
  bind_tiers(m);
  m.def("stat_files", &stat_files, "paths"_a, "threads"_a = 1,
        nb::sig("def stat_files(paths: collections.abc.Sequence[str], threads: int = 1) -> "
                "tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]"),
        "(sizes, mtimes_ns, errnos): (N,) int64, int64, int32. EISDIR, EINVAL: no plain file.");
  m.def("read_file", [](nb::handle path) { return nb::object(read_identified(path)[0]); },
        "path"_a, nb::sig("def read_file(path: str | bytes | os.PathLike) -> bytes"),
        "The whole file. OSError; EOFError when it changed while it was read.");
  m.def("read_identified", &read_identified, "path"_a,
        nb::sig("def read_identified(path: str | bytes | os.PathLike) -> tuple[bytes, int, int]"),
        "(bytes, size, mtime_ns) of the whole file. Raises as read_file does.");
  m.def("read_part", &read_part, "path"_a, "offset"_a, "length"_a,
        nb::sig("def read_part(path: str | bytes | os.PathLike, offset: int, length: int) -> "
                "tuple[bytes, int, int]"),
        "(bytes, size, mtime_ns): part of a file, with the file's size and time. Raises as\n"
        "read_file does; EOFError also where the file ends before the part.");
  m.def("drop_from_page_cache", [](nb::handle given, std::uint64_t offset, std::uint64_t length) {
    const std::string path = file_path(given);
    const nb::gil_scoped_release release;
    coordl::drop_from_page_cache(path, offset, length);
  }, "path"_a, "offset"_a = 0, "length"_a = 0,
        nb::sig("def drop_from_page_cache(path: str | bytes | os.PathLike, offset: int = 0, "
                "length: int = 0) -> None"),
        "Advises the kernel to drop the file's clean pages, or those of a part.");
  m.def("_signal_at", &signal_at, "signals"_a,
        "Tests only: send oneself a signal at named steps, {step: signal}, once each.");
  m.def("_record_steps", &record_steps, "where"_a,
        "Tests only: write 1 + the number of the step reached last into where[0], which must stay.");
  m.attr("_steps") = nb::cast(std::vector<std::string>(coordl::kSteps.begin(), coordl::kSteps.end()));
}
