// Encoded items in all their forms: which decoder, and how an item is rewritten at admission.
//
//   original   the file's bytes; baseline JPEGs by our own decoder, other images by libraries
//   indexed    a baseline JPEG with points inside its data to begin at (prep/jpeg/indexed.hpp)
//   packed     its coefficients without entropy code (prep/jpeg/packed.hpp)
//
// All give the same pixels. The form shows in the first bytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "prep/pixels.hpp"

namespace coordl {

enum class Form : std::uint8_t { original, indexed, packed };

// Form by the first bytes alone; it says nothing of the rest.
Form form_of(std::span<const std::byte> item) noexcept;

// Whether an item of ours from outside this process's trust may be decoded: sizes and every block lie
// inside. Originals need no check, their decoders make it as they go.
bool check_item(std::span<const std::byte> item) noexcept;

// Opens items of any form and gives their pixels. Not thread-safe; one object per thread, reused.
class ItemDecoder {
 public:
  ItemDecoder();
  ~ItemDecoder();

  // The size of an item that must outlive the reading, or nothing when it is not ours.
  std::optional<ImageSize> open(std::span<const std::byte> item);
  // Starts on a region of the item opened last; its rows may end early (see retry). Null: not ours.
  PixelRows* begin(const Region& region);
  // After rows that ended early, or instead of begin(): the same region through a library, which
  // knows what to make of odd data. Null: it warns or fails too, and the user's loader decides.
  PixelRows* retry(const Region& region);
  // Gives memory beyond what usual items need back, once rows are read. recode() does so itself.
  void trim();

  // Rewrites an original into another form, in `out`. False where it has none: the original then
  // serves. `keep_header` keeps the JPEG's own header for unpacking into a file.
  bool recode(std::span<const std::byte> item, Form form, bool keep_header, std::vector<std::byte>& out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coordl
