#include "train/recipe_optimizer.h"

namespace mneme::train {
namespace {

using Kind = OptimizerKind;

void read_rate(Section& s, RateSchedule& rate) {
  using Shape = RateSchedule::Shape;
  s.require("steps");
  s.take("rate", rate.peak, 0, 10);
  s.take_choice("schedule", rate.shape,
                {{"constant", Shape::kConstant}, {"cosine", Shape::kCosine}, {"wsd", Shape::kWsd}});
  s.take("final_fraction", rate.final_fraction, 0, 1);
  s.take("warmup_steps", rate.warmup_steps, 0, 1e9);
  s.take("steps", rate.total_steps, 1, 1e9);
  s.take("decay_steps", rate.decay_steps, 0, 1e9);
}

void read_adam(Section& s, AdamWOptions& o) {
  s.take("beta1", o.beta1, 0, 0.9999);
  s.take("beta2", o.beta2, 0, 0.99999);
  s.take("eps", o.eps, 0, 1);
  s.take("weight_decay", o.weight_decay, 0, 10);
}

void read_sgd(Section& s, SgdOptions& o) {
  s.take("momentum", o.momentum, 0, 0.9999);
  s.take("nesterov", o.nesterov);
  s.take("weight_decay", o.weight_decay, 0, 10);
  if (o.nesterov && o.momentum == 0) s.complain("nesterov", "expected a momentum above 0, found 0");
}

void read_adafactor(Section& s, AdafactorOptions& o) {
  s.take("beta1", o.beta1, 0, 0.9999);
  s.take("decay_exponent", o.decay_exponent, 0.1, 1);
  s.take("eps", o.eps, 1e-38, 1);
  s.take("clip_threshold", o.clip_threshold, 1e-3, 1e6);
  s.take("least_scale", o.least_scale, 0, 1);
  s.take("scale_by_parameter", o.scale_by_parameter);
  s.take("weight_decay", o.weight_decay, 0, 10);
}

void read_galore(Section& s, Kind kind, GaloreOptions& o) {
  const bool natural = kind == Kind::kNaturalGalore;
  o.adam.weight_decay = 0;
  o.adam.beta2 = 0.999f;
  if (natural) {
    o.side = ProjectionSide::kBoth;
    o.on_refresh = OnRefresh::kRotate;
    o.history = 20;
  }
  read_adam(s, o.adam);
  s.take("rank", o.rank, 1, 65536);
  s.take("update_gap", o.update_gap, 1, 1e9);
  s.take("scale", o.scale, 0, 1000);
  s.take_choice("side", o.side,
                {{"auto", ProjectionSide::kAuto},
                 {"left", ProjectionSide::kLeft},
                 {"right", ProjectionSide::kRight},
                 {"both", ProjectionSide::kBoth}});
  s.take_choice("moments", o.adam.moments, {{"f32", MomentFormat::kF32}, {"8bit", MomentFormat::k8Bit}});
  s.take_choice("on_refresh", o.on_refresh,
                {{"keep", OnRefresh::kKeep}, {"reset", OnRefresh::kReset}, {"rotate", OnRefresh::kRotate}});
  if (!natural) return;
  s.take("history", o.history, 1, 1024);
  // As published; relative damping, which acts on gradients of any size, costs 0.2 nats (docs/results/optimizers.md).
  o.relative_damping = false;
  s.take("relative_damping", o.relative_damping);
  o.damping = o.relative_damping ? 1.0f : 1e-3f;
  s.take("damping", o.damping, 1e-30, 1e30);
}

/// Keys that some kinds have, with the kinds as a message says it.
constexpr std::pair<const char*, const char*> kKeysOfKinds[] = {
    {"momentum", "sgd or muon"},
    {"nesterov", "sgd"},
    {"beta1", "adamw, adamw8, adafactor, muon, galore or natural-galore"},
    {"beta2", "adamw, adamw8, muon, galore or natural-galore"},
    {"eps", "adamw, adamw8, adafactor, muon, galore or natural-galore"},
    {"decay_exponent", "adafactor"},
    {"clip_threshold", "adafactor"},
    {"least_scale", "adafactor"},
    {"scale_by_parameter", "adafactor"},
    {"rank", "galore or natural-galore"},
    {"update_gap", "galore or natural-galore"},
    {"scale", "galore or natural-galore"},
    {"side", "galore or natural-galore"},
    {"moments", "galore or natural-galore"},
    {"on_refresh", "galore or natural-galore"},
    {"history", "natural-galore"},
    {"damping", "natural-galore"},
    {"relative_damping", "natural-galore"},
};

}  // namespace

void read_optimizer(Section s, Recipe& r) {
  OptimizerOptions& o = r.optimizer;
  s.take_choice("kind", o.kind,
                {{"sgd", Kind::kSgd},
                 {"adamw", Kind::kAdamW},
                 {"adamw8", Kind::kAdamW8},
                 {"adafactor", Kind::kAdafactor},
                 {"muon", Kind::kMuon},
                 {"galore", Kind::kGalore},
                 {"natural-galore", Kind::kNaturalGalore}});
  read_rate(s, r.rate);
  s.take("clip_norm", r.clip_norm, 0, 1e6);
  s.take("layerwise", o.layerwise);
  switch (o.kind) {
    case Kind::kSgd:
      read_sgd(s, o.sgd);
      break;
    case Kind::kAdamW:
    case Kind::kAdamW8:
      read_adam(s, o.adamw);
      o.adamw.moments = o.kind == Kind::kAdamW8 ? MomentFormat::k8Bit : MomentFormat::kF32;
      break;
    case Kind::kAdafactor:
      read_adafactor(s, o.adafactor);
      break;
    case Kind::kMuon:
      s.take("momentum", o.muon.momentum, 0, 0.9999);
      read_adam(s, o.muon.other);
      o.muon.weight_decay = o.muon.other.weight_decay;
      break;
    case Kind::kGalore:
    case Kind::kNaturalGalore:
      read_galore(s, o.kind, o.galore);
      break;
  }
  for (const auto& [key, kinds] : kKeysOfKinds) {
    s.refuse(key, fmt::format("only with the kind {}, found it with {}", kinds, kind_name(o.kind)));
  }
  s.finish();
}

}  // namespace mneme::train
