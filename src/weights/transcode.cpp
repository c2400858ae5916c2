#include "weights/transcode.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "budget/buffer.h"
#include "weights/gguf_writer.h"

namespace mneme {
namespace {

/// Unit of work of one thread: a multiple of every block size whose floats stay in the nearest caches.
constexpr size_t kSegment = 4096;
/// Elements between two writes.
constexpr size_t kChunk = 1024 * kSegment;

double relative(double squared_error, double squared_norm) {
  return squared_norm > 0.0 ? std::sqrt(squared_error / squared_norm) : 0.0;
}

struct SquaredSums {
  double error = 0.0, norm = 0.0;
};

/// Decodes and encodes `n` elements (at most kSegment) and measures what was lost.
SquaredSums convert_segment(const DTypeInfo& from, const DTypeInfo& to, const std::byte* in, std::byte* out, size_t n) {
  std::array<float, kSegment> original, stored;
  from.decode(in, original.data(), n);
  to.encode(original.data(), nullptr, out, n);
  to.decode(out, stored.data(), n);
  SquaredSums sums;
  for (size_t i = 0; i < n; ++i) {
    const double value = static_cast<double>(original[i]), difference = value - static_cast<double>(stored[i]);
    sums.error += difference * difference;
    sums.norm += value * value;
  }
  return sums;
}

/// Converts one tensor chunk by chunk. A tensor is one run of blocks, since its rows are whole blocks in both types.
void convert_tensor(std::span<const std::byte> bytes, uint64_t elements, Buffer& out, GgufWriter& writer,
                    TensorReport& report, FunctionRef<void(uint64_t)> bytes_done) {
  const DTypeInfo& from = dtype_info(report.from);
  const DTypeInfo& to = dtype_info(report.to);
  std::vector<SquaredSums> sums(kChunk / kSegment);
  for (uint64_t begin = 0; begin < elements; begin += kChunk) {
    const size_t n = std::min<uint64_t>(kChunk, elements - begin);
    const std::byte* in = bytes.data() + begin / from.block_elements * from.block_bytes;
    const size_t n_segments = div_up(n, kSegment);
    parallel_dynamic(n_segments, [&](size_t segment) {
      const size_t first = segment * kSegment;
      sums[segment] =
          convert_segment(from, to, in + first / from.block_elements * from.block_bytes,
                          out.data() + first / to.block_elements * to.block_bytes, std::min(kSegment, n - first));
    });
    for (size_t segment = 0; segment < n_segments; ++segment) {
      report.squared_error += sums[segment].error;
      report.squared_norm += sums[segment].norm;
    }
    if (!std::isfinite(report.squared_error)) {
      fail(ErrorCode::kInvalidArgument, "[write] tensor '{}': expected finite values that fit type {}, found others",
           report.name, to.name);
    }
    writer.write({out.data(), n / to.block_elements * to.block_bytes});
    bytes_done((begin + n) / from.block_elements * from.block_bytes);
  }
}

/// Copies a tensor in pieces, for the sake of the progress bar.
void copy_tensor(std::span<const std::byte> bytes, GgufWriter& writer, FunctionRef<void(uint64_t)> bytes_done) {
  constexpr size_t kPiece = size_t{16} << 20;
  for (size_t at = 0; at < bytes.size(); at += kPiece) {
    writer.write(bytes.subspan(at, std::min(kPiece, bytes.size() - at)));
    bytes_done(at);
  }
}

void check_types(const TensorReport& report) {
  if (report.from == report.to) return;
  const DTypeInfo& from = dtype_info(report.from);
  const DTypeInfo& to = dtype_info(report.to);
  if (from.decode == nullptr || to.encode == nullptr) {
    fail(ErrorCode::kUnsupported, "[write] tensor '{}': expected types that can be converted, found {} to {}",
         report.name, from.name, to.name);
  }
  if (report.shape.from_last(0) % to.block_elements != 0) {
    fail(ErrorCode::kInvalidArgument,
         "[write] tensor '{}': expected rows of a multiple of {} elements for {}, found {}", report.name,
         to.block_elements, to.name, report.shape.to_string());
  }
}

}  // namespace

double TensorReport::relative_error() const {
  return relative(squared_error, squared_norm);
}

uint64_t TranscodeReport::elements() const {
  uint64_t total = 0;
  for (const TensorReport& tensor : tensors) total += tensor.shape.elements();
  return total;
}

uint64_t TranscodeReport::bytes_before() const {
  uint64_t total = 0;
  for (const TensorReport& tensor : tensors) total += tensor.bytes_before;
  return total;
}

uint64_t TranscodeReport::bytes_after() const {
  uint64_t total = 0;
  for (const TensorReport& tensor : tensors) total += tensor.bytes_after;
  return total;
}

double TranscodeReport::bits_per_weight() const {
  return elements() == 0 ? 0.0 : 8.0 * static_cast<double>(bytes_after()) / static_cast<double>(elements());
}

double TranscodeReport::relative_error() const {
  double error = 0.0, norm = 0.0;
  for (const TensorReport& tensor : tensors) {
    error += tensor.squared_error;
    norm += tensor.squared_norm;
  }
  return relative(error, norm);
}

TranscodeReport transcode(TensorSource& source, std::span<const DType> types, const Metadata& metadata,
                          const std::string& path, Ledger& ledger, const TranscodeProgress& progress) {
  assert(types.size() == source.tensors().size());
  TranscodeReport report;
  std::vector<TensorInfo> infos;
  size_t chunk_bytes = 0;
  for (size_t i = 0; i < types.size(); ++i) {
    const TensorInfo& from = source.tensors()[i];
    TensorReport tensor{from.name, from.shape, from.dtype, types[i]};
    check_types(tensor);
    infos.push_back({from.name, types[i], from.shape});
    tensor.bytes_before = from.bytes();
    tensor.bytes_after = infos.back().bytes();
    if (tensor.from != tensor.to) chunk_bytes = std::max(chunk_bytes, row_bytes(types[i], kChunk));
    report.tensors.push_back(std::move(tensor));
  }
  Buffer chunk(ledger, Tag::kScratch, chunk_bytes, "encoded tensors on their way to disk");
  GgufWriter writer(path, metadata, std::move(infos));
  uint64_t before = 0;
  for (size_t i = 0; i < report.tensors.size(); ++i) {
    TensorReport& tensor = report.tensors[i];
    const auto bytes_done = [&](uint64_t bytes) {
      if (progress) progress(before + bytes, tensor.name);
    };
    bytes_done(0);
    const std::span<const std::byte> bytes = source.load(i);
    if (tensor.from == tensor.to) {
      copy_tensor(bytes, writer, bytes_done);
    } else {
      convert_tensor(bytes, tensor.shape.elements(), chunk, writer, tensor, bytes_done);
    }
    before += tensor.bytes_before;
  }
  writer.finish();
  report.file_bytes = writer.offset();
  return report;
}

}  // namespace mneme
