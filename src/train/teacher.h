#pragma once

#include <string>

namespace mneme::train {

/// A frozen model that the trained one learns from (distillation.h), and the loss of a token with it:
/// kl_weight KL(teacher || model) + ce_weight cross-entropy.
struct TeacherOptions {
  std::string file;  ///< GGUF file of the llama architecture with the same vocabulary, or empty for none.
  double kl_weight = 1, ce_weight = 0.1;

  explicit operator bool() const { return !file.empty(); }
};

}  // namespace mneme::train
