#include "eval/scaling_fit.h"

#include <lbfgs.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "base/lines.h"
#include "base/philox.h"

namespace mneme {
namespace {

/// log n, alpha, log d, beta, log epsilon, log gamma, delta, nu.
using Theta = std::array<double, 8>;

PrecisionLaw law_of(const Theta& t) {
  return {std::exp(t[0]), t[1], std::exp(t[2]), t[3], std::exp(t[4]), std::exp(t[5]), t[6], t[7]};
}

/// log of the predicted loss and its gradient: a log-sum-exp of up to four terms that are linear in theta.
double log_loss(const Theta& t, const TrainingSetting& s, Theta& gradient) {
  const double log_n = std::log(s.parameters), log_d = std::log(s.tokens);
  const double log_e = std::log(s.exponent_bits + 0.5), log_m = std::log(s.mantissa_bits + 0.5);
  const size_t n_terms = s.log2_block > 0 ? 4 : 3;
  double term[4] = {t[0] - t[1] * log_n, t[2] - t[3] * log_d, t[4], 0};
  if (n_terms == 4) term[3] = t[3] * log_d - t[1] * log_n + std::log(s.log2_block) - t[5] - t[6] * log_e - t[7] * log_m;
  const double most = *std::max_element(term, term + n_terms);
  double sum = 0;
  for (size_t i = 0; i < n_terms; ++i) sum += std::exp(term[i] - most);
  double share[4] = {};
  for (size_t i = 0; i < n_terms; ++i) share[i] = std::exp(term[i] - most) / sum;
  gradient = {share[0],          -(share[0] + share[3]) * log_n,
              share[1],          (share[3] - share[1]) * log_d,
              share[2],          -share[3],
              -share[3] * log_e, -share[3] * log_m};
  return most + std::log(sum);
}

/// Sum of Huber losses over runs, as a function of the free entries of theta.
struct Problem {
  std::span<const ScalingRun> runs;
  Theta theta;  ///< Entries that are not free keep these values.
  std::vector<size_t> free;

