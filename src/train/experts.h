#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "train/ops/ternary.h"

/// Mixtures of experts made of a dense model (up-cycling, arXiv 2212.05055). With the defaults a mixture of ternary
/// experts (MoTE, arXiv 2506.14435): the feed-forward network of a layer stays as shared expert, frozen as it is
/// stored, and E ternary experts are trained beside it,
///
///     y = FFN_shared(x) + sum over the K chosen e of p_e FFN_e(x)        p = softmax(x W^T), W [E, d]
///
/// The experts start as copies of the dense network, so that the sum doubles the feed-forward branch at first, as
/// published; W starts normal with deviation 0.02. Without a shared expert the chosen p_e are divided by their sum, so
/// that the model starts as the dense one: the mixture in full precision that is the usual baseline.
///
/// Not done: a norm in front of rounded inputs, a scale of the shared expert, expert capacity (no token is dropped).
namespace mneme::train {

struct ExpertOptions {
  enum class Shared : uint8_t {
    kFrozen,   ///< As the base stores it.
    kTernary,  ///< Trained, ternary as the others.
    kNone,
  };
  enum class Start : uint8_t { kDense, kRandom };
  size_t count = 4;  ///< E
  size_t used = 1;   ///< K
  Shared shared = Shared::kFrozen;
  bool ternary = true;                                           ///< Routed experts; else in full precision.
  ActivationRounding activations = ActivationRounding::kBlocks;  ///< Of inputs of ternary experts.
  Start start = Start::kDense;                                   ///< Of routed experts.
  bool alternate = false;                                        ///< Convert layers 1, 3, 5, ... only; else all.
  double balance = 0.01;                                         ///< Factor of the load balance (ops/router.h).
  bool trains_all = false;  ///< Attention, norms and embeddings too; else routed experts and routers alone.

  bool renormalises() const { return shared == Shared::kNone; }
  bool converts(size_t layer) const { return !alternate || layer % 2 == 1; }
  /// Whether a parameter of the model stays as the base has it.
  bool freezes(std::string_view parameter_name) const;
};

/// A name "blk.0.ffn_gate_exps.weight[2]" is expert 2 of the stack "blk.0.ffn_gate_exps.weight".
bool is_routed_expert(std::string_view parameter_name);
/// Name of the tensor that a parameter is stored in: that of the stack for a routed expert, else its own.
std::string stored_name(std::string_view parameter_name);
/// Name of the tensor of the dense model that a parameter comes from: for routed and shared experts that of the dense
/// feed-forward network, else its own.
std::string dense_name(std::string_view parameter_name);

}  // namespace mneme::train
