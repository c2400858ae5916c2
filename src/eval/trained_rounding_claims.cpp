#include "eval/trained_rounding_claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>

#include "eval/format_trials.h"
#include "eval/trace_example.h"
#include "eval/trained_rounding.h"

namespace mneme {
namespace {

constexpr const char* kWhat =
    "perplexity of answers in dialogues about held-out facts; models/pocket-mini.gguf, 120 steps of 1024 tokens and "
    "the "
    "mean of 2 seeds where it is trained";

TrainedRounding& two_bits() {
  static TrainedRounding made;
  return made;
}

ClaimMeasurement training_order() {
  TrainedRounding& t = two_bits();
  const double trained = t.trained(true, false), fed = t.rounded(true), nearest = t.rounded(false);
  return {
      std::max(trained / fed, fed / nearest),
      fmt::format("{:.3f} trained with learned steps, {:.2f} with GPTQ, {:.1f} rounded to nearest, {:.3f} before; {}",
                  trained, fed, nearest, t.original(), kWhat)};
}

ClaimMeasurement teacher() {
  TrainedRounding& t = two_bits();
  const double taught = t.trained(true, true), alone = t.trained(true, false);
  return {taught / alone, fmt::format("{:.3f} with the original as teacher, {:.3f} without, {:.3f} before; {}", taught,
                                      alone, t.original(), kWhat)};
}

ClaimMeasurement learned_steps() {
  TrainedRounding& t = two_bits();
  const double learned = t.trained(true, false), fixed = t.trained(false, false);
  return {learned / fixed,
          fmt::format("{:.3f} with learned steps, {:.3f} with those of the largest weight; {}", learned, fixed, kWhat)};
}

const HessianTraces& traces_of(const std::string& path) {
  static std::map<std::string, HessianTraces> all;
  if (const auto known = all.find(path); known != all.end()) return known->second;
  Ledger ledger;
  return all[path] = hessian_traces(path, shared_trials(path).read_text(), {}, {}, ledger, [](size_t, size_t) {});
}

/// Bits by traces of the Hessian in as many bytes as one type takes.
ClaimMeasurement by_traces(const std::string& uniform) {
  ClaimMeasurement out;
  for (const char* const path : {"models/pocket.gguf", "models/pocket-mini.gguf"}) {
    FormatTrials& model = shared_trials(path);
    const std::string plain = model.calibrated_file(uniform);
    QuantizeOptions mixed = model.mixed_options(std::filesystem::file_size(plain));
    mixed.traces = &traces_of(path);
    const double a = model.loss_of(model.file(uniform, mixed, uniform + "-mixed-by-trace")), b = model.loss_of(plain);
    out.value = std::max(out.value, a / b);
    out.how += fmt::format("{}{}: {:.4f} by traces, {:.4f} in {}, {} KiB", out.how.empty() ? "" : "; ",
                           std::filesystem::path(path).stem().string(), a, b, uniform, mixed.size / 1024);
  }
  out.how += "; times the perplexity before, by KL divergence on text of its own";
  return out;
}

/// A tiny net after some descent, whose Hessian can be had weight by weight.
ClaimMeasurement trace_error() {
  TraceExample<double> net;
  net.descend(2000, 0.1);
  TraceOptions options;
  options.probes = 2000;
  options.step = 1e-4;
  const auto found = net.estimate(options);
  double all = 0, all_exact = 0, worst = 0;
  for (train::Parameter<double>& p : net.model.parameters().all()) {
    if (!p.is_matrix()) continue;
    const double exact = net.exact_trace(p);
    const double estimate = found.at(p.name).mean * static_cast<double>(p.size());
    worst = std::max(worst, std::abs(estimate - exact) / std::abs(exact));
    all += estimate;
    all_exact += exact;
  }
  return {
      100 * std::abs(all - all_exact) / std::abs(all_exact),
      fmt::format("{:.4f} against {:.4f} over all matrices, {:.0f} % at the worst of 15; two layers of 8, f64, 2000 "
                  "probes, exact by one difference of gradients a weight",
                  all, all_exact, 100 * worst)};
}

}  // namespace

std::vector<Claim> trained_rounding_claims() {
  const char* const system = "quantization-survey";
  const char* const survey = "arXiv 2103.13630";
  const char* const hawq = "arXiv 1911.03852";
  const char* const lsq = "arXiv 1902.08153";
  return {
      {system, survey, "Two bits: trained with learned steps below GPTQ, below rounding to nearest",
       "largest ratio of neighbours", "-", 1, true, training_order},
      {system, survey, "Two bits: with the original as teacher no worse than without", "of its perplexity", "-", 1,
       true, teacher},
      {system, lsq, "Two bits: learned steps no worse than fixed ones", "of their perplexity", "-", 1, true,
       learned_steps},
      {system, hawq, "Bits by traces of the Hessian beat four bits everywhere", "of their loss", "-", 1, true,
       [] { return by_traces("BITMOD4"); }},
      {system, hawq, "Bits by traces of the Hessian beat three bits everywhere", "of their loss", "-", 1, true,
       [] { return by_traces("BITMOD3"); }},
      {system, hawq, "Estimated traces are near the exact ones", "percent off", "-", 10, true, trace_error},
  };
}

}  // namespace mneme
