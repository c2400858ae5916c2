#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"
#include "budget/buffer.h"
#include "tensor/weight_format.h"
#include "weights/aqlm_quantizer.h"
#include "weights/quantize.h"

namespace mneme {
namespace {

/// Searches for the codes of one matrix when they are to be written.
class AqlmEncoder : public MatrixEncoder {
 public:
  AqlmEncoder(const TensorInfo& tensor, const aqlm::Layout& layout, const Calibration* calibration, Ledger& ledger,
              const std::function<void(const std::string&)>& progress)
      : name_(tensor.name), layout_(layout), calibration_(calibration), ledger_(ledger), progress_(progress) {}

  uint64_t bytes() const override { return layout_.bytes(); }

  void write(const TensorView& from, FunctionRef<void(std::span<const std::byte>)> out) const override {
    const uint64_t rows = layout_.rows, columns = layout_.columns;
    Buffer memory(ledger_, Tag::kScratch, rows * columns * sizeof(float), "a matrix to be quantised");
    const std::span<float> values = memory.as<float>().first(rows * columns);
    parallel_for((rows + 31) / 32, 1, [&](size_t begin, size_t end) {  // streams decode up to 32 rows at a time
      const uint64_t first = begin * 32, n = std::min<uint64_t>(end * 32, rows) - first;
      weight_format(from.dtype).decode_tile(from, {first, n, 0, columns}, values.data() + first * columns, columns);
    });
    std::vector<float> mean_squares;
    std::span<const float> gram;
    if (const InputStatistics* statistics = calibration_ == nullptr ? nullptr : calibration_->find(name_)) {
      gram = statistics->gram;
      if (gram.empty()) gram = mean_squares = statistics->importance();
    }
    try {
      out(aqlm::quantize(values, layout_, gram, {}, ledger_, [&](int round, double loss) {
            progress_(fmt::format("{}, round {}, loss {:.4f}", name_, round, loss));
          }).stream);
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("{}, in tensor '{}'", error.what(), name_), error.hint());
    }
  }

 private:
  std::string name_;
  aqlm::Layout layout_;
  const Calibration* calibration_;
  Ledger& ledger_;
  const std::function<void(const std::string&)>& progress_;
};

}  // namespace

std::function<std::unique_ptr<MatrixEncoder>(const TensorInfo&, DType)> aqlm_encoders(
    const QuantRecipe& recipe, const Calibration* calibration, Ledger& ledger, std::vector<std::string>& notes,
    const std::function<void(const std::string&)>& progress) {
  return [&, calibration](const TensorInfo& tensor, DType to) -> std::unique_ptr<MatrixEncoder> {
    if (to != DType::kAqlm) return nullptr;
    const uint64_t columns = tensor.shape.from_last(0), rows = tensor.shape.elements() / columns;
    const aqlm::Scheme scheme = aqlm::capped(recipe.scheme, rows, columns);
    if (scheme != recipe.scheme) {
      notes.push_back(fmt::format("tensor '{}' of {} has groups for codebooks of {} bits, not {}", tensor.name,
                                  tensor.shape.to_string(), scheme.bits, recipe.scheme.bits));
    }
    return std::make_unique<AqlmEncoder>(tensor, aqlm::layout_for(rows, columns, scheme), calibration, ledger,
                                         progress);
  };
}

}  // namespace mneme
