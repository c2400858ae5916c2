#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "weights/model_file.h"

namespace mneme {

/// Tensors of one type.
struct TypeSummary {
  DType dtype = DType::kF32;
  uint64_t n_tensors = 0, elements = 0, bytes = 0;
};

/// What a person wants to know of a model file before running it, from headers alone. Numbers that the file does not
/// give are absent.
struct ModelSummary {
  std::string architecture, name, tokenizer;  ///< Empty where the file does not say; tokenizer e.g. "gpt2 (llama-bpe)".
  uint64_t parameters = 0, tensor_bytes = 0, file_bytes = 0, n_files = 0, n_tensors = 0;
  std::vector<TypeSummary> types;  ///< Largest first.
  std::optional<uint64_t> n_layers, width, n_heads, n_kv_heads, hidden, context, n_experts, n_experts_used, n_vocab;
  bool has_chat_template = false;

  double bits_per_weight() const;
};

ModelSummary summarize(const ModelFile& model);

/// Decodes every tensor and throws Error(kCorruptData) naming the first one that holds NaN or infinity, with the row.
/// Reads the whole file. Types that cannot be decoded are skipped.
void check_tensor_values(const ModelFile& model);

}  // namespace mneme
