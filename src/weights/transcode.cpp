#include "weights/transcode.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <memory>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "budget/buffer.h"
#include "tensor/bipolar.h"
#include "tensor/exact_conversion.h"
#include "tensor/weight_format.h"
#include "weights/gguf_writer.h"
#include "weights/stack_file.h"

namespace mneme {
namespace {

/// Elements that one thread converts at a time, about: their floats stay in the nearest caches.
constexpr size_t kUnitElements = 4096;
/// Elements between two writes, about.
constexpr size_t kBatchElements = 1024 * kUnitElements;

double relative(double squared_error, double squared_norm) {
  return squared_norm > 0.0 ? std::sqrt(squared_error / squared_norm) : 0.0;
}

struct SquaredSums {
  double error = 0.0, norm = 0.0;
};

/// How the rows of a tensor are shared out: rows a unit, units between two writes.
struct RowUnits {
  uint64_t unit, batch;
  static constexpr uint64_t kStreamRows = 32;  ///< Streams are stored in tiles of 16 or 32 rows, decoded as a whole.

  explicit RowUnits(const TensorInfo& from) {
    const uint64_t columns = from.shape.from_last(0);
    unit = std::max<uint64_t>(is_stream(from.dtype) ? kStreamRows : 1, kUnitElements / columns);
    batch = std::max<uint64_t>(1, kBatchElements / (unit * columns));
  }
  uint64_t batch_bytes(DType to, uint64_t columns) const { return row_bytes(to, columns) * unit * batch; }
};

void add_difference(std::span<const float> original, std::span<const float> stored, SquaredSums& sums) {
  for (size_t i = 0; i < original.size(); ++i) {
    const double value = static_cast<double>(original[i]), difference = value - static_cast<double>(stored[i]);
    sums.error += difference * difference;
    sums.norm += value * value;
  }
}

/// One tensor on its way from its type to a type of blocks.
struct Conversion {
  const TensorInfo& tensor;
  const TensorView& from;
  const DTypeInfo& to;
  const EncodeHooks hooks;
  std::vector<std::vector<float>> importance;  ///< One list a slice, or none.
  /// Blocks of integers whose values the new type holds as they are.
  bool exact = to.dtype != DType::kF32 && converts_exactly(from.dtype, to.dtype);

  const float* importance_of(uint64_t row) const {
    if (importance.empty()) return nullptr;
    const uint64_t rows_a_slice = from.rows() / importance.size();
    const std::vector<float>& slice = importance[row / rows_a_slice];
    return slice.empty() ? nullptr : slice.data();
  }

  /// Decodes and encodes some rows and measures what was lost.
  SquaredSums rows(uint64_t first, uint64_t n, std::byte* out) const {
    const uint64_t columns = from.columns();
    std::vector<float> original(n * columns), changed, stored(columns);
    weight_format(from.dtype).decode_tile(from, {first, n, 0, columns}, original.data(), columns);
    SquaredSums sums;
    for (uint64_t r = 0; r < n; ++r, out += row_bytes(to.dtype, columns)) {
      const std::span<const float> row(original.data() + r * columns, columns);
      const float* values = row.data();
      if (exact) {
        convert_exactly(from.dtype, to.dtype, from.row(first + r), out, columns);
        continue;
      }
      const int bits = bipolar::bits_of(from.dtype), fewer = bipolar::bits_of(to.dtype);
      if (fewer > 0 && fewer < bits) {  // the upper planes are the narrower number
        bipolar::drop_planes(bits, fewer, from.row(first + r), out, columns);
        to.decode(out, stored.data(), columns);
        add_difference(row, stored, sums);
        continue;
      }
      if (hooks.prepare) {
        changed.assign(row.begin(), row.end());
        hooks.prepare(tensor, first + r, changed, importance_of(first + r), to.dtype);
        values = changed.data();
      }
      to.encode(values, importance_of(first + r), out, columns);
      to.decode(out, stored.data(), columns);
      add_difference(row, stored, sums);
    }
    return sums;
  }

