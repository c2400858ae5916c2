#include "model/arch/parts.h"

namespace mneme::arch {

void decoder_ends(Model& model, WeightLoader& load, Norm::Kind norm) {
  const Hyperparameters& h = model.hyper;
  load.set_prefix("");
  // The embedding may have padding rows beyond the vocabulary.
  const uint64_t rows = load.rows_of("token_embd.weight", h.n_vocab);
  model.token_embedding = load.table("token_embd.weight", rows, h.width);
  model.output_norm = norm == Norm::Kind::kRms ? load.rms_norm("output_norm", h.width, h.norm_eps)
                                               : load.layer_norm("output_norm", h.width, h.norm_eps);
  if (load.has("output.weight")) {
    model.output = load.linear("output", load.rows_of("output.weight", h.n_vocab), h.width, WeightLoader::Bias::kAny);
  } else {
    model.output.weight = model.token_embedding;
  }
}

RopeSpec rope_from_file(Model& model, WeightLoader& load, RopeSpec::Pairing pairing) {
  const Hyperparameters& h = model.hyper;
  RopeParameters p;
  p.pairing = pairing;
  p.n_rot = h.n_rot;
  p.base = h.rope_base;
  p.frequency_scale = h.rope_frequency_scale;
  p.yarn = h.rope_yarn;
  p.original_context = h.rope_original_context;
  p.attention_factor = h.rope_attention_factor;
  load.set_prefix("");
  if (load.has("rope_freqs.weight")) p.factors = {load.vector("rope_freqs.weight", h.n_rot / 2), h.n_rot / 2};
  return make_rope(p);
}

}  // namespace mneme::arch
