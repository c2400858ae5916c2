#include "eval/cskv_claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <string>

#include "base/philox.h"
#include "context/kv_policy.h"
#include "engine/kv_fit.h"
#include "eval/own_text.h"
#include "eval/kv_quality.h"
#include "eval/kv_ranks.h"
#include "weights/tensor_source.h"

namespace mneme {
namespace {

constexpr const char* kModel = "models/pocket.gguf";
constexpr uint32_t kWindow = 1024;
constexpr uint64_t kFittedWindows = 8, kScoredWindows = 4;
constexpr const char* kHalf = "cskv:0.5";
constexpr const char* kFifth = "cskv:0.2";
constexpr const char* kMeasuredHalf = "cskv:0.5,ranks=measured";
constexpr const char* kMeasuredFifth = "cskv:0.2,ranks=measured";

/// Orthonormal rows that span what `rows` [rank, channels] span.
void orthonormalise(std::vector<float>& rows, size_t rank, size_t channels) {
  for (size_t i = 0; i < rank; ++i) {
    float* const row = rows.data() + i * channels;
    for (size_t j = 0; j < i; ++j) {
      const float* const other = rows.data() + j * channels;
      const float along = std::inner_product(row, row + channels, other, 0.0f);
      for (size_t c = 0; c < channels; ++c) row[c] -= along * other[c];
    }
    const float norm = std::sqrt(std::inner_product(row, row + channels, row, 0.0f));
    for (size_t c = 0; c < channels; ++c) row[c] /= norm;
  }
}

/// The experiments that several claims share: text of the model's own, one part to fit bases to, one to score on.
class Pocket {
 public:
  Pocket() {
    PlanRequest request;
    request.context = kWindow;
    request.n_sequences = fit_sequences(KvPolicy::parse(kMeasuredHalf));
    engine_ = Engine::load(kModel, request, ledger_);
    text_ = own_text(*engine_, (kFittedWindows + kScoredWindows) * kWindow);
  }

  std::span<const TokenId> fitted_text() const { return std::span(text_).first(kFittedWindows * kWindow); }
  std::span<const TokenId> scored_text() const { return std::span(text_).subspan(kFittedWindows * kWindow); }

  std::shared_ptr<const KvBases> fit(const KvPolicy& policy) {
    return fit_kv_bases(*engine_, fitted_text(), policy, [](uint64_t, uint64_t) {});
  }

  /// Bases of measured ranks. A fifth and a half are measured at the same ones, which is done once.
  std::shared_ptr<const KvBases> fit_measured(const KvPolicy& policy) {
    const auto none = [](uint64_t, uint64_t) {};
    const auto moments = collect_kv_moments(*engine_, fitted_text(), none);
    if (!curves_) curves_ = measure_ranks(*engine_, fitted_text(), policy, *moments, none);
    const std::vector<KvRanks> ranks = choose_ranks(engine_->model(), policy, *curves_);
    return fit_kv_bases(engine_->model(), *moments, policy, ranks);
  }

  /// Of the perplexity with f16, how many times that with `bases`.
  double perplexity_ratio(const std::string& name, std::shared_ptr<const KvBases> bases) {
    KvPolicy policy = KvPolicy::parse(name);
    policy.set_bases(std::move(bases));
    KvQualityOptions options;
    options.window = kWindow;
    const KvQuality q =
        measure_kv_quality(*engine_, scored_text(), {&policy, 1}, options, [](uint64_t, uint64_t) {}).front();
    return q.perplexity / q.plain_perplexity;
  }
  double fitted_ratio(const std::string& name) {
    const KvPolicy policy = KvPolicy::parse(name);
    return perplexity_ratio(name, policy.choices().features->measured ? fit_measured(policy) : fit(policy));
  }

  /// Bases of the ranks of `policy` that have seen no text: those of the projections' singular vectors, which a text of
  /// hidden states without any direction would give.
  std::shared_ptr<const KvBases> from_weights(const KvPolicy& policy) {
    const auto source = open_source(kModel, ledger_);
    KvMoments moments;
    moments.layers.resize(engine_->model().blocks.size());
    for (size_t i = 0; i < moments.layers.size(); ++i) {
      moments.layers[i].keys = moments_of(*source, fmt::format("blk.{}.attn_k.weight", i));
      moments.layers[i].values = moments_of(*source, fmt::format("blk.{}.attn_v.weight", i));
    }
    return fit_to(policy, moments);
  }

