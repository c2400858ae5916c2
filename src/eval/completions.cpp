#include "eval/completions.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "base/error.h"
#include "engine/scheduler.h"

namespace mneme {

using train::abacus::Task;
using train::abacus::Verdict;

double CompletionOutcomes::pass_at_1() const {
  if (passed.empty()) return 0;
  return static_cast<double>(std::accumulate(passed.begin(), passed.end(), uint64_t{0})) /
         static_cast<double>(passed.size());
}

CompletionOutcomes complete_tasks(Engine& engine, std::span<const Task> tasks, const CompletionOptions& options,
                                  const std::function<void(uint64_t, uint64_t)>& progress) {
  CompletionOutcomes out;
  const size_t all = tasks.size() * options.per_task;
  out.passed.resize(all);
  uint64_t done = 0;
  std::string trouble;
  Scheduler scheduler(engine);
  const auto request_for = [&](size_t index) {
    const Task& task = tasks[index / options.per_task];
    GenerationRequest request;
    request.prompt = engine.tokenizer().encode(task.program.prompt);
    request.max_tokens = options.most_tokens;
    request.sampling.samplers = {SamplerKind::kTemperature};
    request.sampling.temperature = options.temperature;
    request.sampling.seed = (options.seed << 32) ^ index;
    request.stop = {"\n"};
    request.cache.use = request.cache.keep = false;
    request.on_event = [&, index](const GenerationEvent& event) {
      if (event.finished == nullptr) return;
      if (event.finished->reason == FinishReason::kError) trouble = event.finished->error;
      const Verdict verdict = judge(tasks[index / options.per_task], event.finished->text);
      ++out.n_by_verdict[static_cast<size_t>(verdict)];
      out.passed[index] = verdict == Verdict::kPassed ? 1 : 0;
      out.n_tokens += event.finished->tokens.size();
      ++done;
    };
    return request;
  };
  // Enough to keep all places taken; a request holds a vocabulary's worth of sampling state.
  const size_t most_pending = size_t{2} * engine.plan().n_sequences;
  const auto start = std::chrono::steady_clock::now();
  for (size_t next = 0; next < all || scheduler.n_pending() > 0;) {
    while (next < all && scheduler.n_pending() < most_pending) scheduler.submit(request_for(next++));
    scheduler.step();
    progress(done, all);
  }
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!trouble.empty()) fail(ErrorCode::kOutOfBudget, "[completions] a request failed: {}", trouble);
  return out;
}

}  // namespace mneme
