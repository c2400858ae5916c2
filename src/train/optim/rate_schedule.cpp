#include "train/optim/rate_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mneme::train {

float RateSchedule::at(size_t step) const {
  if (step < warmup_steps) return peak * static_cast<float>(step + 1) / static_cast<float>(warmup_steps);
  double fraction = 1;  // 1 at the peak, 0 at the end
  if (shape == Shape::kCosine) {
    const double span = std::max<double>(1, static_cast<double>(total_steps) - static_cast<double>(warmup_steps));
    const double done = std::min(1.0, static_cast<double>(step - warmup_steps) / span);
    fraction = 0.5 * (1 + std::cos(std::numbers::pi * done));
  } else if (shape == Shape::kWsd) {
    const size_t left = step < total_steps ? total_steps - step : 0;
    fraction = std::min(1.0, static_cast<double>(left) / static_cast<double>(std::max<size_t>(1, decay_steps)));
  }
  return peak * (final_fraction + (1 - final_fraction) * static_cast<float>(fraction));
}

}  // namespace mneme::train
