#include "tensor/weight_format.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "tensor/aqlm.h"
#include "tensor/bitstack.h"
#include "tensor/dfloat.h"

namespace mneme {
namespace {

/// Rows of equal blocks, by the codecs of the table of types.
class BlockFormat : public WeightFormat {
 public:
  explicit BlockFormat(const DTypeInfo& info) : info_(info) {}

  std::string misfit(const Shape& shape) const override {
    if (shape.from_last(0) % info_.block_elements == 0) return {};
    return fmt::format("rows of a multiple of {} elements", info_.block_elements);
  }

  std::unique_ptr<MatrixEncoder> encoder(const TensorView& from) const override {
    if (info_.encode == nullptr) fail(ErrorCode::kUnsupported, "[encode] type {} cannot be written", info_.name);
    return std::make_unique<Encoder>(info_, from);
  }

  void validate(const TensorView&, const std::string&) const override {}  // any bytes decode

  void decode_tile(const TensorView& stored, const TileRange& range, float* out, size_t stride) const override {
    const size_t block = info_.block_elements;
    const uint64_t begin = range.first_column / block * block;
    const uint64_t end = std::min((range.first_column + range.n_columns + block - 1) / block * block, stored.columns());
    const bool whole = begin == range.first_column && end == range.first_column + range.n_columns;
    std::vector<float> wide(whole ? 0 : end - begin);
    for (uint64_t r = 0; r < range.n_rows; ++r) {
      const std::byte* blocks = stored.row(range.first_row + r) + begin / block * info_.block_bytes;
      float* to = out + r * stride;
      info_.decode(blocks, whole ? to : wide.data(), end - begin);
      if (!whole) std::copy_n(wide.data() + (range.first_column - begin), range.n_columns, to);
    }
  }

 private:
  class Encoder : public MatrixEncoder {
   public:
    Encoder(const DTypeInfo& info, const TensorView& from)
        : info_(info), bytes_(row_bytes(info.dtype, from.columns()) * from.rows()) {}
    uint64_t bytes() const override { return bytes_; }
    void write(const TensorView& from, FunctionRef<void(std::span<const std::byte>)> out) const override {
      std::vector<float> row(from.columns());
      std::vector<std::byte> blocks(row_bytes(info_.dtype, from.columns()));
      for (uint64_t r = 0; r < from.rows(); ++r) {
        decode_row(from, r, row.data());
        info_.encode(row.data(), nullptr, blocks.data(), row.size());
        out(blocks);
      }
    }

   private:
    const DTypeInfo& info_;
    uint64_t bytes_;
  };

  const DTypeInfo& info_;
};

}  // namespace

bool can_decode(DType dtype) {
  return is_stream(dtype) || dtype_info(dtype).decode != nullptr;
}

const WeightFormat& weight_format(DType dtype) {
  assert(can_decode(dtype));
  static const std::vector<std::unique_ptr<WeightFormat>> kFormats = [] {
    std::vector<std::unique_ptr<WeightFormat>> formats;
    for (const DTypeInfo& info : all_dtypes()) {
      if (info.dtype == DType::kDf11) {
        formats.push_back(dfloat::make_df11());
      } else if (info.dtype == DType::kDf12) {
        formats.push_back(dfloat::make_df12());
      } else if (info.dtype == DType::kBitStack) {
        formats.push_back(bitstack::make_format());
      } else if (info.dtype == DType::kAqlm) {
        formats.push_back(aqlm::make_format());
      } else {
        formats.push_back(std::make_unique<BlockFormat>(info));
      }
    }
    return formats;
  }();
  return *kFormats[static_cast<size_t>(&dtype_info(dtype) - all_dtypes().data())];
}

uint64_t stream_size(DType dtype, std::span<const std::byte> available, const std::string& name) {
  uint64_t bytes = 0;
  uint32_t mark = 0;
  if (available.size() >= kStreamHead) {
    std::memcpy(&bytes, available.data(), sizeof bytes);
    std::memcpy(&mark, available.data() + 8, sizeof mark);
  }
  if (mark != static_cast<uint32_t>(dtype) || bytes < kStreamHead || bytes > available.size()) {
    fail(ErrorCode::kCorruptData,
         "[read weights] tensor '{}': expected a {} stream of at most {} bytes, found {} (mark {:#x})", name,
         dtype_info(dtype).name, available.size(), bytes, mark);
  }
  return bytes;
}

}  // namespace mneme
