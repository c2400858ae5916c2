#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "budget/ledger.h"
#include "tensor/tensor.h"
#include "weights/metadata.h"
#include "weights/model_file.h"

namespace mneme {

/// Name, type and shape of a tensor whose bytes come later.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t stream_bytes = 0;  ///< As in TensorView, this and the next.
  const bitstack::BlockList* blocks = nullptr;

  uint64_t bytes() const { return view(nullptr).bytes(); }
  TensorView view(const std::byte* data) const { return {dtype, shape, data, stream_bytes, blocks}; }
};

/// A model whose tensors are handed out one at a time, so that one larger than memory can be rewritten.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const Metadata& metadata() const = 0;
  virtual std::span<const TensorInfo> tensors() const = 0;
  /// The bytes of tensor `i`, valid until the next call.
  virtual std::span<const std::byte> load(size_t i) = 0;

  /// Bytes of all tensors.
  uint64_t tensor_bytes() const;
};

/// An opened model as a source; pages of a mapped tensor are given back when the next one is asked for.
class ModelFileSource : public TensorSource {
 public:
  /// `model` must outlive this.
  explicit ModelFileSource(const ModelFile& model);
  explicit ModelFileSource(ModelFile&& model);
  ModelFileSource(const ModelFileSource&) = delete;
  ModelFileSource& operator=(const ModelFileSource&) = delete;

  const Metadata& metadata() const override { return model_->metadata(); }
  std::span<const TensorInfo> tensors() const override { return tensors_; }
  std::span<const std::byte> load(size_t i) override;

 private:
  void list_tensors();

  std::optional<ModelFile> owned_;
  const ModelFile* model_;
  std::vector<TensorInfo> tensors_;
  std::span<const std::byte> current_;
};

/// Some tensors of another source, which must outlive this.
class PartOfSource : public TensorSource {
 public:
  /// `which`: indices of the tensors.
  PartOfSource(TensorSource& source, std::vector<size_t> which);

  const Metadata& metadata() const override { return source_.metadata(); }
  std::span<const TensorInfo> tensors() const override { return tensors_; }
  std::span<const std::byte> load(size_t i) override { return source_.load(which_[i]); }

 private:
  TensorSource& source_;
  std::vector<size_t> which_;
  std::vector<TensorInfo> tensors_;
};

/// Opens a model for rewriting: as open_model(), but tensors that must be made are made one at a time.
std::unique_ptr<TensorSource> open_source(const std::string& path, Ledger& ledger);

}  // namespace mneme
