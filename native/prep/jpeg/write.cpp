#include "prep/jpeg/write.hpp"

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>

#include "prep/item.hpp"
#include "prep/jpeg/coefficients.hpp"
#include "prep/jpeg/packed_block.hpp"
#include "prep/kernels.hpp"

namespace coordl {
namespace {

constexpr int kFirstApp = 0xE0, kLastApp = 0xEF, kComment = 0xFE;

struct Errors {
  jpeg_error_mgr base;
  std::jmp_buf escape;
};

[[noreturn]] void give_up(j_common_ptr codec) {
  std::longjmp(reinterpret_cast<Errors*>(codec->err)->escape, 1);
}

void stay_silent(j_common_ptr, int) {}

int at_byte(std::span<const std::byte> bytes, std::size_t at) { return std::to_integer<int>(bytes[at]); }

// Calls see(marker, whole segment) for the segments of a header between SOI and its end.
template <class See>
void for_each_segment(std::span<const std::byte> header, See see) {
  for (std::size_t at = 2; at + 4 <= header.size() && at_byte(header, at) == 0xFF;) {
    const int marker = at_byte(header, at + 1);
    if (marker == 0xFF) {
      ++at;
      continue;
    }
    const std::size_t length =
        std::size_t(at_byte(header, at + 2)) << 8 | std::size_t(at_byte(header, at + 3));
    if (length < 2 || length > header.size() - at - 2) return;
    see(marker, header.subspan(at, 2 + length));
    at += 2 + length;
  }
}

bool is_frame_marker(int marker) {
  return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

// Component ids as the header's frame has them: files without JFIF and Adobe segments tell their
// colour space by them.
std::array<int, 3> component_ids(std::span<const std::byte> header) {
  std::array<int, 3> ids{1, 2, 3};
  for_each_segment(header, [&](int marker, std::span<const std::byte> segment) {
    if (!is_frame_marker(marker) || segment.size() < 10) return;
    const std::size_t count = std::size_t(at_byte(segment, 9));
    for (std::size_t c = 0; c < ids.size() && c < count && 10 + 3 * c < segment.size(); ++c) {
      ids[c] = at_byte(segment, 10 + 3 * c);
    }
  });
  return ids;
}

// Where libjpeg writes to. Its own memory destination loses track of its buffer when it gives up.
struct Destination {
  jpeg_destination_mgr base{};
  std::vector<std::byte> bytes;
  JOCTET block[16384];

  bool take(std::size_t count) noexcept try {
    const auto* from = reinterpret_cast<const std::byte*>(block);
    bytes.insert(bytes.end(), from, from + count);
    base.next_output_byte = block;
    base.free_in_buffer = sizeof block;
    return true;
  } catch (...) {
    return false;
  }
};

Destination& destination_of(j_compress_ptr codec) { return *reinterpret_cast<Destination*>(codec->dest); }

void begin_output(j_compress_ptr codec) { static_cast<void>(destination_of(codec).take(0)); }

boolean next_block(j_compress_ptr codec) {
  if (!destination_of(codec).take(sizeof Destination::block)) give_up(reinterpret_cast<j_common_ptr>(codec));
  return TRUE;
}

void end_output(j_compress_ptr codec) {
  Destination& to = destination_of(codec);
  if (!to.take(sizeof to.block - to.base.free_in_buffer)) give_up(reinterpret_cast<j_common_ptr>(codec));
}

// libjpeg's compressor over coefficients. No function that may longjmp holds an object with a
// destructor.
struct Encoder {
  jpeg_compress_struct codec{};
  Errors errors{};
  jvirt_barray_ptr arrays[3]{};
  Destination to;

  ~Encoder() { jpeg_destroy_compress(&codec); }
  bool start(const Frame& frame, const std::array<int, 3>& ids, bool jfif);
  bool put(int component, int row, const std::int16_t* blocks, int count);
  bool finish();
};

void set_component(jpeg_compress_struct& codec, const Frame& frame, int c, int id, JQUANT_TBL* table) {
  jpeg_component_info& part = codec.comp_info[c];
  part.component_id = id;
  part.h_samp_factor = frame.blocks_across(c);
  part.v_samp_factor = frame.blocks_down(c);
  part.quant_tbl_no = c;
  for (int i = 0; i < kCoefficients; ++i) table->quantval[i] = frame.component[c].quantiser[i];
  table->sent_table = FALSE;
}

bool Encoder::start(const Frame& frame, const std::array<int, 3>& ids, bool jfif) {
  codec.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = give_up;
  errors.base.emit_message = stay_silent;
  if (setjmp(errors.escape)) return false;
  jpeg_create_compress(&codec);
  to.base.init_destination = begin_output;
  to.base.empty_output_buffer = next_block;
  to.base.term_destination = end_output;
  codec.dest = &to.base;
  const int components = frame.components();
  codec.image_width = static_cast<JDIMENSION>(frame.width);
  codec.image_height = static_cast<JDIMENSION>(frame.height);
  codec.input_components = components;
  codec.in_color_space = components == 1 ? JCS_GRAYSCALE : JCS_YCbCr;
  jpeg_set_defaults(&codec);
  jpeg_set_colorspace(&codec, codec.in_color_space);
#if JPEG_LIB_VERSION >= 70
  codec.jpeg_width = codec.image_width;
  codec.jpeg_height = codec.image_height;
#endif
  codec.optimize_coding = TRUE;
  codec.write_JFIF_header = jfif ? TRUE : FALSE;
  codec.write_Adobe_marker = FALSE;
  for (int c = 0; c < components; ++c) {
    JQUANT_TBL*& table = codec.quant_tbl_ptrs[c];
    if (table == nullptr) table = jpeg_alloc_quant_table(reinterpret_cast<j_common_ptr>(&codec));
    set_component(codec, frame, c, ids[c], table);
    const Component& part = frame.component[c];
    const int across = frame.blocks_across(c), down = frame.blocks_down(c);
    arrays[c] = codec.mem->request_virt_barray(
        reinterpret_cast<j_common_ptr>(&codec), JPOOL_IMAGE, TRUE,
        static_cast<JDIMENSION>((part.across + across - 1) / across * across),
        static_cast<JDIMENSION>((part.down + down - 1) / down * down), static_cast<JDIMENSION>(down));
  }
  jpeg_write_coefficients(&codec, arrays);  // realises the arrays; finish() writes what they hold
  return true;
}

bool Encoder::put(int component, int row, const std::int16_t* blocks, int count) {
  if (setjmp(errors.escape)) return false;
  const JBLOCKARRAY rows = codec.mem->access_virt_barray(
      reinterpret_cast<j_common_ptr>(&codec), arrays[component], static_cast<JDIMENSION>(row), 1, TRUE);
  static_assert(sizeof(JCOEF) == sizeof(std::int16_t));
  std::memcpy(rows[0][0], blocks, std::size_t(count) * sizeof(JBLOCK));
  return true;
}

bool Encoder::finish() {
  if (setjmp(errors.escape)) return false;
  jpeg_finish_compress(&codec);
  return true;
}

bool put_all(Encoder& encoder, const PackedImage& image, CoefficientRow& row) {
  const Frame& frame = image.frame();
  PackedSource source;
  source.open(image);
  row.prepare(frame, BlockWindow::whole(frame));
  for (int mcu_row = 0; mcu_row < frame.mcus_down(); ++mcu_row) {
    if (!source.read(mcu_row, row)) return false;
    for (int c = 0; c < frame.components(); ++c) {
      const int down = frame.blocks_down(c);
      for (int y = 0; y < down && mcu_row * down + y < frame.component[c].down; ++y) {
        if (!encoder.put(c, mcu_row * down + y, row.row(c, y), frame.component[c].across)) return false;
      }
    }
  }
  return true;
}

}  // namespace

bool write_packed(const PackedImage& image, std::vector<std::byte>& out) {
  const std::span<const std::byte> header = image.jpeg_header();
  CoefficientRow row;
  Encoder encoder;
  if (!encoder.start(image.frame(), component_ids(header), header.empty()) ||
      !put_all(encoder, image, row) || !encoder.finish()) {
    return false;
  }
  const std::span<const std::byte> written = encoder.to.bytes;
  out.assign(written.begin(), written.begin() + 2);  // SOI, then the original's own segments
  for_each_segment(header, [&](int marker, std::span<const std::byte> segment) {
    if ((marker >= kFirstApp && marker <= kLastApp) || marker == kComment) {
      out.insert(out.end(), segment.begin(), segment.end());
    }
  });
  out.insert(out.end(), written.begin() + 2, written.end());
  return true;
}

bool has_baseline_codes(const PackedImage& image) {
  constexpr int kMostAc = 1023, kLeastDc = -1024, kMostDcCode = 1023;  // so no difference exceeds 2047
  const Frame& frame = image.frame();
  for (int c = 0; c < frame.components(); ++c) {
    for (int row = 0; row < frame.component[c].down; ++row) {
      const std::uint8_t* at = image.blocks(c, row, 0);
      for (int column = 0; column < frame.component[c].across; ++column) {
        const BlockHeader header = BlockHeader::read(at);
        if (header.dc < kLeastDc || header.dc > kMostDcCode) return false;
        bool wide = false;  // narrower values are within -512 to 511
        for (int tile = 0; tile < kTiles; ++tile) wide |= (header.widths >> (4 * tile) & 15) == kMostWidth;
        if (wide) {
          std::int16_t block[kCoefficients * (1 + kSpareBlocks)];
          kernels().unpack(at, 1, block);
          for (int i = 1; i < kCoefficients; ++i) {
            if (block[i] > kMostAc || block[i] < -kMostAc) return false;
          }
        }
        at += header.block_bytes();
      }
    }
  }
  return true;
}

void write_indexed(const IndexedImage& image, std::vector<std::byte>& out) {
  const std::span<const std::byte> header = image.parsed().header;
  out.assign(header.begin(), header.end());
  out.reserve(header.size() + image.data().size() + image.data().size() / 64 + 2);
  for (const std::uint8_t byte : image.data()) {
    out.push_back(std::byte{byte});
    if (byte == 0xFF) out.push_back(std::byte{0});
  }
  out.push_back(std::byte{0xFF});
  out.push_back(std::byte{0xD9});
}

bool unpack_item(std::span<const std::byte> item, std::vector<std::byte>& out) {
  if (!check_item(item)) return false;
  if (const auto packed = PackedImage::open(item)) return write_packed(*packed, out);
  const auto indexed = IndexedImage::open(item);
  if (indexed) write_indexed(*indexed, out);
  return indexed.has_value();
}

}  // namespace coordl
