#pragma once

#include <string>

#include "weights/model_file.h"

namespace mneme {

/// 16 hexadecimal digits that tell models apart: a hash of all metadata, of names, types and shapes of all tensors, and
/// of three samples of 4 KiB of each tensor (beginning, middle, end). Reading the samples takes milliseconds where
/// reading all weights takes as long as loading; a change that leaves all samples alone goes unnoticed.
std::string model_fingerprint(const ModelFile& file);

}  // namespace mneme
