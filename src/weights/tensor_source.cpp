#include "weights/tensor_source.h"

#include "weights/model_file.h"

namespace mneme {

ModelFileSource::ModelFileSource(const ModelFile& model) : model_(model) {
  tensors_.reserve(model.tensors().size());
  for (const NamedTensor& tensor : model.tensors()) {
    tensors_.push_back({tensor.name, tensor.view.dtype, tensor.view.shape});
  }
}

std::span<const std::byte> ModelFileSource::load(size_t i) {
  for (const MappedFile& file : model_.files()) {
    const std::byte* begin = file.bytes().data();
    if (!current_.empty() && current_.data() >= begin && current_.data() < begin + file.size()) {
      file.release(static_cast<size_t>(current_.data() - begin), current_.size());
    }
  }
  const TensorView& view = model_.tensors()[i].view;
  current_ = {view.data, view.bytes()};
  return current_;
}

}  // namespace mneme
