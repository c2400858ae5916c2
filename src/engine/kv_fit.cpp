#include "engine/kv_fit.h"

#include <algorithm>
#include <exception>
#include <mutex>

#include "base/error.h"
#include "base/parallel.h"

namespace mneme {

std::shared_ptr<const KvMoments> collect_kv_moments(Engine& engine, std::span<const TokenId> tokens,
                                                    const std::function<void(uint64_t, uint64_t)>& progress) {
  const Model& model = engine.model();
  if (tokens.empty()) fail(ErrorCode::kInvalidArgument, "[fit bases] expected text to fit to, found none");
  auto moments = std::make_shared<KvMoments>();
  moments->layers.resize(model.blocks.size());
  StateOptions collecting = engine.state_options();
  collecting.kv = KvPolicy::collecting(moments);
  const size_t window = std::min<size_t>(1024, engine.plan().context);
  for (size_t first = 0; first < tokens.size(); first += window) {
    const auto piece = tokens.subspan(first, std::min(window, tokens.size() - first));
    const auto state = model.make_state(collecting, engine.ledger());
    engine.run(*state, piece, [](size_t, size_t, const float*) {});
    progress(first + piece.size(), tokens.size());
  }
  return moments;
}

std::shared_ptr<const KvBases> fit_kv_bases(const Model& model, const KvMoments& moments, const KvPolicy& policy,
                                            std::span<const KvRanks> ranks) {
  auto bases = std::make_shared<KvBases>();
  bases->layers.resize(model.blocks.size());
  std::mutex mutex;
  std::exception_ptr failure;
  parallel_dynamic(model.blocks.size(), [&](size_t i) {
    try {
      const auto shape = model.blocks[i].mixer->kv_shape();
      if (!shape) return;
      const KvMoments::Layer& of = moments.layers[i];
      if (ranks.empty()) {
        bases->layers[i] = policy.fit(*shape, of);
      } else if (ranks[i] != KvRanks{}) {
        bases->layers[i] = of.fit(ranks[i]);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
  if (std::all_of(bases->layers.begin(), bases->layers.end(),
                  [](const KvBases::Layer& l) { return l.ranks() == KvRanks{}; })) {
    fail(ErrorCode::kUnsupported, "[fit bases] expected a model that keeps keys and values, found none");
  }
  return bases;
}

std::shared_ptr<const KvBases> fit_kv_bases(Engine& engine, std::span<const TokenId> tokens, const KvPolicy& policy,
                                            const std::function<void(uint64_t, uint64_t)>& progress) {
  return fit_kv_bases(engine.model(), *collect_kv_moments(engine, tokens, progress), policy);
}

}  // namespace mneme
