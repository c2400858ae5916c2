// Time to choose one token, by chain and size of the vocabulary. Logits are normal with deviation 3 plus a few likely
// tokens, as models give them.
#include <benchmark/benchmark.h>

#include "base/philox.h"
#include "engine/sampling/logprobs.h"
#include "engine/sampling/sampler.h"

namespace {

using mneme::SamplingOptions;
using mneme::TokenId;

class EmptyVocabulary : public mneme::VocabularyView {
 public:
  explicit EmptyVocabulary(size_t n) : n_(n) {}
  size_t size() const override { return n_; }
  std::string piece(TokenId) const override { return "a"; }
  bool is_end_of_generation(TokenId) const override { return false; }

 private:
  size_t n_;
};

std::vector<float> model_like_logits(size_t n) {
  mneme::PhiloxStream random(1);
  std::vector<float> logits(n);
  for (float& x : logits) x = 3 * random.next_normal();
  for (int i = 0; i < 20; ++i) logits[random.next_below(n)] = 24 + 2 * random.next_normal();
  return logits;
}

void run(benchmark::State& state, SamplingOptions options) {
  options.seed = 1;
  const auto n = static_cast<size_t>(state.range(0));
  const EmptyVocabulary vocabulary(n);
  const std::vector<float> logits = model_like_logits(n);
  mneme::Sampler sampler(options, vocabulary);
  for (auto _ : state) sampler.accept(sampler.sample(logits));
}

SamplingOptions with(void (*change)(SamplingOptions&)) {
  SamplingOptions options;
  change(options);
  return options;
}

void logprobs(benchmark::State& state) {
  const std::vector<float> logits = model_like_logits(static_cast<size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(mneme::token_logprobs(logits, 5, 20));
}

void sizes(benchmark::internal::Benchmark* b) { b->Arg(32000)->Arg(128256)->Arg(262144)->Unit(benchmark::kMicrosecond); }

BENCHMARK_CAPTURE(run, greedy, with([](SamplingOptions& o) { o.temperature = 0; }))->Apply(sizes);
BENCHMARK_CAPTURE(run, default_chain, SamplingOptions{})->Apply(sizes);
BENCHMARK_CAPTURE(run, penalties_and_dry, with([](SamplingOptions& o) {
                    o.repeat_penalty = 1.1f;
                    o.dry_multiplier = 0.8f;
                  }))
    ->Apply(sizes);
BENCHMARK_CAPTURE(run, top_p_alone, with([](SamplingOptions& o) { o.top_k = 0; }))->Apply(sizes);
BENCHMARK_CAPTURE(run, temperature_alone, with([](SamplingOptions& o) {
                    o.top_k = 0;
                    o.top_p = 1;
                    o.min_p = 0;
                  }))
    ->Apply(sizes);
BENCHMARK_CAPTURE(run, mirostat_2, with([](SamplingOptions& o) { o.mirostat = 2; }))->Apply(sizes);
BENCHMARK(logprobs)->Apply(sizes);

}  // namespace

BENCHMARK_MAIN();
