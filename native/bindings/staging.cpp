// Bindings of staging/shared_mapping.hpp.
#include "staging/shared_mapping.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>

#include <cstdint>
#include <memory>

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using coordl::SharedMapping;

// The array owns the mapping, and is a new object each time: its end is the end of one use.
nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>> mapped_array(
    const std::shared_ptr<SharedMapping>& mapping) {
  auto owner = std::make_unique<std::shared_ptr<SharedMapping>>(mapping);
  nb::capsule capsule(owner.get(), [](void* held) noexcept {
    std::unique_ptr<std::shared_ptr<SharedMapping>>(
        static_cast<std::shared_ptr<SharedMapping>*>(held));
  });
  static_cast<void>(owner.release());
  const auto bytes = mapping->bytes();
  return {reinterpret_cast<std::uint8_t*>(bytes.data()), {bytes.size()}, capsule};
}

}  // namespace

void bind_staging(nb::module_& m) {
  nb::class_<SharedMapping>(m, "SharedMapping",
                            "Memory that processes share by a descriptor; not given to forked\n"
                            "children unless inherit(True) says so.")
      .def(nb::new_([](int fd, std::size_t bytes) {
             return std::make_shared<SharedMapping>(fd, bytes);
           }),
           "fd"_a, "bytes"_a, "Maps the file's first bytes. Raises OSError.")
      .def("__len__", [](const SharedMapping& mapping) { return mapping.bytes().size(); })
      .def("array", &mapped_array, "A new writable uint8 array over it, which keeps it alive.")
      .def("populate", &SharedMapping::populate, nb::call_guard<nb::gil_scoped_release>(),
           "Has the kernel provide all pages now. False where it cannot be asked; raises OSError\n"
           "where there is no memory.")
      .def("inherit", &SharedMapping::inherit, "wanted"_a,
           "Whether children forked from now on see it.");
}
