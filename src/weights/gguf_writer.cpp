#include "weights/gguf_writer.h"

#include <array>
#include <bit>
#include <cassert>
#include <unordered_set>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"

namespace mneme {
namespace {

constexpr uint32_t kVersion = 3;
constexpr size_t kMaxNameBytes = 63;

void check_tensors(std::span<const TensorInfo> tensors, const std::string& path) {
  std::unordered_set<std::string_view> names;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.name.empty() || tensor.name.size() > kMaxNameBytes || !names.insert(tensor.name).second) {
      fail(ErrorCode::kInvalidArgument, "[write GGUF] expected different names of 1 to {} bytes, found '{}', in {}",
           kMaxNameBytes, tensor.name, path);
    }
    const DTypeInfo& info = dtype_info(tensor.dtype);
    if (tensor.shape.rank() == 0 || tensor.shape.elements() == 0 ||
        tensor.shape.from_last(0) % info.block_elements != 0) {
      fail(ErrorCode::kInvalidArgument,
           "[write GGUF] tensor '{}': expected rows of a multiple of {} elements for type {}, found shape {}, in {}",
           tensor.name, info.block_elements, info.name, tensor.shape.to_string(), path);
    }
  }
}

uint64_t alignment_of(const Metadata& metadata) {
  return metadata.find_u64("general.alignment").value_or(32);
}

/// Bytes of a value behind its type.
uint64_t value_bytes(const MetadataValue& value) {
  uint64_t bytes = value.bytes.size() + (value.type == ValueType::kString ? sizeof(uint64_t) : 0);
  if (value.type == ValueType::kArray) {
    bytes += sizeof(uint32_t) + sizeof(uint64_t);
    for (std::string_view text : value.strings) bytes += sizeof(uint64_t) + text.size();
  }
  return bytes;
}

}  // namespace

uint64_t gguf_bytes(const Metadata& metadata, std::span<const TensorInfo> tensors) {
  const uint64_t alignment = alignment_of(metadata);
  uint64_t bytes = 4 + sizeof kVersion + 2 * sizeof(uint64_t), content = 0;
  for (const auto& [key, entry] : metadata.entries())
    bytes += sizeof(uint64_t) + key.size() + sizeof(uint32_t) + value_bytes(entry);
  for (const TensorInfo& tensor : tensors) {
    bytes += 2 * sizeof(uint64_t) + tensor.name.size() + 2 * sizeof(uint32_t) + sizeof(uint64_t) * tensor.shape.rank();
    content += round_up(tensor.bytes(), alignment);
  }
  return round_up(bytes, alignment) + content;
}

GgufWriter::GgufWriter(const std::string& path, const Metadata& metadata, std::vector<TensorInfo> tensors)
    : file_(path), tensors_(std::move(tensors)) {
  check_tensors(tensors_, path);
  alignment_ = alignment_of(metadata);
  if (!std::has_single_bit(alignment_) || alignment_ < 8 || alignment_ > (uint64_t{1} << 20)) {
    fail(ErrorCode::kInvalidArgument,
         "[write GGUF] expected an alignment that is a power of two from 8, found {}, in {}", alignment_, path);
  }
  file_.write("GGUF");
  number(kVersion);
  number<uint64_t>(tensors_.size());
  number<uint64_t>(metadata.size());
  for (const auto& [key, entry] : metadata.entries()) {
    string(key);
    value(entry);
  }
  uint64_t offset = 0;
  for (const TensorInfo& tensor : tensors_) {
    string(tensor.name);
    number(static_cast<uint32_t>(tensor.shape.rank()));
    for (size_t i = 0; i < tensor.shape.rank(); ++i) number<uint64_t>(tensor.shape.from_last(i));
    number(static_cast<uint32_t>(tensor.dtype));
    number<uint64_t>(offset);
    offset += round_up(tensor.bytes(), alignment_);
  }
  pad();
}

template <typename T>
void GgufWriter::number(T value) {
  file_.write(std::as_bytes(std::span(&value, 1)));
}

void GgufWriter::string(std::string_view text) {
  number<uint64_t>(text.size());
  file_.write(text);
}

void GgufWriter::value(const MetadataValue& value) {
  number(static_cast<uint32_t>(value.type));
  if (value.type == ValueType::kString) {
    string(value.text());
    return;
  }
  if (value.type == ValueType::kArray) {
    number(static_cast<uint32_t>(value.element_type));
    number<uint64_t>(value.count);
    for (std::string_view text : value.strings) string(text);
  }
  file_.write(value.bytes);
}

void GgufWriter::pad() {
  static constexpr std::array<std::byte, 4096> kZeros{};
  uint64_t missing = round_up(file_.offset(), alignment_) - file_.offset();
  while (missing > 0) {
    const uint64_t part = std::min<uint64_t>(missing, kZeros.size());
    file_.write(std::span(kZeros).first(part));
    missing -= part;
  }
}

void GgufWriter::write(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  assert(current_ < tensors_.size());
  const uint64_t size = tensors_[current_].bytes();
  assert(bytes.size() <= size - written_);
  file_.write(bytes);
  written_ += bytes.size();
  if (written_ == size) {
    pad();
    ++current_;
    written_ = 0;
  }
}

void GgufWriter::finish() {
  assert(current_ == tensors_.size() && written_ == 0);
  file_.commit();
}

void write_gguf(const std::string& path, const Metadata& metadata, std::span<const NamedTensor> tensors) {
  std::vector<TensorInfo> infos;
  infos.reserve(tensors.size());
  for (const NamedTensor& tensor : tensors) {
    infos.push_back({tensor.name, tensor.view.dtype, tensor.view.shape, tensor.view.stream_bytes});
  }
  GgufWriter writer(path, metadata, std::move(infos));
  for (const NamedTensor& tensor : tensors) writer.write({tensor.view.data, tensor.view.bytes()});
  writer.finish();
}

}  // namespace mneme
