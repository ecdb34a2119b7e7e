// coordl._native: one binding file per step; they check and convert, nothing else.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_fetch(nb::module_& m);
void bind_items(nb::module_& m);
void bind_pass(nb::module_& m);
void bind_prep(nb::module_& m);
void bind_ring(nb::module_& m);
void bind_shards(nb::module_& m);
void bind_staging(nb::module_& m);
void bind_workers(nb::module_& m);

NB_MODULE(_native, m) {
  m.doc() = "Native core of coordl: fetch, prep and staging.";
  bind_fetch(m);
  bind_items(m);
  bind_pass(m);
  bind_prep(m);
  bind_ring(m);
  bind_shards(m);
  bind_staging(m);
  bind_workers(m);
}