  /// Bases of random directions.
  std::shared_ptr<const KvBases> random(const KvPolicy& policy) {
    auto bases = std::make_shared<KvBases>(*fit(policy));
    for (size_t i = 0; i < bases->layers.size(); ++i) {
      KvBases::Layer& layer = bases->layers[i];
      PhiloxStream stream(3, i);
      for (auto [map, basis] : {std::pair{layer.keys, &layer.key_basis}, std::pair{layer.values, &layer.value_basis}}) {
        for (float& x : *basis) x = stream.next_normal();
        orthonormalise(*basis, map.rank, map.channels);
      }
    }
    return bases;
  }

  /// Mean error of keys of the scored text in bases fitted to the other text, over that in bases fitted to itself.
  double held_out_error_ratio(const KvPolicy& policy) {
    const auto bases = fit(policy);
    const auto moments = std::make_shared<KvMoments>();
    moments->layers.resize(engine_->model().blocks.size());
    StateOptions collecting = engine_->state_options();
    collecting.kv = KvPolicy::collecting(moments);
    for (size_t first = 0; first < scored_text().size(); first += kWindow) {
      const auto state = engine_->model().make_state(collecting, ledger_);
      engine_->run(*state, scored_text().subspan(first, kWindow), [](size_t, size_t, const float*) {});
    }
    const auto own = fit_to(policy, *moments);
    double other = 0, best = 0;
    for (size_t i = 0; i < bases->layers.size(); ++i) {
      other += moments->layers[i].keys->error_of(bases->layers[i].key_basis.data(), bases->layers[i].keys.rank);
      best += own->layers[i].key_error;
    }
    return other / best;
  }

 private:
  /// Second moments of W x over x of no preferred direction: of the columns of W.
  static std::unique_ptr<SecondMoments> moments_of(TensorSource& source, const std::string& name) {
    for (size_t i = 0; i < source.tensors().size(); ++i) {
      if (source.tensors()[i].name != name) continue;
      const TensorView w = source.tensors()[i].view(source.load(i).data());
      const size_t rows = w.rows(), columns = w.columns();
      std::vector<float> row(columns), turned(columns * rows);
      for (size_t r = 0; r < rows; ++r) {
        decode_row(w, r, row.data());
        for (size_t c = 0; c < columns; ++c) turned[c * rows + r] = row[c];
      }
      auto moments = std::make_unique<SecondMoments>(rows);
      moments->add(turned.data(), columns);
      return moments;
    }
    fail(ErrorCode::kNotFound, "[eval claims] {}: expected a tensor {}, found none", kModel, name);
  }

  std::shared_ptr<KvBases> fit_to(const KvPolicy& policy, const KvMoments& moments) {
    auto bases = std::make_shared<KvBases>();
    for (size_t i = 0; i < moments.layers.size(); ++i) {
      bases->layers.push_back(policy.fit(*engine_->model().blocks[i].mixer->kv_shape(), moments.layers[i]));
    }
    return bases;
  }

