#pragma once

#include <cstdint>
#include <functional>

#include "engine/engine.h"
#include "train/data/text_source.h"

namespace mneme {

struct KvRecallOptions {
  uint32_t probes = 50;
  uint32_t distance = 3000;   ///< Tokens of distraction between facts and question.
  uint64_t seed = 7;
};

/// What a model that talks in dialogues (models/pocket.gguf) still knows of facts it was told.
struct KvRecall {
  uint32_t n_probes = 0;
  double recalled = 0;        ///< Share of greedy answers that contain the value.
};

/// Asks for facts that were told before `distance` tokens of stories and book pages, with keys and values kept as `policy` says.
/// Names and values are from the half of the vocabulary that training never sees. Throws Error(kUnsupported) for a model without
/// a chat template.
KvRecall measure_kv_recall(Engine& engine, const KvPolicy& policy, const train::TextSource& texts,
                           const KvRecallOptions& options, const std::function<void(uint64_t done, uint64_t all)>& progress);

}  // namespace mneme
