#include "weights/tensor_source.h"

#include <utility>

#include "weights/hf_checkpoint.h"

namespace mneme {

uint64_t TensorSource::tensor_bytes() const {
  uint64_t total = 0;
  for (const TensorInfo& tensor : tensors()) total += tensor.bytes();
  return total;
}

ModelFileSource::ModelFileSource(const ModelFile& model) : model_(&model) {
  list_tensors();
}

ModelFileSource::ModelFileSource(ModelFile&& model) : owned_(std::move(model)), model_(&*owned_) {
  list_tensors();
}

void ModelFileSource::list_tensors() {
  tensors_.reserve(model_->tensors().size());
  for (const NamedTensor& tensor : model_->tensors()) {
    tensors_.push_back(
        {tensor.name, tensor.view.dtype, tensor.view.shape, tensor.view.stream_bytes, tensor.view.blocks});
  }
}

std::span<const std::byte> ModelFileSource::load(size_t i) {
  for (const MappedFile& file : model_->files()) {
    const std::byte* begin = file.bytes().data();
    if (!current_.empty() && current_.data() >= begin && current_.data() < begin + file.size()) {
      file.release(static_cast<size_t>(current_.data() - begin), current_.size());
    }
  }
  const TensorView& view = model_->tensors()[i].view;
  current_ = {view.data, view.bytes()};
  return current_;
}

PartOfSource::PartOfSource(TensorSource& source, std::vector<size_t> which)
    : source_(source), which_(std::move(which)) {
  for (size_t i : which_) tensors_.push_back(source.tensors()[i]);
}

std::unique_ptr<TensorSource> open_source(const std::string& path, Ledger& ledger) {
  if (is_hf_checkpoint(path)) return std::make_unique<HfCheckpoint>(path, ledger);
  return std::make_unique<ModelFileSource>(open_gguf(path));
}

}  // namespace mneme
