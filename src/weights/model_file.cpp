#include "weights/model_file.h"

#include <cassert>
#include <utility>

#include "weights/hf_checkpoint.h"

namespace mneme {

ModelFile::ModelFile(Parts parts) : parts_(std::move(parts)) {
  by_name_.reserve(parts_.tensors.size());
  for (size_t i = 0; i < parts_.tensors.size(); ++i) {
    [[maybe_unused]] const bool inserted = by_name_.emplace(parts_.tensors[i].name, i).second;
    assert(inserted);
  }
}

const NamedTensor* ModelFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &parts_.tensors[found->second];
}

uint64_t ModelFile::file_bytes() const {
  uint64_t total = 0;
  for (const MappedFile& file : parts_.files) total += file.size();
  return total;
}

uint64_t ModelFile::tensor_bytes() const {
  uint64_t total = 0;
  for (const NamedTensor& tensor : parts_.tensors) total += tensor.view.bytes();
  return total;
}

uint64_t ModelFile::owned_bytes() const {
  uint64_t total = 0;
  for (const Buffer& buffer : parts_.buffers) total += buffer.size();
  return total;
}

ModelFile open_model(const std::string& path, Ledger& ledger) {
  return is_hf_checkpoint(path) ? HfCheckpoint(path, ledger).to_model_file() : open_gguf(path);
}

}  // namespace mneme
