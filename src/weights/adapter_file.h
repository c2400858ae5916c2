#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "weights/model_file.h"

namespace mneme {

/// A low-rank adapter (LoRA, arXiv 2106.09685) in a GGUF file, in the layout that llama.cpp reads and writes: metadata
/// `general.type` = "adapter", `general.architecture` of the base model, `adapter.type` = "lora", `adapter.lora.alpha`;
/// for a matrix NAME [outputs, inputs] of the base a pair of tensors NAME.lora_a [r, inputs] and NAME.lora_b [outputs,
/// r].
///
/// Where alpha is not 0 a pair means y += (alpha / r) B (A x), else y += B (A x).
class AdapterFile {
 public:
  /// The two factors for one matrix of the base.
  struct Pair {
    std::string target;  ///< Name of the matrix, e.g. "blk.0.attn_q.weight".
    TensorView a, b;
    float scale;

    uint64_t rank() const { return a.rows(); }
  };

  /// Reads the header and checks that factors come in pairs of the same rank and a readable type. Throws Error.
  explicit AdapterFile(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const ModelFile& file() const { return file_; }
  const std::vector<Pair>& pairs() const { return pairs_; }
  std::string_view architecture() const { return architecture_; }
  float alpha() const { return alpha_; }

  /// Throws Error(kInvalidArgument) unless this adapter belongs to `base`: architecture, names, shapes, and the
  /// fingerprint of the base where the adapter has one.
  void check_base(const ModelFile& base) const;

  /// Decodes a factor, row by row, to floats. Throws Error(kCorruptData) where one is not finite.
  void decode(const TensorView& factor, float* out) const;

 private:
  ModelFile file_;
  std::string architecture_;
  float alpha_ = 0;
  std::vector<Pair> pairs_;
};

/// Key of base_fingerprint() in adapters that correct the rounding of one quantised file and mean nothing to another.
constexpr const char* kBaseFingerprintKey = "mneme.adapter.base_fingerprint";

/// 16 hexadecimal digits that tell quantised versions of a model apart: a hash of name, type, shape and first 4096
/// bytes of every tensor.
std::string base_fingerprint(const ModelFile& base);

}  // namespace mneme
