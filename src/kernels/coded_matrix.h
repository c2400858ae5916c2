#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

/// Small matrices of integer codes, the form in which compressed keys and values are stored, and their products with rows of
/// floats. Keys of a block are a matrix [64 tokens, channels] and give scores; values are a matrix [channels, 64 tokens] and
/// give outputs: both are y += C x, with codes as they are in memory and no copy in floats.
///
///   C[lane, i] = scale * (code - 128 * [bits = 8]) + zero       code in [0, 2^bits)
///
/// Scale and zero belong to a group of values. A group lies along the lanes (per-channel keys and per-token values of KIVI,
/// arXiv 2402.02750: the scale then multiplies x) or along the depth (per-token keys of MiKV, arXiv 2402.18096: the scale
/// multiplies the sum).
namespace mneme::kernels {

struct CodedFormat {
  enum class Groups : uint8_t { kAlongLanes, kAlongDepth };
  enum class Scales : uint8_t {
    kFloat16,   ///< Scale (max - min) / (2^bits - 1) and zero = min, 2 + 2 bytes a group.
    kExponent,  ///< Block floating point (arXiv 2403.20137): scale 2^e, codes symmetric around zero, 1 byte a group.
  };
  uint8_t bits = 4;      ///< 2, 3, 4 or 8.
  Groups groups = Groups::kAlongLanes;
  Scales scales = Scales::kFloat16;
  uint32_t group = 32;   ///< Values of a group, a multiple of 32; the last of a row may be shorter.

  bool operator==(const CodedFormat&) const = default;
};

/// A matrix [n_lanes, depth] of one format. The lanes are cut into tiles of 16; the codes of a tile lie in vectors of 64
/// bytes, byte 4 lane + j of which has the codes of lane `lane` at depths 4 k + j for several k, `bits` apart. Behind the
/// codes are the scales: for each group along the lanes [depth] scales and [depth] zeros, for each along the depth [n_lanes].
class CodedMatrix {
 public:
  CodedMatrix() = default;
  /// Throws Error(kInvalidArgument) for bits or groups that the format does not have.
  CodedMatrix(const CodedFormat& format, size_t n_lanes, size_t depth);

  const CodedFormat& format() const { return format_; }
  size_t n_lanes() const { return n_lanes_; }
  size_t depth() const { return depth_; }
  /// Bytes of codes (lanes rounded up to 16, depth to a whole vector) and scales.
  size_t bytes() const { return code_bytes_ + scale_bytes_; }
  size_t code_bytes() const { return code_bytes_; }
  size_t n_groups() const;
  /// Scales of one group: as many as it has neighbours across.
  size_t group_width() const { return format_.groups == CodedFormat::Groups::kAlongLanes ? depth_ : n_lanes_; }

  /// Element [lane, i] of floats to encode or decoded: values[lane * lane_stride + i * depth_stride].
  struct Values {
    float* data;
    size_t lane_stride, depth_stride;
  };
  struct ConstValues {
    const float* data;
    size_t lane_stride, depth_stride;
  };
  /// Rectangle of a matrix. An edge inside a group is no error in decode(), but is one in encode().
  struct Part {
    size_t lane_begin, lane_end, depth_begin, depth_end;
  };
  Part whole() const { return {0, n_lanes_, 0, depth_}; }

  /// Encodes values[0, 0] .. as the part's elements. Scale and zero are rounded to their stored form first and the codes are
  /// the nearest to that grid, so |value - decoded| <= scale / 2 inside the group's range. A group with a NaN or infinity
  /// decodes to NaN.
  void encode(ConstValues values, const Part& part, std::byte* out) const;
  void decode(const std::byte* coded, const Part& part, Values values) const;

  /// y[r, lane] += sum over i of C[lane, i] x[r, i] for n_rows rows. x * scale (or x) enters as an integer of 15 bits with
  /// sign, the largest magnitude of its group being 127 * 128: an error of about sqrt(depth) * max|x| * (max C - min C) / 2^15.
  /// Single-threaded; the sums of integers are the same on all targets. A row's result does not depend on the others.
  void multiply(const std::byte* coded, const float* x, size_t x_stride, size_t n_rows, float* y, size_t y_stride) const {
    const Product product{coded, x, y};
    multiply({&product, 1}, x_stride, n_rows, y_stride);
  }

  /// Several products with matrices of this shape, in order, bit for bit those of multiply() alone, but faster: what a
  /// small product waits for passes while others are at work, and groups along the depth share the integers of one x.
  struct Product {
    const std::byte* coded;
    const float* x;
    float* y;
    /// A matrix that will be read soon, which is asked for meanwhile, or null.
    const std::byte* ahead = nullptr;
  };
  void multiply(std::span<const Product> products, size_t x_stride, size_t n_rows, size_t y_stride) const;

  /// What the codes of a group stand for: scale * code + zero, 8-bit codes counted from 128.
  struct Grid {
    float scale, zero;
  };

 private:
  void load_grids(const std::byte* coded, float* grids) const;
  size_t scale_offset(size_t group, size_t across) const;
  Grid grid(const std::byte* coded, size_t group, size_t across) const;
  Grid fit_grid(float min, float max, std::byte* at) const;
  void set_code(std::byte* out, size_t lane, size_t i, uint32_t code) const;
  uint32_t code(const std::byte* coded, size_t lane, size_t i) const;

  CodedFormat format_;
  size_t n_lanes_ = 0, depth_ = 0;
  size_t chunk_depth_ = 0;   ///< Depth that the vectors of one chunk cover.
  size_t n_chunks_ = 0;      ///< Chunks of a tile of 16 lanes.
  size_t code_bytes_ = 0, scale_bytes_ = 0;
};

}  // namespace mneme::kernels
