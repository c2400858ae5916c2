#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mneme::train {

enum class OptimizerKind : uint8_t { kSgd, kAdamW, kAdamW8, kAdafactor, kMuon, kGalore, kNaturalGalore };

/// As recipes write it, e.g. "adamw8".
std::string_view kind_name(OptimizerKind kind);

/// Number format of first and second moments.
enum class MomentFormat : uint8_t { kF32, k8Bit };

struct SgdOptions {
  float momentum = 0.9f;  ///< 0: none, and no state.
  bool nesterov = false;
  float weight_decay = 0.0f;
};

struct AdamWOptions {
  float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f, weight_decay = 0.1f;
  MomentFormat moments = MomentFormat::kF32;
};

struct AdafactorOptions {
  float beta1 = 0.0f;              ///< 0: no first moment, which is what saves the memory.
  float decay_exponent = 0.8f;     ///< beta2 at step t is 1 - t^-decay_exponent.
  float eps = 1e-30f;              ///< Added to squared gradients.
  float clip_threshold = 1.0f;     ///< Largest root mean square of an update before the rate.
  float least_scale = 1e-3f;       ///< Smallest parameter scale (eps2 of the paper).
  bool scale_by_parameter = true;  ///< The rate is multiplied by the root mean square of the parameter.
  float weight_decay = 0.0f;
};

struct MuonOptions {
  float momentum = 0.95f, weight_decay = 0.1f;
  AdamWOptions other;  ///< For everything that is no matrix of attention or feed-forward.
};

/// Which sides of a gradient [m, n] are projected.
enum class ProjectionSide : uint8_t {
  kAuto,   ///< The smaller dimension: left when m < n, else right.
  kLeft,   ///< R = P^T G, [r, n]
  kRight,  ///< R = G Q, [m, r]
  kBoth,   ///< R = P^T G Q, [r, r]
};

/// What happens to first moments (and, for Natural GaLore, to the history) when the subspace changes.
enum class OnRefresh : uint8_t {
  kKeep,    ///< They keep their old coordinates, as in the authors' code.
  kReset,   ///< They start from zero; second moments too.
  kRotate,  ///< They are carried to the new coordinates; second moments are kept.
};

struct GaloreOptions {
  size_t rank = 64;
  size_t update_gap = 200;  ///< Steps between changes of the subspace.
  float scale = 0.25f;      ///< alpha: the rate of projected matrices is rate * scale.
  ProjectionSide side = ProjectionSide::kAuto;
  OnRefresh on_refresh = OnRefresh::kKeep;
  AdamWOptions adam;  ///< Inside the subspace, and for everything that is not projected.
  bool gather = false;  ///< Room for the gradients of several micro-batches a step (Optimizer::gather).

  size_t history = 0;  ///< s > 0: Natural GaLore with the last s projected gradients.
  /// lambda of the Fisher matrix. Relative: a multiple of the mean squared norm of the history, which suits gradients
  /// of any size; absolute, as published with 1e-3, it does nothing to small gradients and too much to large ones.
  float damping = 1.0f;
  bool relative_damping = true;
};

/// Everything that a recipe says about the optimiser.
struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::kAdamW;
  /// A parameter is updated as soon as its gradient is final, and the gradient's memory is used for the next one.
  bool layerwise = false;
  SgdOptions sgd;
  AdamWOptions adamw;
  AdafactorOptions adafactor;
  MuonOptions muon;
  GaloreOptions galore;
};

}  // namespace mneme::train
