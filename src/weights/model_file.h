#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/mapped_file.h"
#include "budget/buffer.h"
#include "tensor/bitstack.h"
#include "tensor/tensor.h"
#include "weights/metadata.h"

namespace mneme {

/// A tensor of a model file under its GGUF name, e.g. "blk.0.attn_q.weight".
struct NamedTensor {
  std::string name;
  TensorView view;  ///< Shape outermost first; data is at least 8-byte aligned in GGUF files.
};

/// An opened model: metadata under GGUF keys and tensors under GGUF names, whatever the format on disk. Move-only; the
/// views it hands out live as long as it does (moving the object keeps them valid).
///
/// Tensors are views into mapped files, so opening reads only headers. Tensors whose stored form differs from the GGUF
/// one (some of a Hugging Face checkpoint) are in owned memory, counted under Tag::kWeights.
class ModelFile {
 public:
  struct Parts {
    std::string path;
    Metadata metadata;
    std::vector<NamedTensor> tensors;
    std::vector<MappedFile> files;
    std::vector<Buffer> buffers;
    std::deque<bitstack::BlockList>
        block_lists;  ///< What TensorView::blocks point at; a deque, whose elements stay in place.
  };

  /// Takes what a reader found; names must be unique.
  explicit ModelFile(Parts parts);

  const Metadata& metadata() const { return parts_.metadata; }
  /// In the order of the file; empty for a file that has only a vocabulary.
  std::span<const NamedTensor> tensors() const { return parts_.tensors; }
  /// The tensor of that name, or null.
  const NamedTensor* find(std::string_view name) const;
  /// Size of all files on disk together.
  uint64_t file_bytes() const;
  /// Bytes of all tensors.
  uint64_t tensor_bytes() const;
  /// Bytes of the tensors that are in owned memory instead of a mapping.
  uint64_t owned_bytes() const;
  std::span<const MappedFile> files() const { return parts_.files; }
  /// The path that was opened.
  const std::string& path() const { return parts_.path; }

 private:
  Parts parts_;
  std::unordered_map<std::string_view, size_t> by_name_;
};

/// Opens a GGUF file (version 2 or 3), with its shards when it is the first of several. Everything in the headers is
/// checked before use. Throws Error: kCorruptData names the key or tensor, kUnsupported the version or type.
ModelFile open_gguf(const std::string& path);

/// Opens a model by its path: a GGUF file, or a Hugging Face checkpoint given as its folder, its safetensors file or
/// its index (see HfCheckpoint). `ledger` bears tensors that need memory of their own.
ModelFile open_model(const std::string& path, Ledger& ledger);

}  // namespace mneme
