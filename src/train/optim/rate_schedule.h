#pragma once

#include <cstddef>
#include <cstdint>

namespace mneme::train {

/// Learning rate as a function of the step: linear warm-up, then a shape, down to `final_fraction` of the peak.
struct RateSchedule {
  enum class Shape : uint8_t {
    kConstant,
    kCosine,  ///< Half a cosine from the end of the warm-up to the last step.
    kWsd,     ///< Flat, then linear decay over the last decay_steps (warm-up, stable, decay).
  };

  Shape shape = Shape::kWsd;
  float peak = 1e-3f, final_fraction = 0.1f;
  size_t warmup_steps = 100, total_steps = 1000, decay_steps = 200;

  float at(size_t step) const;
};

}  // namespace mneme::train