  void check(const TensorReport& report) const {
    if (std::isfinite(report.squared_error)) return;
    fail(ErrorCode::kInvalidArgument, "[write] tensor '{}': expected finite values that fit type {}, found others",
         report.name, to.name);
  }
};

/// Converts one tensor batch by batch. `done` is told the part of the rows that is written.
void convert_tensor(const Conversion& how, Buffer& out, GgufWriter& writer, TensorReport& report,
                    FunctionRef<void(double)> done) {
  const TensorView& from = how.from;
  const RowUnits units(how.tensor);
  const size_t bytes = row_bytes(report.to, from.columns());
  std::vector<SquaredSums> sums(units.batch);
  for (uint64_t first = 0; first < from.rows(); first += units.unit * units.batch) {
    const uint64_t n_rows = std::min(units.unit * units.batch, from.rows() - first),
                   n_units = div_up(n_rows, units.unit);
    parallel_dynamic(n_units, [&](size_t unit) {
      const uint64_t row = unit * units.unit;
      sums[unit] = how.rows(first + row, std::min(units.unit, n_rows - row), out.data() + row * bytes);
    });
    for (size_t unit = 0; unit < n_units; ++unit) {
      report.squared_error += sums[unit].error;
      report.squared_norm += sums[unit].norm;
    }
    how.check(report);
    writer.write({out.data(), n_rows * bytes});
    done(static_cast<double>(first + n_rows) / static_cast<double>(from.rows()));
  }
}

/// Converts one matrix as a whole; false when the hook leaves it to convert_tensor().
bool convert_whole(const Conversion& how, Ledger& ledger, GgufWriter& writer, TensorReport& report) {
  const TensorView& from = how.from;
  if (!how.hooks.whole || from.shape.rank() != 2 || how.exact) return false;
  const uint64_t rows = from.rows(), columns = from.columns(), bytes = row_bytes(report.to, columns);
  Buffer values(ledger, Tag::kScratch, rows * columns * sizeof(float), "a matrix to be quantised as a whole");
  Buffer blocks(ledger, Tag::kScratch, rows * bytes, "a matrix to be quantised as a whole");
  const auto decode = [&](const TensorView& view, std::span<float> to) {
    constexpr uint64_t kUnit = RowUnits::kStreamRows;
    parallel_for(div_up(rows, kUnit), 1, [&](size_t begin, size_t end) {
      const uint64_t first = begin * kUnit, n = std::min<uint64_t>(end * kUnit, rows) - first;
      weight_format(view.dtype).decode_tile(view, {first, n, 0, columns}, to.data() + first * columns, columns);
    });
  };
  decode(from, values.as<float>());
  if (!how.hooks.whole(how.tensor, values.as<float>(), report.to, blocks.data())) return false;
  std::vector<float> original(columns), stored(columns);
  SquaredSums sums;
  for (uint64_t r = 0; r < rows; ++r) {
    decode_row(from, r, original.data());
    how.to.decode(blocks.data() + r * bytes, stored.data(), columns);
    add_difference(original, stored, sums);
  }
  report.squared_error = sums.error;
  report.squared_norm = sums.norm;
  how.check(report);
  writer.write({blocks.data(), rows * bytes});
  return true;
}

/// Writes a stream, and measures what one that is not lossless lost.
void write_stream(const MatrixEncoder& encoder, const TensorView& from, GgufWriter& writer, TensorReport& report) {
  const bool loses = report.to == DType::kAqlm;
  std::vector<std::byte> bytes;
  encoder.write(from, [&](std::span<const std::byte> part) {
    writer.write(part);
    if (loses) bytes.insert(bytes.end(), part.begin(), part.end());
  });
  if (!loses) return;
  const TensorView stored{report.to, from.shape, bytes.data(), bytes.size()};
  const uint64_t unit = RowUnits::kStreamRows, columns = from.columns(), n_units = div_up(from.rows(), unit);
  std::vector<SquaredSums> sums(n_units);
  parallel_dynamic(n_units, [&](size_t i) {
    const TileRange range{i * unit, std::min(unit, from.rows() - i * unit), 0, columns};
    std::vector<float> original(range.n_rows * columns), back(original.size());
    weight_format(from.dtype).decode_tile(from, range, original.data(), columns);
    weight_format(stored.dtype).decode_tile(stored, range, back.data(), columns);
    add_difference(original, back, sums[i]);
  });
  for (const SquaredSums& part : sums) {
    report.squared_error += part.error;
    report.squared_norm += part.norm;
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
  if (!can_decode(report.from) || (to.encode == nullptr && !is_stream(report.to))) {
    fail(ErrorCode::kUnsupported, "[write] tensor '{}': expected types that can be converted, found {} to {}",
         report.name, from.name, to.name);
  }
  if (const std::string misfit = weight_format(report.to).misfit(report.shape); !misfit.empty()) {
    fail(ErrorCode::kInvalidArgument, "[write] tensor '{}': expected {} for {}, found {}", report.name, misfit, to.name,
         report.shape.to_string());
  }
}

/// The hooks' encoder or the format's, with the tensor's name in what is thrown.
std::unique_ptr<MatrixEncoder> encoder_of(DType to, TensorSource& source, size_t i, const EncodeHooks& hooks) {
  const TensorInfo& tensor = source.tensors()[i];
  const std::string& name = tensor.name;
  try {
    if (hooks.stream) {
      if (auto own = hooks.stream(tensor, to)) return own;
    }
    return weight_format(to).encoder(tensor.view(source.load(i).data()));
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}, in tensor '{}'", error.what(), name), error.hint());
  }
}

/// The tensors of a source but the blocks of BitStack matrices, when these matrices all become something else; nothing
/// when they all stay or there are none. Some of them cannot stay: their blocks would have gaps.
std::vector<size_t> without_blocks(const TensorSource& source, std::span<const DType> types) {
  std::vector<size_t> rest;
  size_t kept = 0, changed = 0, blocks = 0;
  for (size_t i = 0; i < types.size(); ++i) {
    const TensorInfo& tensor = source.tensors()[i];
    if (tensor.dtype == DType::kBitStack) ++(types[i] == tensor.dtype ? kept : changed);
    if (tensor.name == bitstack::kBlocksName) {
      ++blocks;
    } else {
      rest.push_back(i);
    }
  }
  if (kept > 0 && changed > 0) {
    fail(ErrorCode::kUnsupported, "[write] expected all BITSTACK matrices to change their type or none, found {} of {}",
         changed, kept + changed);
  }
  if (blocks == 0 || kept > 0) rest.clear();
  return rest;
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
                          const std::string& path, Ledger& ledger, const TranscodeProgress& progress,
                          const EncodeHooks& hooks) {
  assert(types.size() == source.tensors().size());
  if (const std::vector<size_t> rest = without_blocks(source, types); !rest.empty()) {
    PartOfSource part(source, rest);
    std::vector<DType> part_types;
    for (size_t i : rest) part_types.push_back(types[i]);
    return transcode(part, part_types, metadata, path, ledger, progress, hooks);
  }
  TranscodeReport report;
  std::vector<TensorInfo> infos;
  std::vector<std::unique_ptr<MatrixEncoder>> streams(types.size());
  uint64_t batch_bytes = 0;
  for (size_t i = 0; i < types.size(); ++i) {
    const TensorInfo& from = source.tensors()[i];
    TensorReport tensor{from.name, from.shape, from.dtype, types[i]};
    check_types(tensor);
    infos.push_back({from.name, types[i], from.shape});
    if (from.dtype == types[i]) {
      infos.back().stream_bytes = from.stream_bytes;
    } else if (is_stream(types[i])) {  // its size is found by reading it
      streams[i] = encoder_of(types[i], source, i, hooks);
      infos.back().stream_bytes = streams[i]->bytes();
    } else {
      batch_bytes = std::max(batch_bytes, RowUnits(from).batch_bytes(types[i], from.shape.from_last(0)));
    }
    tensor.bytes_before = from.bytes();
    tensor.bytes_after = infos.back().bytes();
    report.tensors.push_back(std::move(tensor));
  }
  Buffer batch(ledger, Tag::kScratch, batch_bytes, "encoded tensors on their way to disk");
  GgufWriter writer(path, metadata, std::move(infos));
  uint64_t before = 0;
  for (size_t i = 0; i < report.tensors.size(); ++i) {
    TensorReport& tensor = report.tensors[i];
    const auto bytes_done = [&](uint64_t bytes) {
      if (progress) progress(before + bytes, tensor.name);
    };
    bytes_done(0);
    const std::span<const std::byte> bytes = source.load(i);
    const TensorView from = source.tensors()[i].view(bytes.data());
    if (tensor.from == tensor.to) {
      copy_tensor(bytes, writer, bytes_done);
    } else if (streams[i] != nullptr) {
      write_stream(*streams[i], from, writer, tensor);
    } else {
      const TensorInfo& info = source.tensors()[i];
      const bool coded = dtype_info(tensor.to).block_elements > 1;
      const Conversion how{info, from, dtype_info(tensor.to), coded ? hooks : EncodeHooks{},
                           coded && hooks.importance ? hooks.importance(info) : std::vector<std::vector<float>>{}};
      if (!convert_whole(how, ledger, writer, tensor)) {
        convert_tensor(how, batch, writer, tensor, [&](double part) {
          bytes_done(static_cast<uint64_t>(part * static_cast<double>(tensor.bytes_before)));
        });
      }
    }
    before += tensor.bytes_before;
  }
  writer.finish();
  report.file_bytes = writer.offset();
  return report;
}

}  // namespace mneme
