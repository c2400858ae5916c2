#include "weights/calibration.h"

#include <cmath>

#include "base/error.h"
#include "weights/gguf_writer.h"

namespace mneme {
namespace {

constexpr std::string_view kSquares = ".in_sum2", kCounts = ".counts";

}  // namespace

std::vector<float> InputStatistics::importance() const {
  std::vector<float> out(squares.size());
  const double n = static_cast<double>(std::max<uint64_t>(1, n_rows));
  double sum = 0;
  for (size_t j = 0; j < out.size(); ++j) sum += squares[j] / n;
  // A channel that was silent in this text still gets a little, so that its weights stay near.
  const double least = 1e-4 * sum / static_cast<double>(std::max<size_t>(1, out.size()));
  for (size_t j = 0; j < out.size(); ++j) out[j] = static_cast<float>(squares[j] / n + least);
  return out;
}

void Calibration::set(const std::string& name, std::shared_ptr<InputStatistics> statistics) {
  by_name_[name] = std::move(statistics);
}

const InputStatistics* Calibration::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second.get();
}

void Calibration::check(std::span<const TensorInfo> tensors) const {
  size_t n_known = 0;
  for (const TensorInfo& tensor : tensors) {
    const InputStatistics* statistics = find(tensor.name);
    if (statistics == nullptr) continue;
    ++n_known;
    if (statistics->squares.size() != tensor.shape.from_last(0)) {
      fail(ErrorCode::kInvalidArgument, "[calibrate] tensor '{}': expected statistics of {} columns, found {}",
           tensor.name, tensor.shape.from_last(0), statistics->squares.size());
    }
  }
  if (n_known == 0) {
    fail(ErrorCode::kInvalidArgument, "[calibrate] expected statistics of this model's matrices, found {} of others",
         size());
  }
}

void Calibration::save(const std::string& path, const std::string& text) const {
  Metadata metadata(path);
  metadata.set_string("general.type", "imatrix");
  metadata.set_string("imatrix.datasets", text);
  std::vector<std::vector<float>> values;
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& name) {
    tensors.push_back(
        {name, {DType::kF32, Shape{values.back().size()}, reinterpret_cast<const std::byte*>(values.back().data())}});
  };
  for (const auto& [name, statistics] : by_name_) {
    values.emplace_back(statistics->squares.begin(), statistics->squares.end());
    add(name + std::string(kSquares));
    values.push_back({static_cast<float>(statistics->n_rows)});
    add(name + std::string(kCounts));
  }
  write_gguf(path, metadata, tensors);
}

Calibration Calibration::load(const std::string& path) {
  const ModelFile file = open_gguf(path);
  Calibration out;
  for (const NamedTensor& tensor : file.tensors()) {
    if (!tensor.name.ends_with(kSquares)) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - kSquares.size());
    const NamedTensor* counts = file.find(name + std::string(kCounts));
    if (tensor.view.dtype != DType::kF32 || tensor.view.rows() != 1 || counts == nullptr ||
        counts->view.dtype != DType::kF32 || counts->view.shape.elements() != 1) {
      fail(ErrorCode::kCorruptData, "[read importance] '{}': expected one row of F32 sums and a count, in {}", name,
           path);
    }
    auto statistics = std::make_shared<InputStatistics>();
    std::vector<float> sums(tensor.view.columns());
    decode_row(tensor.view, 0, sums.data());
    float count = 0;
    decode_row(counts->view, 0, &count);
    for (float sum : sums) {
      if (!(sum >= 0) || !std::isfinite(sum)) {
        fail(ErrorCode::kCorruptData, "[read importance] '{}': expected sums of squares, found {}, in {}", name, sum,
             path);
      }
    }
    if (!(count >= 1) || count > 1e18f) {
      fail(ErrorCode::kCorruptData, "[read importance] '{}': expected a count from 1, found {}, in {}", name, count,
           path);
    }
    statistics->n_rows = static_cast<uint64_t>(count);
    statistics->squares.assign(sums.begin(), sums.end());
    out.set(name, std::move(statistics));
  }
  if (out.size() == 0) {
    fail(ErrorCode::kCorruptData, "[read importance] expected tensors NAME{} and NAME{}, found none, in {}", kSquares,
         kCounts, path);
  }
  return out;
}

}  // namespace mneme
