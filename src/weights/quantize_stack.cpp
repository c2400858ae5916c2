#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/parallel.h"
#include "tensor/weight_format.h"
#include "weights/bitstack_decomposition.h"
#include "weights/quantize.h"
#include "weights/stack_file.h"

namespace mneme {
namespace {

using bitstack::BlockId;
using bitstack::Decomposition;
using bitstack::StackedGains;
using bitstack::StackedMatrix;

/// A file that goes when this does.
class PassingFile {
 public:
  explicit PassingFile(std::string path) : path_(std::move(path)) {}
  PassingFile(const PassingFile&) = delete;
  PassingFile& operator=(const PassingFile&) = delete;
  ~PassingFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// What is known of a matrix once its blocks are on disk.
struct Stacked {
  StackedMatrix matrix;
  std::vector<uint64_t> sizes;  ///< Of the blocks, which lie one behind another.
  std::vector<double> gains;
};

/// Decomposes one matrix and appends its blocks to `out`.
Stacked decompose_tensor(const TensorInfo& tensor, const TensorView& view, const QuantizeOptions& options,
                         Ledger& ledger, AtomicFile& out, TensorReport& report) {
  const uint64_t rows = view.rows(), columns = view.columns();
  const uint32_t k = options.stack.vectors > 0 ? options.stack.vectors : bitstack::vectors_for(rows, columns);
  Buffer memory(ledger, Tag::kScratch, rows * columns * sizeof(float), "a matrix to be decomposed");
  const std::span<float> values = memory.as<float>();
  parallel_for((rows + 15) / 16, 1, [&](size_t begin, size_t end) {  // formats decode 16 rows at a time
    const uint64_t first = begin * 16, n = std::min<uint64_t>(end * 16, rows) - first;
    weight_format(view.dtype).decode_tile(view, {first, n, 0, columns}, values.data() + first * columns, columns);
  });
  std::vector<float> scales;
  if (options.calibration != nullptr) {
    if (const InputStatistics* statistics = options.calibration->find(tensor.name)) {
      scales = bitstack::channel_scales(statistics->importance());
    }
  }
  Decomposition made;
  try {
    made = bitstack::decompose(values.subspan(0, rows * columns), {rows, columns, k}, scales, options.stack.blocks,
                               ledger);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}, in tensor '{}'", error.what(), tensor.name), error.hint());
  }
  Stacked stacked;
  stacked.matrix.name = tensor.name;
  stacked.matrix.shape = tensor.shape;
  stacked.matrix.vectors = made.vectors;
  for (size_t i = 0; i < made.blocks.size(); ++i) {
    stacked.matrix.checksums.push_back(bitstack::block_checksum(made.blocks[i]));
    stacked.sizes.push_back(made.blocks[i].size());
    stacked.gains.push_back((made.errors[i] - made.errors[i + 1]) / made.errors.front());
    out.write(made.blocks[i]);
  }
  report.squared_error = made.errors.back();
  report.squared_norm = made.errors.front();
  return stacked;
}

/// Leaves out the end of the order so that the file has at most `size` bytes.
void cut_to_size(std::vector<BlockId>& order, uint64_t size, const Metadata& metadata,
                 std::span<const NamedTensor> others, std::span<const StackedMatrix> matrices) {
  size_t least = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i].level == 0) least = i + 1;
  }
  const auto bytes = [&](size_t n) {
    return bitstack::stack_file_bytes(metadata, others, matrices, std::span(order).first(n));
  };
  if (bytes(least) > size) {
    fail(ErrorCode::kOutOfBudget, "[quantize] expected a size of at least {} bytes for this model, found {}",
         bytes(least), size);
  }
  while (bytes(order.size()) > size) order.pop_back();
}

}  // namespace

TranscodeReport quantize_stack(TensorSource& source, const std::string& path, const QuantizeOptions& options,
                               Ledger& ledger, const TranscodeProgress& progress) {
  if (options.awq || options.gptq || options.clipping != Clipping::kNone || options.activation_bits < 8 ||
      options.static_activations) {
    fail(ErrorCode::kInvalidArgument,
         "[quantize] BITSTACK has its own scales: expected no --awq, --method gptq, --clip, --activation-bits "
         "or static activations");
  }
  const std::vector<DType> types = choose_types(*options.recipe, source.metadata(), source.tensors(), options.pure);
  if (!options.lossy) check_second_loss(source, types);
  Metadata metadata = source.metadata();
  metadata.set_u32("general.file_type", options.recipe->file_type);
  metadata.set_u32("general.quantization_version", 2);

  TranscodeReport report;
  std::vector<size_t> others;
  std::vector<DType> other_types;
  std::vector<Stacked> stacked;
  const PassingFile blocks_file(path + ".blocks"), others_file(path + ".others");
  uint64_t done = 0;
  {
    AtomicFile blocks(blocks_file.path());
    for (size_t i = 0; i < types.size(); ++i) {
      const TensorInfo& tensor = source.tensors()[i];
      if (types[i] != DType::kBitStack) {
        if (tensor.name != bitstack::kBlocksName) {
          others.push_back(i);
          other_types.push_back(types[i]);
        }
        continue;
      }
      if (progress) progress(done, tensor.name);
      TensorReport of_tensor{tensor.name, tensor.shape, tensor.dtype, types[i]};
      of_tensor.bytes_before = tensor.bytes();
      stacked.push_back(
          decompose_tensor(tensor, tensor.view(source.load(i).data()), options, ledger, blocks, of_tensor));
      report.tensors.push_back(std::move(of_tensor));
      done += tensor.bytes();
    }
    if (stacked.empty()) {
      fail(ErrorCode::kInvalidArgument, "[quantize] expected matrices of layers to stack, found none, in {}",
           source.metadata().source());
    }
    blocks.commit();
  }
  PartOfSource rest(source, others);
  const TranscodeReport of_rest = transcode(rest, other_types, metadata, others_file.path(), ledger,
                                            [&](uint64_t bytes, const std::string& tensor) {
                                              if (progress) progress(done + bytes, tensor);
                                            });
  const MappedFile blocks(blocks_file.path());
  const ModelFile other_model = open_gguf(others_file.path());
  std::vector<StackedMatrix> matrices;
  std::vector<StackedGains> gains;
  size_t at = 0;
  for (Stacked& one : stacked) {
    for (uint64_t size : one.sizes) {
      one.matrix.blocks.push_back(blocks.bytes().subspan(at, size));
      at += size;
    }
    gains.push_back({one.sizes.empty() ? 0 : one.sizes.front(), one.gains});
    matrices.push_back(std::move(one.matrix));
  }
  std::vector<BlockId> order = bitstack::order_blocks(options.stack.order, gains, options.stack.seed);
  if (options.size > 0) cut_to_size(order, options.size, metadata, other_model.tensors(), matrices);
  bitstack::write_stack(path, metadata, other_model.tensors(), matrices, order);
  for (const BlockId& id : order) report.tensors[id.matrix].bytes_after += matrices[id.matrix].blocks[id.level].size();
  report.tensors.insert(report.tensors.end(), of_rest.tensors.begin(), of_rest.tensors.end());
  report.file_bytes = std::filesystem::file_size(path);
  return report;
}

}  // namespace mneme
