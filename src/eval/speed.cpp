#include "eval/speed.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/progress.h"
#include "eval/repeated_context.h"

namespace mneme {
namespace {

SampleStatistics repeat(const SpeedOptions& options, double tokens, const std::function<void()>& prepare,
                        const std::function<void()>& work) {
  std::vector<double> rates;
  for (uint32_t i = 0; i <= options.repetitions; ++i) {
    prepare();
    const auto start = std::chrono::steady_clock::now();
    work();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i > 0) rates.push_back(tokens / seconds);
  }
  return summarise(rates);
}

void check(const Engine& engine, const SpeedOptions& options) {
  if (!engine.model().causal) fail(ErrorCode::kUnsupported, "[bench] {} is an encoder", engine.file().path());
  if (options.n_tokens == 0 || options.repetitions == 0) {
    fail(ErrorCode::kInvalidArgument, "[bench] expected at least one token and one repetition");
  }
  engine.check_room(options.depth, options.n_tokens);
}

/// One state of every sequence at the depth, each in memory of its own. Only the first is computed.
std::vector<std::unique_ptr<SequenceState>> filled_states(Engine& engine, const SpeedOptions& options) {
  std::vector<std::unique_ptr<SequenceState>> states;
  const uint32_t n_sequences = engine.plan().n_sequences, depth = std::max(1u, options.depth);
  Progress progress("filling", n_sequences, "sequences");
  states.push_back(engine.make_state());
  if (options.repeat_page) {
    repeat_context(engine, *states.front(), depth);
  } else {
    engine.run(*states.front(), random_tokens(engine.model(), depth), [](size_t, size_t, const float*) {});
  }
  while (states.size() < n_sequences) {
    progress.update(states.size());
    states.push_back(separate_copy(engine, *states.front()));
  }
  return states;
}

}  // namespace

SpeedResult prefill_speed(Engine& engine, const SpeedOptions& options) {
  check(engine, options);
  const Model& model = engine.model();
  const std::vector<TokenId> before = random_tokens(model, options.depth),
                             prompt = random_tokens(model, options.n_tokens);
  std::unique_ptr<SequenceState> state;
  SpeedResult result;
  result.tokens_per_second = repeat(
      options, options.n_tokens,
      [&] {
        state.reset();
        state = engine.make_state();
        if (!before.empty()) engine.run(*state, before, [](size_t, size_t, const float*) {});
      },
      [&] {
        engine.run(*state, prompt, [&](size_t first, size_t n, const float* hidden) {
          if (first + n != prompt.size()) return;
          const Workspace::Scope scope(engine.workspace());
          float* const logits = engine.workspace().floats(model.n_logits());
          const size_t last = n - 1;
          model.logits(hidden, {&last, 1}, engine.workspace(), logits);
        });
      });
  return result;
}

SpeedResult decode_speed(Engine& engine, const SpeedOptions& options) {
  check(engine, options);
  const Model& model = engine.model();
  const size_t n_sequences = engine.plan().n_sequences;
  const std::vector<std::unique_ptr<SequenceState>> states = filled_states(engine, options);
  // Each repetition begins with other tokens: a store that keeps what it chose last would find it all.
  const std::vector<TokenId> beginnings = random_tokens(model, n_sequences * (size_t{options.repetitions} + 1));
  size_t n_begun = 0;
  std::vector<TokenId> tokens(n_sequences);
  std::vector<int32_t> positions(n_sequences);
  std::vector<SequenceSlice> slices;
  std::vector<size_t> rows(n_sequences);
  std::iota(rows.begin(), rows.end(), size_t{0});
  for (size_t s = 0; s < n_sequences; ++s) slices.push_back({states[s].get(), s, 1, TokenRole::kGenerated});

  SpeedResult result;
  result.tokens_per_second = repeat(
      options, static_cast<double>(options.n_tokens) * static_cast<double>(n_sequences),
      [&] {
        for (auto& state : states) {
          if (!state->truncate(options.depth))
            fail(ErrorCode::kUnsupported, "[bench] this model's state cannot go back");
        }
        std::copy_n(beginnings.begin() + static_cast<std::ptrdiff_t>(n_begun), n_sequences, tokens.begin());
        n_begun += n_sequences;
      },
      [&] {
        for (uint32_t i = 0; i < options.n_tokens; ++i) {
          for (size_t s = 0; s < n_sequences; ++s) positions[s] = static_cast<int32_t>(states[s]->n_tokens());
          const Workspace::Scope scope(engine.workspace());
          const float* hidden = model.forward({tokens, positions, slices}, engine.workspace());
          float* const logits = engine.workspace().floats(n_sequences * model.n_logits());
          model.logits(hidden, rows, engine.workspace(), logits);
          for (size_t s = 0; s < n_sequences; ++s) {
            const float* const row = logits + s * model.n_logits();
            tokens[s] = static_cast<TokenId>(std::max_element(row, row + model.hyper.n_vocab) - row);
          }
        }
      });
  for (const auto& state : states) result.fetches += state->fetches();
  result.state_bytes = states.front()->bytes();
  const double kv =
      static_cast<double>(model.state_bytes(engine.state_options(), options.depth + options.n_tokens / 2));
  result.bytes_per_token =
      static_cast<double>(engine.plan().weight_bytes_per_token) / static_cast<double>(n_sequences) + kv;
  return result;
}

}  // namespace mneme
