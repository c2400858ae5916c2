#include "eval/precision_law.h"

#include <cmath>
#include <utility>

namespace mneme {
namespace {

double layout_gain(const PrecisionLaw& law, double exponent_bits, double mantissa_bits) {
  return std::pow(exponent_bits + 0.5, law.delta) * std::pow(mantissa_bits + 0.5, law.nu);
}

/// gamma_D: P^(delta + nu) = gamma_D D^beta log2(B) is the best number of bits at fixed D.
double tokens_factor(const PrecisionLaw& law) {
  return (law.delta + law.nu - law.alpha) / (law.n * law.alpha * layout_factor(law));
}

/// Loss with the best real-valued layout of `bits`.
double loss_of_bits(const PrecisionLaw& law, double parameters, double tokens, double bits, double log2_block) {
  const double penalty = std::pow(tokens, law.beta) / std::pow(parameters, law.alpha) * log2_block /
                         (layout_factor(law) * std::pow(bits, law.delta + law.nu));
  return law.n / std::pow(parameters, law.alpha) + law.d / std::pow(tokens, law.beta) + law.epsilon + penalty;
}

/// Where a function with one minimum in [low, high] is least, by golden sections.
template <typename Function>
double least_at(double low, double high, Function function) {
  const double ratio = (std::sqrt(5.0) - 1) / 2;
  double a = high - ratio * (high - low), b = low + ratio * (high - low);
  double at_a = function(a), at_b = function(b);
  for (int i = 0; i < 90; ++i) {
    if (at_a < at_b) {
      high = std::exchange(b, a);
      at_b = at_a;
      a = high - ratio * (high - low);
      at_a = function(a);
    } else {
      low = std::exchange(a, b);
      at_a = at_b;
      b = low + ratio * (high - low);
      at_b = function(b);
    }
  }
  return (low + high) / 2;
}

}  // namespace

bool in_published_range(double parameters, double tokens) {
  return parameters >= 41e6 && parameters <= 70e9 && tokens >= 10e9 && tokens <= 100e9;
}

double predicted_loss(const PrecisionLaw& law, const TrainingSetting& s) {
  const double by_size = std::pow(s.parameters, law.alpha), by_data = std::pow(s.tokens, law.beta);
  const double penalty =
      by_data / by_size * s.log2_block / (law.gamma * layout_gain(law, s.exponent_bits, s.mantissa_bits));
  return law.n / by_size + law.d / by_data + law.epsilon + penalty;
}

double critical_tokens(const PrecisionLaw& law, const TrainingSetting& s) {
  if (s.log2_block <= 0) return std::numeric_limits<double>::infinity();
  const double inner = law.d * law.gamma * std::pow(s.parameters, law.alpha) *
                       layout_gain(law, s.exponent_bits, s.mantissa_bits) / s.log2_block;
  return std::pow(inner, 1 / (2 * law.beta));
}

BitLayout best_layout(const PrecisionLaw& law, int bits) {
  BitLayout best{0, bits - 1};
  for (int exponent = 1; exponent <= bits - 1; ++exponent) {
    const BitLayout other{exponent, bits - 1 - exponent};
    if (layout_gain(law, other.exponent_bits, other.mantissa_bits) >
        layout_gain(law, best.exponent_bits, best.mantissa_bits))
      best = other;
  }
  return best;
}

double layout_factor(const PrecisionLaw& law) {
  return law.gamma * std::pow(law.delta, law.delta) * std::pow(law.nu, law.nu) /
         std::pow(law.delta + law.nu, law.delta + law.nu);
}

double effective_parameters(const PrecisionLaw& law, double parameters, double tokens, double bits, double log2_block) {
  const double penalty =
      std::pow(tokens, law.beta) * log2_block / (law.n * layout_factor(law) * std::pow(bits, law.delta + law.nu));
  return parameters / std::pow(1 + penalty, 1 / law.alpha);
}

double best_bits_for_tokens(const PrecisionLaw& law, double tokens, double log2_block) {
  return std::pow(tokens_factor(law) * std::pow(tokens, law.beta) * log2_block, 1 / (law.delta + law.nu));
}

double best_bits_for_parameters(const PrecisionLaw& law, double parameters, double compute, double log2_block) {
  const double sum = law.delta + law.nu, c = compute / kComputePerBit;
  const double right = (law.beta + sum) / (law.d * law.beta * layout_factor(law)) * std::pow(c, 2 * law.beta) *
                       std::pow(parameters, -(law.alpha + 2 * law.beta)) * log2_block;
  return std::pow(right, 1 / (sum + 2 * law.beta));
}

double best_bits(const PrecisionLaw& law, double compute, double log2_block) {
  const double sum = law.delta + law.nu, c = compute / kComputePerBit;
  const double exponent = sum * (law.alpha + law.beta) / law.beta + law.alpha;
  const double right = std::pow(tokens_factor(law) * log2_block, (law.alpha + law.beta) / law.beta) *
                       (sum - law.alpha) / (sum + law.beta) * (law.d * law.beta / (law.n * law.alpha)) *
                       std::pow(c, law.alpha);
  return std::pow(right, 1 / exponent);
}

PrecisionPlan search_best_plan(const PrecisionLaw& law, double compute, double log2_block) {
  const double c = compute / kComputePerBit;
  const auto loss = [&](double log_bits, double log_parameters) {
    const double bits = std::exp(log_bits), parameters = std::exp(log_parameters);
    return loss_of_bits(law, parameters, c / (bits * parameters), bits, log2_block);
  };
  const auto best_size = [&](double log_bits) {
    return least_at(0, std::log(c), [&](double log_parameters) { return loss(log_bits, log_parameters); });
  };
  const double log_bits = least_at(std::log(2.0), std::log(32.0), [&](double x) { return loss(x, best_size(x)); });
  const double log_parameters = best_size(log_bits);
  const double bits = std::exp(log_bits), parameters = std::exp(log_parameters);
  return {bits, parameters, c / (bits * parameters), loss(log_bits, log_parameters)};
}

}  // namespace mneme
