#pragma once

#include <string>

#include "tensor/dtype.h"
#include "train/data/tokenizer_trainer.h"
#include "train/llama.h"

namespace mneme::train {

/// Writes a trained model with its vocabulary and chat template as a GGUF file of the llama architecture, which mneme
/// and llama.cpp load. Matrices are stored as `dtype` (F32, F16, BF16 or Q8_0; the row length must be a multiple of its
/// block), vectors and routers as F32; linear layers of quantisation-aware training in the type that they were trained
/// for, with the very values that training saw. The vocabulary is that of `base` when there is one.
///
/// Adapters are added to their matrices, W + s B A.
///
/// Experts are stacks [E, rows, columns], ternary ones as TQ2_0. With a shared expert the architecture is deepseek,
/// without one llama. Frozen matrices that the base stores in blocks keep those, bit for bit. Throws Error.
void export_gguf(const std::string& path, const std::string& name, LlamaModel<float>& model,
                 const TrainTokenizer& tokenizer, DType dtype, const ModelFile* base = nullptr);

}  // namespace mneme::train