  Ledger ledger_;
  std::unique_ptr<Engine> engine_;
  std::vector<TokenId> text_;
  std::optional<RankCurves> curves_;
};

Pocket& pocket() {
  static Pocket experiments;
  return experiments;
}

std::string on_own_text(const std::string& what) {
  return fmt::format("{}; {}, bases fitted to {} tokens that it made up, {} others scored", what, kModel,
                     kFittedWindows * kWindow, kScoredWindows * kWindow);
}

std::function<ClaimMeasurement()> fitted_perplexity(std::string policy) {
  return [=] { return ClaimMeasurement{pocket().fitted_ratio(policy), on_own_text(policy)}; };
}

/// What `others` lose beyond f16 over what fitted bases of a fifth lose.
template <typename Bases>
std::function<ClaimMeasurement()> loss_over_fitted(Bases others, std::string what) {
  return [=] {
    const double fitted = pocket().fitted_ratio(kFifth), other = pocket().perplexity_ratio(kFifth, others());
    return ClaimMeasurement{
        std::log(other) / std::log(fitted),
        on_own_text(fmt::format("{}: {} {:.3f} times f16's perplexity, fitted {:.3f}", kFifth, what, other, fitted))};
  };
}

/// Bytes of a long sequence in 32 layers of 8 heads of 128, over those in f16.
double bytes_ratio(std::string_view policy, uint64_t tokens) {
  const KvShape shape{8, 128, 128, 0};
  const auto bytes = [&](std::string_view name) {
    return static_cast<double>(KvPolicy::parse(name).spec(shape, tokens, 64).bytes(tokens));
  };
  return bytes(policy) / bytes("f16");
}

}  // namespace

std::vector<Claim> cskv_claims() {
  const char* const paper = "arXiv 2409.10593";
  return {
      {"cskv", paper, "Keys have few directions: energy in the best fifth of them, the layer in the middle",
       "of the energy", "singular values of the key cache fall fast", 0.8, false,
       [] {
         std::vector<double> energies;
         const auto bases = pocket().fit(KvPolicy::parse(kFifth));
         for (const KvBases::Layer& layer : bases->layers) energies.push_back(1 - layer.key_error * layer.key_error);
         std::sort(energies.begin(), energies.end());
         return ClaimMeasurement{
             energies[energies.size() / 2],
             on_own_text(fmt::format("least {:.3f}, greatest {:.3f}", energies.front(), energies.back()))};
       }},
      {"cskv", paper, "All directions kept are the model itself", "times f16's perplexity", "exact", 1.001, true,
       fitted_perplexity("cskv:1")},
      {"cskv", paper, "Half of the bytes cost next to nothing", "times f16's perplexity", "no loss", 1.01, true,
       fitted_perplexity(kHalf)},
      {"cskv", paper, "A fifth of the bytes costs little", "times f16's perplexity",
       "80 % smaller, long-context ability kept", 1.05, true, fitted_perplexity(kFifth)},
      {"cskv", paper, "The same with ranks measured by layer (not the paper's): half", "times f16's perplexity",
       "no loss", 1.01, true, fitted_perplexity(kMeasuredHalf)},
      {"cskv", paper, "The same with ranks measured by layer (not the paper's): a fifth", "times f16's perplexity",
       "80 % smaller, long-context ability kept", 1.05, true, fitted_perplexity(kMeasuredFifth)},
      {"cskv", paper, "Bases must know the activations: singular vectors of the weights lose more", "times the loss",
       "needs its initialisation and fit", 1.5, false,
       loss_over_fitted([] { return pocket().from_weights(KvPolicy::parse(kFifth)); },
                        "singular vectors of the weights")},
      {"cskv", paper, "Random directions are far worse", "times the loss", "random initialisation fails", 5, false,
       loss_over_fitted([] { return pocket().random(KvPolicy::parse(kFifth)); }, "random directions")},
      {"cskv", paper, "Bases of one text serve another: error of keys over that of the text's own bases (ShadowKV's)",
       "times the error", "one fit for all texts", 1.5, true,
       [] {
         return ClaimMeasurement{pocket().held_out_error_ratio(KvPolicy::parse(kFifth)), on_own_text(kFifth)};
       }},
      {"cskv", paper, "With four bits a twentieth of the bytes is left", "of f16's bytes", "95 % compression", 0.065,
       true,
       [] {
         return ClaimMeasurement{
             bytes_ratio("cskv:0.2+kivi:4", 65536),
             fmt::format("a layer of 8 heads of 128, 65536 tokens; {:.3f} at 4096, where the tail in "
                         "full precision weighs more",
                         bytes_ratio("cskv:0.2+kivi:4", 4096))};
       }},
      {"cskv", paper, "Fitting takes moments", "s", "about 90 minutes on one GPU for 7B (second hand)", 60, true,
       [] {
         const std::span text = pocket().fitted_text();
         const auto start = std::chrono::steady_clock::now();
         pocket().fit(KvPolicy::parse(kFifth));
         return ClaimMeasurement{std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
                                 fmt::format("{} tokens through {}, closed form of all layers", text.size(), kModel)};
       }},
  };
}

}  // namespace mneme
