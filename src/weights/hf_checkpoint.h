#pragma once

#include <span>
#include <string>
#include <vector>

#include "budget/buffer.h"
#include "weights/hf_config.h"
#include "weights/hf_names.h"
#include "weights/model_file.h"
#include "weights/safetensors.h"
#include "weights/tensor_source.h"

namespace mneme {

/// True for a folder, a file *.safetensors and an index *.safetensors.index.json.
bool is_hf_checkpoint(const std::string& path);

/// A Hugging Face checkpoint (config.json, safetensors, tokenizer files) seen as a GGUF model: metadata under GGUF
/// keys, tensors under GGUF names, in the form and order that GGUF files have.
///
/// Most tensors are views into the mapped files. The others are made when they are asked for: query and key rows of
/// llama models are permuted to interleaved rotation pairs, Gemma norms get their 1 added, GPT-2 matrices are
/// transposed, experts are stacked, and vectors and tables that GGUF keeps in F32 are widened. The conversion follows
/// the architectures' published definitions; tensors that no rule covers are an error, not left out.
class HfCheckpoint : public TensorSource {
 public:
  /// `path`: the folder, or its safetensors file or index; config.json lies beside it. Throws Error naming file and key
  /// or tensor. `ledger` bears tensors that are made.
  HfCheckpoint(const std::string& path, Ledger& ledger);
  HfCheckpoint(const HfCheckpoint&) = delete;
  HfCheckpoint& operator=(const HfCheckpoint&) = delete;

  const Metadata& metadata() const override { return config_.metadata; }
  std::span<const TensorInfo> tensors() const override { return infos_; }
  std::span<const std::byte> load(size_t i) override;

  /// All tensors at once: views where possible, the others made into one buffer under Tag::kWeights. Ends this object's
  /// use.
  ModelFile to_model_file() &&;

 private:
  /// How one tensor is made from those of the checkpoint.
  struct Plan {
    std::vector<const SafeTensor*> parts;  ///< One, or the experts of a stack.
    const GeneratedTensor* generated = nullptr;
    HfForm form = HfForm::kAsIs;
    uint64_t n_heads = 0;
    bool mapped = false;  ///< The stored bytes are right as they are.
  };

  void plan_tensors();
  void finish_plan(TensorInfo& info, Plan& plan) const;
  void make(size_t i, std::byte* out) const;

  std::string path_;
  Ledger& ledger_;
  HfConfig config_;
  SafetensorsSet set_;
  std::vector<TensorInfo> infos_;
  std::vector<Plan> plans_;
  Buffer made_;
};

}  // namespace mneme
