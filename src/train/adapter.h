#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "train/teacher.h"

namespace mneme::train {

/// A low-rank adapter that is trained on top of a frozen model (arXiv 2106.09685), and how it starts. With a teacher it
/// repairs the rounding of the base: low-rank error correction (LREC, arXiv 2306.08162, section 3.2).
struct AdapterOptions {
  enum class Start {
    kZero,  ///< A uniform in +-1/sqrt(inputs), B = 0: the adapted model starts as the base.
    kSvd,   ///< s B A = the best approximation of rank r of teacher - base, matrix by matrix.
  };
  size_t rank = 8;
  float alpha = 16;                                         ///< s = alpha / rank
  std::vector<std::string> targets = {"attn_q", "attn_v"};  ///< Names of linear layers; "all" of them.
  Start start = Start::kZero;
  std::vector<std::string> below;  ///< Adapter files that are frozen between base and this adapter.
  TeacherOptions teacher;          ///< The model that the base was quantised from, or none.

  /// True when the adapter learns from the model that the base was made of, so that it fits this base alone.
  bool corrects_base() const { return static_cast<bool>(teacher); }
  bool targets_layer(const std::string& tensor_name) const;
};

}  // namespace mneme::train
