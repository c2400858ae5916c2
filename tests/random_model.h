#pragma once

#include <string>
#include <vector>

#include "weights/gguf_writer.h"

namespace mneme {

/// Sizes of a generated llama model. Its vocabulary has a token for each byte, so a text of n bytes is n + 1 tokens.
struct RandomModel {
  uint32_t width = 64, n_layers = 2, hidden = 128, n_heads = 4, n_kv_heads = 2, n_vocab = 320, context = 512;
  DType dtype = DType::kF32;  ///< Of matrices: kF32 or kQ8_0.

  Metadata metadata() const;
  std::vector<TensorInfo> tensors() const;
};

/// Writes `tensors` with seeded random values of a size that suits their inputs, a small piece at a time.
void write_random_tensors(const std::string& path, const Metadata& metadata, const std::vector<TensorInfo>& tensors);

}  // namespace mneme
