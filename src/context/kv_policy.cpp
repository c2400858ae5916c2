#include "context/kv_policy.h"

#include <cmath>

#include "base/checked_math.h"
#include "context/coded_kv.h"
#include "context/cskv_kv.h"
#include "context/dense_kv.h"
#include "context/instinfer_kv.h"
#include "context/merged_kv.h"
#include "context/mikv_kv.h"
#include "context/remote_kv.h"
#include "context/shadow_kv.h"

namespace mneme {
namespace {

/// Layers with a sliding window hold little and need a ring: they stay plain.
bool seals(const KvChoices& choices, const KvShape& shape) { return choices.seals() && !choices.features && shape.window == 0; }

/// Keys and values that lie beside an executor, here or at workers.
bool near_data(const KvChoices& choices, const KvShape& shape) { return choices.storage && shape.window == 0; }
bool remote(const KvChoices& choices, const KvShape& shape) {
  return near_data(choices, shape) && !choices.storage->workers.empty();
}

/// What a plain layer holds: with `window`, the smaller of the model's window and the policy's, and first tokens unless the
/// model itself does not look back that far.
struct Plain {
  KvShape shape;
  uint32_t sinks = 0;
};

Plain plain_of(const KvChoices& choices, const KvShape& shape) {
  Plain plain{shape};
  if (choices.window && (shape.window == 0 || shape.window > choices.window->recent)) {
    plain.shape.window = choices.window->recent;
    if (shape.window == 0) plain.sinks = choices.window->sink;
  }
  return plain;
}

}  // namespace

KvPolicy KvPolicy::parse(std::string_view text) {
  KvPolicy policy;
  policy.choices_ = KvChoices::parse(text);
  policy.name_ = text;
  return policy;
}

KvPolicy KvPolicy::collecting(std::shared_ptr<KvMoments> moments) {
  KvPolicy policy = parse("f16");
  policy.moments_ = std::move(moments);
  return policy;
}

void KvPolicy::set_bases(std::shared_ptr<const KvBases> bases) {
  bases_ = std::move(bases);
  name_ = fmt::format("{}#{:016x}", name_.substr(0, name_.find('#')), bases_->identity());
}

KvBases::Layer KvPolicy::fit(const KvShape& shape, const KvMoments::Layer& moments) const {
  return moments.fit(CskvKv::equal_ranks(shape, choices_));
}

bool KvPolicy::has_features(const KvShape& shape, const KvPlace& place) const {
  if (!choices_.features || shape.window != 0) return false;
  // Measured bases may leave a layer as it is.
  const bool left = choices_.features->measured && bases_ && place.layer < bases_->layers.size() &&
                    bases_->layers[place.layer].ranks() == KvRanks{};
  return !left;
}

std::vector<KvPlace::Role> KvPolicy::roles(std::span<const std::optional<KvShape>> layers) const {
  std::vector<KvPlace::Role> roles(layers.size(), KvPlace::Role::kAlone);
  if (!choices_.sharing) return roles;
  const auto start = static_cast<size_t>(std::ceil(choices_.sharing->start * static_cast<float>(layers.size())));
  for (size_t lower = round_up<size_t>(start, 2); lower + 1 < layers.size(); lower += 2) {
    if (!layers[lower] || layers[lower]->window != 0 || layers[lower] != layers[lower + 1]) continue;
    roles[lower] = KvPlace::Role::kLower;
    roles[lower + 1] = KvPlace::Role::kUpper;
  }
  return roles;
}

StateSpec KvPolicy::spec(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch, const KvPlace& place) const {
  if (place.role != KvPlace::Role::kAlone) {
    return MergedKv::spec(shape, choices_, max_tokens, max_batch, place.role == KvPlace::Role::kUpper);
  }
  if (choices_.importance && shape.window == 0) return MikvKv::spec(shape, choices_);
  if (choices_.shadow && shape.window == 0) return ShadowKv::spec(shape, choices_, max_tokens);
  if (remote(choices_, shape)) return RemoteKv::spec();
  if (near_data(choices_, shape)) return InstInferKv::spec(shape, choices_, max_tokens);
  if (has_features(shape, place)) {
    if (bases_) CskvKv::check(shape, choices_, bases_.get(), place.layer);
    const KvRanks ranks = bases_ ? bases_->layers[place.layer].ranks() : CskvKv::equal_ranks(shape, choices_);
    return CskvKv::spec(shape, choices_, ranks, max_tokens);
  }
  if (seals(choices_, shape)) return CodedKv::spec(shape, choices_, max_tokens);
  const Plain plain = plain_of(choices_, shape);
  return DenseKv::spec(plain.shape, choices_.plain, max_tokens, max_batch, plain.sinks);
}

uint64_t KvPolicy::working_bytes(const KvShape& shape, uint64_t max_tokens) const {
  if (remote(choices_, shape)) return RemoteKv::working_bytes(shape, choices_, max_tokens);
  if (near_data(choices_, shape)) return InstInferKv::working_bytes(shape, choices_, max_tokens);
  return choices_.shadow && shape.window == 0 ? ShadowKv::working_bytes(shape, choices_, max_tokens) : 0;
}

uint64_t KvPolicy::disk_bytes(const KvShape& shape, uint64_t n_tokens) const {
  if (remote(choices_, shape)) return 0;
  if (near_data(choices_, shape)) return InstInferKv::disk_bytes(shape, choices_, n_tokens);
  return choices_.shadow && shape.window == 0 ? ShadowKv::disk_bytes(shape, choices_, n_tokens) : 0;
}

std::unique_ptr<KvLayer> KvPolicy::make_layer(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch,
                                              Ledger& ledger, const KvPlace& place) const {
  if (place.role != KvPlace::Role::kAlone) {
    if (place.role == KvPlace::Role::kLower) {
      *place.pair = std::make_shared<MergedPair>(shape, choices_, max_tokens, MergedKv::residual_of(choices_, max_batch), ledger);
    }
    return std::make_unique<MergedKv>(shape, choices_, max_tokens, max_batch, place.role == KvPlace::Role::kUpper, *place.pair,
                                      ledger);
  }
  if (choices_.importance && shape.window == 0) return std::make_unique<MikvKv>(shape, choices_, max_tokens, ledger);
  if (choices_.shadow && shape.window == 0) return std::make_unique<ShadowKv>(shape, choices_, max_tokens, ledger);
  if (remote(choices_, shape)) return std::make_unique<RemoteKv>(shape, choices_, max_tokens, ledger);
  if (near_data(choices_, shape)) return std::make_unique<InstInferKv>(shape, choices_, max_tokens, ledger);
  if (has_features(shape, place)) {
    return std::make_unique<CskvKv>(shape, choices_, max_tokens, bases_, place.layer, ledger);
  }
  if (seals(choices_, shape)) return std::make_unique<CodedKv>(shape, choices_, max_tokens, ledger);
  const Plain plain = plain_of(choices_, shape);
  std::unique_ptr<KvLayer> store =
      std::make_unique<DenseKv>(plain.shape, choices_.plain, max_tokens, max_batch, ledger, plain.sinks);
  return moments_ ? collect_moments(std::move(store), shape, *moments_, place.layer) : std::move(store);
}

}  // namespace mneme
