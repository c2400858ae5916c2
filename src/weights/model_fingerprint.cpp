#include "weights/model_fingerprint.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

namespace mneme {
namespace {

constexpr size_t kSampleBytes = 4096;

class Hash {
 public:
  void add(const void* data, size_t bytes) {
    value_ = XXH3_64bits_withSeed(&bytes, sizeof bytes, value_);
    value_ = XXH3_64bits_withSeed(data, bytes, value_);
  }
  void add(std::string_view text) { add(text.data(), text.size()); }
  template <typename T>
  void add_number(T value) {
    add(&value, sizeof value);
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0;
};

/// Gives back the page of a mapping that a sample touched.
void release(const ModelFile& file, const std::byte* data, size_t bytes) {
  for (const MappedFile& mapped : file.files()) {
    const std::byte* const begin = mapped.bytes().data();
    if (data >= begin && data < begin + mapped.size()) mapped.release(static_cast<size_t>(data - begin), bytes);
  }
}

}  // namespace

std::string model_fingerprint(const ModelFile& file) {
  Hash hash;
  for (const Metadata::Entry& entry : file.metadata().entries()) {
    hash.add(entry.key);
    hash.add_number(entry.value.type);
    hash.add_number(entry.value.element_type);
    hash.add(entry.value.bytes.data(), entry.value.bytes.size());
    for (const std::string_view text : entry.value.strings) hash.add(text);
  }
  for (const NamedTensor& tensor : file.tensors()) {
    hash.add(tensor.name);
    hash.add_number(tensor.view.dtype);
    for (size_t i = 0; i < tensor.view.shape.rank(); ++i) hash.add_number(tensor.view.shape[i]);
    const size_t size = tensor.view.bytes(), n = std::min(size, kSampleBytes);
    for (const size_t offset : {size_t{0}, (size - n) / 2, size - n}) {
      hash.add(tensor.view.data + offset, n);
      release(file, tensor.view.data + offset, n);
    }
  }
  return fmt::format("{:016x}", hash.value());
}

}  // namespace mneme