  double evaluate(const double* x, double* gradient) {
    constexpr double kHuber = 1e-3;
    for (size_t i = 0; i < free.size(); ++i) theta[free[i]] = x[i];
    std::fill_n(gradient, free.size(), 0.0);
    double total = 0;
    for (const ScalingRun& run : runs) {
      Theta slope;
      const double residual = log_loss(theta, run.setting, slope) - std::log(run.loss);
      const double size = std::abs(residual);
      total += size <= kHuber ? residual * residual / 2 : kHuber * (size - kHuber / 2);
      const double weight = std::clamp(residual, -kHuber, kHuber);
      for (size_t i = 0; i < free.size(); ++i) gradient[i] += weight * slope[free[i]];
    }
    // The library's step sizes expect values around one.
    constexpr double kScale = 1e6;
    for (size_t i = 0; i < free.size(); ++i) gradient[i] *= kScale;
    return total * kScale;
  }
};

lbfgsfloatval_t evaluate(void* problem, const lbfgsfloatval_t* x, lbfgsfloatval_t* gradient, int, lbfgsfloatval_t) {
  return static_cast<Problem*>(problem)->evaluate(x, gradient);
}

/// Minimises from `start`; returns the loss and leaves the solution in `start`. Infinite where the search went astray.
double minimise(std::span<const ScalingRun> runs, const std::vector<size_t>& free, Theta& start) {
  Problem problem{runs, start, free};
  lbfgs_parameter_t parameters;
  lbfgs_parameter_init(&parameters);
  parameters.max_iterations = 2000;
  parameters.epsilon = 1e-9;
  parameters.max_linesearch = 60;
  const auto n = static_cast<int>(free.size());
  lbfgsfloatval_t* x = lbfgs_malloc(n);
  if (x == nullptr) fail(ErrorCode::kOutOfBudget, "[scaling fit] no memory for {} values", n);
  for (size_t i = 0; i < free.size(); ++i) x[i] = start[free[i]];
  // Its status is of no use: a search that can't go on near the minimum reports failure. The loss reached decides.
  lbfgs(n, x, nullptr, &evaluate, nullptr, &problem, &parameters);
  std::array<double, 8> gradient;
  const double loss = problem.evaluate(x, gradient.data());
  start = problem.theta;
  lbfgs_free(x);
  return std::isfinite(loss) ? loss : std::numeric_limits<double>::infinity();
}

/// The best end among searches from `starts`.
Theta best_of(std::span<const ScalingRun> runs, const std::vector<size_t>& free, const std::vector<Theta>& starts) {
  Theta best = starts.front();
  double least = std::numeric_limits<double>::infinity();
  for (Theta theta : starts) {
    const double loss = minimise(runs, free, theta);
    if (loss < least) {
      least = loss;
      best = theta;
    }
  }
  return best;
}

/// Starts around what is plausible: exponents of 0.2 to 0.6, and factors that give each term a part of the mean loss at
/// the middle of the data.
std::vector<Theta> size_and_data_starts(std::span<const ScalingRun> runs) {
  double log_n = 0, log_d = 0, least = std::numeric_limits<double>::infinity(), mean = 0;
  for (const ScalingRun& run : runs) {
    log_n += std::log(run.setting.parameters) / static_cast<double>(runs.size());
    log_d += std::log(run.setting.tokens) / static_cast<double>(runs.size());
    mean += run.loss / static_cast<double>(runs.size());
    least = std::min(least, run.loss);
  }
  std::vector<Theta> starts;
  for (const double alpha : {0.2, 0.35, 0.6}) {
    for (const double beta : {0.2, 0.35, 0.6}) {
      for (const double floor : {0.4, 0.7, 0.9}) {
        for (const double part : {0.3, 0.7}) {
          const double rest = mean - floor * least;
          starts.push_back({std::log(part * rest) + alpha * log_n, alpha, std::log((1 - part) * rest) + beta * log_d,
                            beta, std::log(floor * least), 0, 3, 3});
        }
      }
    }
  }
  return starts;
}

/// Starts for gamma, delta and nu that give the last term a small part of the loss at the middle of the runs.
std::vector<Theta> precision_starts(std::span<const ScalingRun> low, const Theta& full) {
  std::vector<Theta> starts;
  for (const double exponent : {1.5, 3.0}) {
    for (const double mantissa : {1.5, 3.0}) {
      for (const double part : {0.01, 0.1}) {
        Theta start = full;
        start[6] = exponent;
        start[7] = mantissa;
        double middle = 0;
        for (const ScalingRun& run : low) {
          const TrainingSetting& s = run.setting;
          middle += (full[3] * std::log(s.tokens) - full[1] * std::log(s.parameters) + std::log(s.log2_block) -
                     exponent * std::log(s.exponent_bits + 0.5) - mantissa * std::log(s.mantissa_bits + 0.5) -
                     std::log(part * run.loss)) /
                    static_cast<double>(low.size());
        }
        start[5] = middle;
        starts.push_back(start);
      }
    }
  }
  return starts;
}

const std::vector<size_t> kSizeAndData = {0, 1, 2, 3, 4}, kPrecision = {5, 6, 7}, kAll = {0, 1, 2, 3, 4, 5, 6, 7};

/// The three stages.
Theta fit(std::span<const ScalingRun> full, std::span<const ScalingRun> low, std::span<const ScalingRun> all) {
  const Theta first = best_of(full, kSizeAndData, size_and_data_starts(full));
  if (low.empty()) return first;
  return best_of(all, kAll, {best_of(low, kPrecision, precision_starts(low, first))});
}

void check(std::span<const ScalingRun> full, std::span<const ScalingRun> low) {
  std::set<double> sizes, amounts;
  for (const ScalingRun& run : full) {
    sizes.insert(run.setting.parameters);
    amounts.insert(run.setting.tokens);
  }
  if (full.size() < 6 || sizes.size() < 2 || amounts.size() < 2) {
    fail(
        ErrorCode::kInvalidArgument,
        "[scaling fit] expected at least 6 full-precision runs of 2 sizes and 2 amounts of data, found {} of {} and {}",
        full.size(), sizes.size(), amounts.size());
  }
  if (!low.empty() && low.size() < 4) {
    fail(ErrorCode::kInvalidArgument, "[scaling fit] expected no or at least 4 low-precision runs, found {}",
         low.size());
  }
}

void split(std::span<const ScalingRun> runs, std::vector<ScalingRun>& full, std::vector<ScalingRun>& low) {
  for (const ScalingRun& run : runs) (run.setting.log2_block > 0 ? low : full).push_back(run);
}

std::vector<ScalingRun> draw(const std::vector<ScalingRun>& runs, PhiloxStream& random) {
  std::vector<ScalingRun> drawn;
  for (size_t i = 0; i < runs.size(); ++i) drawn.push_back(runs[random.next_below(runs.size())]);
  return drawn;
}

/// Refits on draws, from the fit itself and, for what precision costs, from all its starts: a fit without that cost is
/// a place that no search leaves. Takes the 5 % and 95 % points of each value.
void bootstrap(const std::vector<ScalingRun>& full, const std::vector<ScalingRun>& low, const Theta& best,
               const FitOptions& options, ScalingFit& result) {
  std::array<std::vector<double>, 8> values;
  for (size_t i = 0; i < options.n_bootstrap; ++i) {
    PhiloxStream random(options.seed, i);
    std::vector<ScalingRun> runs = draw(full, random);
    const std::vector<ScalingRun> more = draw(low, random);
    runs.insert(runs.end(), more.begin(), more.end());
    std::vector<Theta> starts = {best};
    if (!low.empty()) starts.push_back(best_of(more, kPrecision, precision_starts(more, best)));
    const Theta theta = best_of(runs, low.empty() ? kSizeAndData : kAll, starts);
    for (size_t j = 0; j < values.size(); ++j) values[j].push_back(theta[j]);
  }
  Theta low_end, high_end;
  for (size_t j = 0; j < values.size(); ++j) {
    std::sort(values[j].begin(), values[j].end());
    low_end[j] = values[j][values[j].size() / 20];
    high_end[j] = values[j][values[j].size() - 1 - values[j].size() / 20];
  }
  result.low = law_of(low_end);
  result.high = law_of(high_end);
}

void measure(std::span<const ScalingRun> runs, ScalingFit& result) {
  double mean = 0, residuals = 0, spread = 0;
  for (const ScalingRun& run : runs) mean += run.loss / static_cast<double>(runs.size());
  for (const ScalingRun& run : runs) {
    const double error = predicted_loss(result.law, run.setting) - run.loss;
    result.mean_error += std::abs(error) / static_cast<double>(runs.size());
    residuals += error * error;
    if (run.setting.log2_block > 0) {
      TrainingSetting plain = run.setting;
      plain.log2_block = 0;
      const double without = predicted_loss(result.law, plain);
      result.most_precision_loss =
          std::max(result.most_precision_loss, predicted_loss(result.law, run.setting) - without);
    }
    spread += (run.loss - mean) * (run.loss - mean);
  }
  result.r2 = spread > 0 ? 1 - residuals / spread : 0;
}

double field(const Json& line, const char* name, const std::string& where) {
  const auto found = line.find(name);
  if (found == line.end() || !found->is_number()) {
    fail(ErrorCode::kCorruptData, "[scaling runs] expected a number {}, found none on {}", name, where);
  }
  return found->get<double>();
}

}  // namespace

ScalingFit fit_scaling_law(std::span<const ScalingRun> runs, const FitOptions& options) {
  for (size_t i = 0; i < runs.size(); ++i) {
    const TrainingSetting& s = runs[i].setting;
    const bool bits = s.log2_block == 0 || (s.exponent_bits >= 0 && s.mantissa_bits >= 0);
    if (!(s.parameters > 1) || !(s.tokens > 1) || !(runs[i].loss > 0) || !(s.log2_block >= 0) || !bits ||
        !std::isfinite(s.parameters + s.tokens + runs[i].loss + s.log2_block)) {
      fail(ErrorCode::kInvalidArgument,
           "[scaling fit] expected positive sizes, losses and bits, found others in run {}", i + 1);
    }
  }
  std::vector<ScalingRun> full, low;
  split(runs, full, low);
  check(full, low);
  ScalingFit result;
  const Theta best = fit(full, low, runs);
  result.law = result.low = result.high = law_of(best);
  result.has_precision = !low.empty();
  result.n_full = full.size();
  result.n_low = low.size();
  measure(runs, result);
  if (options.n_bootstrap > 0) bootstrap(full, low, best, options, result);
  return result;
}

std::vector<ScalingRun> read_scaling_runs(const std::string& path) {
  const std::string text = read_text_file(path, uint64_t{64} << 20);
  std::vector<ScalingRun> runs;
  for_each_line(text, [&](std::string_view line, size_t number) {
    const std::string where = fmt::format("line {} of {}", number, path);
    const Json object = parse_json(line, where);
    if (!object.is_object())
      fail(ErrorCode::kCorruptData, "[scaling runs] expected an object, found another on {}", where);
    ScalingRun run{{field(object, "parameters", where), field(object, "tokens", where), 0, 0, 0},
                   field(object, "loss", where)};
    if (object.contains("exponent_bits")) {
      run.setting.exponent_bits = field(object, "exponent_bits", where);
      run.setting.mantissa_bits = field(object, "mantissa_bits", where);
      const bool channel = object.contains("block") && object["block"] == "channel";
      run.setting.log2_block = channel ? kChannelLog2Block : std::log2(field(object, "block", where));
    }
    runs.push_back(run);
  });
  return runs;
}

}  // namespace mneme
