#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mneme {

class ModelFile;

/// Name, type and shape of a tensor whose bytes come later.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;

  uint64_t bytes() const { return row_bytes(dtype, shape.from_last(0)) * (shape.elements() / shape.from_last(0)); }
};

/// Tensors that are handed out one at a time, so that a model larger than memory can be rewritten.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual std::span<const TensorInfo> tensors() const = 0;
  /// The bytes of tensor `i`, valid until the next call.
  virtual std::span<const std::byte> load(size_t i) = 0;
};

/// The tensors of an opened model; pages of a mapped tensor are given back when the next one is asked for.
class ModelFileSource : public TensorSource {
 public:
  explicit ModelFileSource(const ModelFile& model);
  std::span<const TensorInfo> tensors() const override { return tensors_; }
  std::span<const std::byte> load(size_t i) override;

 private:
  const ModelFile& model_;
  std::vector<TensorInfo> tensors_;
  std::span<const std::byte> current_;
};

}  // namespace mneme
