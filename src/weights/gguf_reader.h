#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "weights/metadata.h"
#include "weights/model_file.h"

namespace mneme {

/// What one GGUF file holds; views point into the bytes that were parsed.
struct GgufContents {
  Metadata metadata;
  std::vector<NamedTensor> tensors;
};

/// Parses and validates one GGUF file given as bytes. `source` names it in messages. Tensor data is not read.
/// Throws Error(kCorruptData or kUnsupported) whose message names the key or tensor, what was expected and what came.
GgufContents parse_gguf(std::span<const std::byte> bytes, const std::string& source);

/// Path of shard `number` (from 1) of `count`, from the path of the first one: "x-00001-of-00003.gguf". Throws
/// Error(kInvalidArgument) when the path does not have this form.
std::string gguf_shard_path(const std::string& first, size_t number, size_t count);

}  // namespace mneme
