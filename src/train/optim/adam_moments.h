#pragma once

#include <string>
#include <vector>

#include "train/ops/vector_math.h"
#include "train/optim/optimizer.h"

namespace mneme::train {

/// First and second moments of Adam for a list of arrays, and the step that uses them.
///
/// State of an array of n values: 8 n bytes as f32; 2 n + 8 ceil(n / 256) bytes as 8-bit blocks (block_codes.h). Arrays
/// of fewer than 4096 values stay f32 in both formats.
class AdamMoments {
 public:
  /// `prefix` starts the names of the state arrays.
  AdamMoments(Ledger& ledger, const std::vector<size_t>& sizes, MomentFormat format, std::string prefix);

  /// One AdamW step of weight by grad; both have the array's size.
  void step(size_t index, const AdamStep& step, const float* grad, float* weight);
  std::vector<StateView> state();

  void read_first(size_t index, float* out) const;
  void write_first(size_t index, const float* m);
  /// Both moments start from zero again.
  void clear(size_t index);

  static constexpr size_t kLeastCoded = 4096;

 private:
  struct Slot {
    bool coded;
    size_t size, offset;  ///< Offset in values: of m_ and v_, or of the codes (a multiple of kCodeBlock).
  };
  void step_coded(const Slot& slot, const AdamStep& step, const float* grad, float* weight);

  std::vector<Slot> slots_;
  std::string prefix_;
  Buffer m_, v_;                                    ///< f32
  Buffer m_codes_, v_codes_, m_scales_, v_scales_;  ///< One scale a block.
};

/// The constants of an AdamW step with the bias corrections folded into the rate and eps, which equals the textbook
/// form (arXiv 1412.6980, 1711.05101): m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps).
AdamStep adam_step_of(const AdamWOptions& options, const StepInfo& info, bool decay);

}  // namespace mneme::train
