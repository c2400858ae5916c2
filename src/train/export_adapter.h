#pragma once

#include <string>

#include "tensor/dtype.h"
#include "train/llama.h"

namespace mneme::train {

/// Writes the trained adapter of a model as a GGUF file that `mneme run --adapter` and llama.cpp load
/// (weights/adapter_file.h has the layout). Factors are stored as `dtype`: F32, F16 or BF16. Adapters that correct the
/// base carry its fingerprint. Adapters below are not part of it. Throws Error.
void export_adapter(const std::string& path, const std::string& name, LlamaModel<float>& model,
                    const AdapterOptions& options, const ModelFile& base, DType dtype);

}  // namespace mneme::train
