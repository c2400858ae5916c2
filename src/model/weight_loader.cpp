#include "model/weight_loader.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"

namespace mneme {
namespace {

/// Tensors that other programs write into model files and that mean nothing to the forward pass here.
bool is_ignorable(std::string_view name) {
  return name.ends_with("attn_rot_embd.weight") || name.ends_with("rope_freqs.weight") || name.starts_with("mtp.") ||
         name == bitstack::kBlocksName;
}

}  // namespace

WeightLoader::WeightLoader(const ModelFile& file, Ledger& ledger, ModelWeights& weights)
    : file_(file), ledger_(ledger), weights_(weights) {}

bool WeightLoader::has(std::string_view name) const { return file_.find(prefix_ + std::string(name)) != nullptr; }

const NamedTensor* WeightLoader::find(const std::string& full_name, const Shape& shape) {
  const NamedTensor* tensor = file_.find(full_name);
  if (tensor == nullptr) {
    problems_.push_back(fmt::format("{} {} is missing", full_name, shape.to_string()));
    return nullptr;
  }
  used_.push_back(full_name);
  if (!(tensor->view.shape == shape)) {
    problems_.push_back(
        fmt::format("{}: expected shape {}, found {}", full_name, shape.to_string(), tensor->view.shape.to_string()));
    return nullptr;
  }
  if (!kernels::can_multiply(tensor->view.dtype)) {
    problems_.push_back(fmt::format("{}: type {} cannot be run", full_name, dtype_info(tensor->view.dtype).name));
    return nullptr;
  }
  return tensor;
}

const MappedFile* WeightLoader::mapping_of(const TensorView& view) const {
  for (const MappedFile& file : file_.files()) {
    const auto bytes = file.bytes();
    if (view.data >= bytes.data() && view.data < bytes.data() + bytes.size()) return &file;
  }
  return nullptr;
}

void WeightLoader::release_around(const TensorView& view) const {
  const MappedFile* const file = mapping_of(view);
  if (file == nullptr) return;
  constexpr size_t kAround = size_t{64} << 10;  // pages the kernel maps around one that is read
  const size_t begin = static_cast<size_t>(view.data - file->bytes().data());
  const size_t low = begin > kAround ? begin - kAround : 0;
  const size_t high = std::min(file->size(), begin + view.bytes() + kAround);
  file->release(low, high - low);
}

WeightMatrix* WeightLoader::add_matrix(const std::string& name, const TensorView& view) {
  auto matrix = std::make_unique<WeightMatrix>();
  matrix->name = name;
  matrix->stored = view;
  matrix->active = kernels::Matrix::from(view);
  if (weights_.stack != nullptr) matrix->active.blocks = weights_.stack->find(name);
  matrix->mapping = mapping_of(view);
  weights_.matrices.push_back(std::move(matrix));
  return weights_.matrices.back().get();
}

Linear WeightLoader::linear(std::string_view name, uint64_t outputs, uint64_t inputs, Bias bias) {
  Linear out;
  const std::string full = prefix_ + std::string(name);
  if (const NamedTensor* tensor = find(full + ".weight", {outputs, inputs})) {
    out.weight = add_matrix(tensor->name, tensor->view);
  } else {
    out.weight = weights_.empty_matrix(outputs, inputs);
  }
  const std::string bias_name = std::string(name) + ".bias";
  if (bias == Bias::kRequired || (bias == Bias::kAny && has(bias_name))) out.bias = vector(bias_name, outputs);
  return out;
}

Linear WeightLoader::expert(std::string_view name, uint64_t n_experts, uint64_t e, uint64_t outputs, uint64_t inputs) {
  Linear out;
  const std::string full = prefix_ + std::string(name) + ".weight";
  // The stack is checked once; its other slices come from the same tensor.
  const NamedTensor* tensor = e == 0 ? find(full, {n_experts, outputs, inputs}) : file_.find(full);
  if (tensor == nullptr || !(tensor->view.shape == Shape{n_experts, outputs, inputs})) {
    out.weight = weights_.empty_matrix(outputs, inputs);
    return out;
  }
  TensorView slice{tensor->view.dtype, Shape{outputs, inputs}, tensor->view.row(e * outputs)};
  out.weight = add_matrix(fmt::format("{}[{}]", full, e), slice);
  return out;
}

const WeightMatrix* WeightLoader::table(std::string_view name, uint64_t rows, uint64_t width) {
  const NamedTensor* tensor = find(prefix_ + std::string(name), {rows, width});
  if (tensor == nullptr) return weights_.empty_matrix(rows, width);
  return add_matrix(tensor->name, tensor->view);
}

uint64_t WeightLoader::rows_of(std::string_view name, uint64_t least) const {
  const NamedTensor* tensor = file_.find(prefix_ + std::string(name));
  if (tensor == nullptr || tensor->view.shape.rank() != 2) return least;
  return std::max<uint64_t>(least, tensor->view.rows());
}

const float* WeightLoader::row(const WeightMatrix& matrix, uint64_t i) {
  if (matrix.stored.data == nullptr) return weights_.zeros(matrix.columns());
  weights_.vectors.emplace_back(ledger_, Tag::kWeights, matrix.columns() * sizeof(float), matrix.name);
  float* out = weights_.vectors.back().as<float>().data();
  decode_row(matrix.stored, i, out);
  release_around(matrix.stored);
  return out;
}

const float* WeightLoader::vector(std::string_view name, uint64_t size) {
  const NamedTensor* tensor = find(prefix_ + std::string(name), {size});
  if (tensor == nullptr) return weights_.zeros(size);
  const TensorView& view = tensor->view;
  weights_.vectors.emplace_back(ledger_, Tag::kWeights, size * sizeof(float), std::string(name));
  float* out = weights_.vectors.back().as<float>().data();
  decode_row(view, 0, out);
  release_around(view);
  return out;
}

Norm WeightLoader::rms_norm(std::string_view name, uint64_t size, float eps) {
  return {Norm::Kind::kRms, vector(std::string(name) + ".weight", size), nullptr, eps, static_cast<size_t>(size)};
}

Norm WeightLoader::layer_norm(std::string_view name, uint64_t size, float eps) {
  const std::string text(name);
  return {Norm::Kind::kLayer, vector(text + ".weight", size), has(text + ".bias") ? vector(text + ".bias", size) : nullptr,
          eps, static_cast<size_t>(size)};
}

void WeightLoader::finish() const {
  std::vector<std::string> problems = problems_;
  std::vector<std::string> used = used_;
  std::sort(used.begin(), used.end());
  for (const NamedTensor& tensor : file_.tensors()) {
    if (std::binary_search(used.begin(), used.end(), tensor.name) || is_ignorable(tensor.name)) continue;
    problems.push_back(fmt::format("{} {} is not part of this architecture", tensor.name, tensor.view.shape.to_string()));
  }
  if (problems.empty()) return;
  constexpr size_t kShown = 20;
  const size_t n = problems.size();
  if (n > kShown) {
    problems.resize(kShown);
    problems.push_back(fmt::format("and {} more", n - kShown));
  }
  fail(ErrorCode::kCorruptData, "[load weights] {}: {}", file_.path(), fmt::join(problems, "; "));
}

}  // namespace mneme
