#include "train/llama.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/philox.h"
#include "tensor/bipolar.h"
#include "train/ops/dispatch.h"
#include "train/ops/learned_steps.h"

namespace mneme::train {

void LlamaSizes::check() const {
  const auto need = [](bool holds, const char* expected, size_t found) {
    if (!holds) fail(ErrorCode::kInvalidArgument, "[model] expected {}, found {}", expected, found);
  };
  need(vocabulary >= 2, "a vocabulary of at least 2", vocabulary);
  need(n_layers >= 1, "at least one layer", n_layers);
  need(n_heads >= 1 && width % n_heads == 0, "a width that is a multiple of the heads", width);
  need(head_dim() % 2 == 0 && head_dim() > 0, "an even head size", head_dim());
  need(n_kv_heads >= 1 && n_heads % n_kv_heads == 0, "heads that are a multiple of the kv heads", n_kv_heads);
  need(ffn_width >= 1, "a feed-forward width of at least 1", ffn_width);
  need(context >= 2, "a context of at least 2 tokens", context);
}

template <typename T>
LlamaModel<T>::LlamaModel(Ledger& ledger, const LlamaSizes& sizes, const LlamaOptions& options)
    : sizes_(sizes),
      format_(options.format),
      rounding_(options.rounding),
      weight_rounding_(options.weight_rounding),
      has_base_(options.base != nullptr) {
  sizes.check();
  if (options.experts != nullptr) experts_ = *options.experts;
  rope_ = std::make_shared<const RopeTable<T>>(sizes.context, sizes.head_dim(), sizes.rope_base);
  Parameter<T>& embedding = parameters_.add("token_embd.weight", Role::kEmbedding, sizes.vocabulary, sizes.width);
  ValueId x = program_.value("embedded", sizes.width);
  program_.template add<Embedding<T>>({}, {x}, &embedding);
  for (size_t i = 0; i < sizes.n_layers; ++i) {
    program_.next_layer();
    x = add_layer(i, x);
  }
  program_.next_layer();
  Parameter<T>& norm = parameters_.add("output_norm.weight", Role::kNorm, 1, sizes.width);
  final_hidden_ = program_.value("final", sizes.width);
  program_.template add<RmsNorm<T>>({x}, {final_hidden_}, &norm, static_cast<T>(sizes.norm_eps));
  Parameter<T>* head = &embedding;
  if (!sizes.tied_head) head = &parameters_.add("output.weight", Role::kHead, sizes.vocabulary, sizes.width);
  loss_ = &program_.template add<CrossEntropy<T>>({final_hidden_}, {}, head, options.format);
  if (has_base_) freeze(ledger, *options.base);
  if (options.plan_only && options.adapter != nullptr) {
    for (Parameter<T>& parameter : parameters_.all()) parameter.frozen = true;
  }
  add_adapters(options);
  add_steps();
  if (options.plan_only) return;
  parameters_.allocate(ledger, options.bf16_weights);
  if (has_base_) load_frozen(options);
}

template <typename T>
void LlamaModel<T>::freeze(Ledger& ledger, const ModelFile& base) {
  for (Parameter<T>& parameter : parameters_.all()) {
    if (experts_ && !experts_->freezes(parameter.name)) continue;
    const TensorView& stored = tensor_of(base, parameter);
    parameter.frozen = true;
    if (!parameter.is_matrix()) continue;
    parameter.packed = stored;
    packed_.push_back(ledger.reserve(Tag::kWeights, stored.bytes(), parameter.name));
  }
}

template <typename T>
void LlamaModel<T>::add_term(const Place& place, const std::string& name, size_t rank, T scale, bool frozen) {
  Parameter<T>& a = parameters_.add(name + ".lora_a", Role::kAdapter, rank, place.weight->columns);
  Parameter<T>& b = parameters_.add(name + ".lora_b", Role::kAdapter, place.weight->rows, rank);
  a.frozen = b.frozen = frozen;
  const LowRank<T> term{&a, &b, scale};
  place.op->add_low_rank(place.index, term);
  terms_.push_back({place.weight, term});
}

template <typename T>
void LlamaModel<T>::add_adapters(const LlamaOptions& options) {
  const auto place_of = [&](const std::string& name) {
    return std::find_if(places_.begin(), places_.end(), [&](const Place& p) { return p.weight->name == name; });
  };
  for (size_t i = 0; i < options.below.size(); ++i) {
    for (const AdapterFile::Pair& pair : options.below[i]->pairs()) {
      const auto place = place_of(pair.target);
      if (place == places_.end()) {
        fail(ErrorCode::kUnsupported, "[adapter] {}: expected matrices of linear layers, found {}",
             options.below[i]->path(), pair.target);
      }
      add_term(*place, fmt::format("below.{}.{}", i, pair.target), pair.rank(), static_cast<T>(pair.scale), true);
    }
  }
  if (options.adapter == nullptr) return;
  const AdapterOptions& adapter = *options.adapter;
  const auto scale = static_cast<T>(adapter.alpha) / static_cast<T>(adapter.rank);
  for (const Place& place : places_) {
    if (!adapter.targets_layer(place.weight->name)) continue;
    if (adapter.rank > std::min(place.weight->rows, place.weight->columns)) {
      fail(ErrorCode::kInvalidArgument, "[adapter] expected a rank of at most {} for {}, found {}",
           std::min(place.weight->rows, place.weight->columns), place.weight->name, adapter.rank);
    }
    add_term(place, place.weight->name, adapter.rank, scale, false);
    place.weight->frozen = true;
  }
}

template <typename T>
void LlamaModel<T>::load_frozen(const LlamaOptions& options) {
  const auto take = [](const std::vector<float>& values, T* out) { std::copy(values.begin(), values.end(), out); };
  std::vector<float> values;
  for (Parameter<T>& parameter : parameters_.all()) {
    if (!parameter.frozen || parameter.is_packed() || parameter.role == Role::kAdapter) continue;
    values.resize(parameter.size());
    decode_row(tensor_of(*options.base, parameter), 0, values.data());
    take(values, parameter.value);
  }
  size_t i = 0;
  for (const AdapterFile* file : options.below) {
    for (const AdapterFile::Pair& pair : file->pairs()) {
      const LowRank<T>& term = terms_[i++].low_rank;
      for (const auto& [parameter, factor] : {std::pair(term.a, &pair.a), std::pair(term.b, &pair.b)}) {
        values.resize(parameter->size());
        file->decode(*factor, values.data());
        take(values, parameter->value);
      }
    }
  }
}

template <typename T>
void LlamaModel<T>::add_linear(ValueId x, std::vector<ValueId> y, std::vector<Parameter<T>*> weights) {
  Linear<T>& op = program_.template add<Linear<T>>({x}, std::move(y), weights, format_, rounding_, weight_rounding_);
  for (size_t i = 0; i < weights.size(); ++i) {
    weight_rounding_.type_for(weights[i]->columns);  // refuses what doesn't fit
    places_.push_back({weights[i], &op, i, nullptr});
  }
}

template <typename T>
void LlamaModel<T>::add_steps() {
  for (Place& place : places_) {
    const Parameter<T>& w = *place.weight;
    if (!weight_rounding_.learns_steps(w.columns)) continue;
    // One row, as vectors have: optimisers neither decay nor project them.
    place.steps = &parameters_.add(w.name + ".steps", Role::kStep, 1, w.size() / bipolar::kGroup);
    place.op->learn_steps(place.index, place.steps);
  }
}

template <typename T>
void LlamaModel<T>::start_steps() {
  for (const Place& place : places_) {
    if (place.steps == nullptr) continue;
    const Parameter<T>& w = *place.weight;
    train::start_steps(bipolar::bits_of(weight_rounding_.dtype), w.value, w.rows, w.columns, place.steps->value);
  }
}

template <typename T>
const Parameter<T>* LlamaModel<T>::steps_of(const Parameter<T>& weight) const {
  const auto place = std::find_if(places_.begin(), places_.end(), [&](const Place& p) { return p.weight == &weight; });
  return place == places_.end() ? nullptr : place->steps;
}

template <typename T>
bool LlamaModel<T>::is_rounded(const Parameter<T>& weight) const {
  return weight_rounding_ && !weight.is_packed() &&
         (weight.role == Role::kAttention || weight.role == Role::kFeedForward);
}

template <typename T>
void LlamaModel<T>::seen_values(const Parameter<T>& weight, T* out) const {
  if (const Parameter<T>* steps = steps_of(weight)) {
    const int bits = bipolar::bits_of(weight_rounding_.dtype);
    round_to_steps(bits, weight.value, steps->value, weight.rows, weight.columns, out);
    return;
  }
  if constexpr (std::is_same_v<T, float>) {
    if (is_rounded(weight)) {
      weight_rounding_.apply(weight.value, weight.rows, weight.columns, out);
      return;
    }
  }
  for (size_t i = 0; i < weight.rows; ++i) copy_row(weight, i, out + i * weight.columns);
}

template <typename T>
ValueId LlamaModel<T>::add_layer(size_t index, ValueId x) {
  const size_t d = sizes_.width, kv = sizes_.n_kv_heads * sizes_.head_dim();
  const auto eps = static_cast<T>(sizes_.norm_eps);
  const auto weight = [&](const char* name, Role role, size_t rows, size_t columns) {
    return &parameters_.add(fmt::format("blk.{}.{}.weight", index, name), role, rows, columns);
  };
  const auto value = [&](const char* name, size_t columns) {
    return program_.value(fmt::format("{}.{}", index, name), columns);
  };
  const ValueId normed = value("attn_norm", d), q = value("q", d), k = value("k", kv), v = value("v", kv);
  program_.template add<RmsNorm<T>>({x}, {normed}, weight("attn_norm", Role::kNorm, 1, d), eps);
  Parameter<T>* const wq = weight("attn_q", Role::kAttention, d, d);
  Parameter<T>* const wk = weight("attn_k", Role::kAttention, kv, d);
  add_linear(normed, {q, k, v}, {wq, wk, weight("attn_v", Role::kAttention, kv, d)});
  const ValueId q_rotated = value("q_rotated", d), k_rotated = value("k_rotated", kv);
  program_.template add<Rope<T>>({q}, {q_rotated}, rope_, sizes_.n_heads);
  program_.template add<Rope<T>>({k}, {k_rotated}, rope_, sizes_.n_kv_heads);
  const ValueId attended = value("attended", d), lse = value("lse", sizes_.n_heads);
  program_.template add<Attention<T>>({q_rotated, k_rotated, v}, {attended, lse}, sizes_.n_heads, sizes_.n_kv_heads,
                                      sizes_.head_dim());
  const ValueId projected = value("attn_output", d), middle = value("middle", d);
  add_linear(attended, {projected}, {weight("attn_output", Role::kAttention, d, d)});
  program_.template add<Add<T>>({x, projected}, {middle}, d);

  const ValueId ffn_normed = value("ffn_norm", d), result = value("output", d);
  program_.template add<RmsNorm<T>>({middle}, {ffn_normed}, weight("ffn_norm", Role::kNorm, 1, d), eps);
  const bool mixes = experts_ && experts_->converts(index);
  const ValueId added = mixes ? add_experts(index, ffn_normed) : add_feed_forward(index, "", ffn_normed);
  program_.template add<Add<T>>({middle, added}, {result}, d);
  return result;
}

template <typename T>
ValueId LlamaModel<T>::add_feed_forward(size_t index, const std::string& suffix, ValueId x) {
  const size_t d = sizes_.width, f = sizes_.ffn_width;
  const auto weight = [&](const char* name, size_t rows, size_t columns) {
    return &parameters_.add(fmt::format("blk.{}.{}{}.weight", index, name, suffix), Role::kFeedForward, rows, columns);
  };
  const auto value = [&](const char* name, size_t columns) {
    return program_.value(fmt::format("{}{}.{}", index, suffix, name), columns);
  };
  const ValueId gate = value("gate", f), up = value("up", f), product = value("product", f), down = value("down", d);
  Parameter<T>* const w_gate = weight("ffn_gate", f, d);
  add_linear(x, {gate, up}, {w_gate, weight("ffn_up", f, d)});
  program_.template add<SwiGlu<T>>({gate, up}, {product}, f);
  add_linear(product, {down}, {weight("ffn_down", d, f)});
  return down;
}

template <typename T>
std::vector<Parameter<T>*> LlamaModel<T>::expert_weights(size_t index, const char* name, size_t rows, size_t columns) {
  std::vector<Parameter<T>*> list;
  for (size_t e = 0; e < experts_->count; ++e) {
    list.push_back(
        &parameters_.add(fmt::format("blk.{}.{}_exps.weight[{}]", index, name, e), Role::kFeedForward, rows, columns));
  }
  return list;
}

template <typename T>
ValueId LlamaModel<T>::add_ternary_expert(size_t index, ValueId x) {
  const size_t d = sizes_.width, f = sizes_.ffn_width;
  const auto weight = [&](const char* name, size_t rows, size_t columns) {
    return &parameters_.add(fmt::format("blk.{}.{}_shexp.weight", index, name), Role::kFeedForward, rows, columns);
  };
  const auto value = [&](const char* name, size_t columns) {
    return program_.value(fmt::format("{}_shexp.{}", index, name), columns);
  };
  const typename ExpertLinear<T>::Options how{1, true, experts_->activations};
  const ValueId gate = value("gate", f), up = value("up", f), product = value("product", f), down = value("down", d);
  Parameter<T>* const w_gate = weight("ffn_gate", f, d);
  Parameter<T>* const w_up = weight("ffn_up", f, d);
  program_.template add<ExpertLinear<T>>({x}, {gate, up}, std::vector<std::vector<Parameter<T>*>>{{w_gate}, {w_up}},
                                         how);
  program_.template add<SwiGlu<T>>({gate, up}, {product}, f);
  program_.template add<ExpertLinear<T>>({product}, {down},
                                         std::vector<std::vector<Parameter<T>*>>{{weight("ffn_down", d, f)}}, how);
  return down;
}

template <typename T>
ValueId LlamaModel<T>::add_experts(size_t index, ValueId x) {
  using Shared = ExpertOptions::Shared;
  const ExpertOptions& e = *experts_;
  const size_t d = sizes_.width, f = sizes_.ffn_width, k = e.used;
  const auto value = [&](const char* name, size_t columns) {
    return program_.value(fmt::format("{}_exps.{}", index, name), columns);
  };
  ExpertLayer<T> layer;
  layer.layer = index;
  layer.first_op = program_.ops().size();
  layer.input = x;
  layer.n_parameters = parameters_.all().size();
  std::vector<ValueId> combined;
  if (e.shared == Shared::kFrozen) combined = {add_feed_forward(index, "_shexp", x)};
  if (e.shared == Shared::kTernary) combined = {add_ternary_expert(index, x)};

  const ValueId weights = value("weights", k), probabilities = value("probabilities", e.count);
  const ValueId route = value("route", 2 * k), gathered = value("gathered", k * d);
  Parameter<T>& w_router = parameters_.add(fmt::format("blk.{}.ffn_gate_inp.weight", index), Role::kRouter, e.count, d);
  layer.router = &program_.template add<Router<T>>({x}, {weights, probabilities, route}, &w_router, k, e.renormalises(),
                                                   e.balance);
  program_.template add<Gather<T>>({x, route}, {gathered}, d, k);
  const ValueId gate = value("gate", k * f), up = value("up", k * f), product = value("product", k * f);
  const ValueId down = value("down", k * d), result = value("mixed", d);
  const typename ExpertLinear<T>::Options how{k, e.ternary, e.activations};
  auto w_gate = expert_weights(index, "ffn_gate", f, d);
  auto w_up = expert_weights(index, "ffn_up", f, d);
  program_.template add<ExpertLinear<T>>(
      {gathered, route}, {gate, up}, std::vector<std::vector<Parameter<T>*>>{std::move(w_gate), std::move(w_up)}, how);
  program_.template add<SwiGlu<T>>({gate, up}, {product}, k * f);
  program_.template add<ExpertLinear<T>>(
      {product, route}, {down}, std::vector<std::vector<Parameter<T>*>>{expert_weights(index, "ffn_down", d, f)}, how);
  combined.insert(combined.begin(), {down, weights, route});
  program_.template add<Combine<T>>(combined, {result}, d, k);

  layer.n_ops = program_.ops().size() - layer.first_op;
  layer.n_parameters = parameters_.all().size() - layer.n_parameters;
  layer.output = result;
  expert_layers_.push_back(layer);
  return result;
}

template <typename T>
void LlamaModel<T>::initialise(uint64_t seed) {
  uint64_t stream = 0;
  const double residual = 1.0 / std::sqrt(2.0 * static_cast<double>(sizes_.n_layers));
  for (Parameter<T>& parameter : parameters_.all()) {
    PhiloxStream random(seed, ++stream);
    if ((parameter.frozen && has_base_) || parameter.role == Role::kStep) continue;
    const bool into_residual =
        parameter.name.find("attn_output") != std::string::npos || parameter.name.find("ffn_down") != std::string::npos;
    const double deviation = 0.02 * (into_residual ? residual : 1.0);
    const double bound =
        parameter.name.ends_with(".lora_a") ? 1 / std::sqrt(static_cast<double>(parameter.columns)) : 0;
    const auto draw = [&] {
      if (parameter.role == Role::kNorm) return T{1};
      if (parameter.role == Role::kAdapter)
        return static_cast<T>(bound * (2.0 * static_cast<double>(random.next_float()) - 1.0));
      return static_cast<T>(deviation * static_cast<double>(random.next_normal()));
    };
    std::vector<T> row(parameter.columns);
    for (size_t i = 0; i < parameter.rows; ++i) {
      std::generate(row.begin(), row.end(), draw);
      set_row(parameter, i, row.data());
    }
  }
  start_steps();
}

template <typename T>
std::vector<Parameter<T>*> LlamaModel<T>::parameter_list() {
  std::vector<Parameter<T>*> list;
  for (Parameter<T>& parameter : parameters_.all()) list.push_back(&parameter);
  return list;
}

template <typename T>
std::vector<Parameter<T>*> LlamaModel<T>::trained_list() {
  std::vector<Parameter<T>*> list;
  for (Parameter<T>& parameter : parameters_.all()) {
    if (!parameter.frozen) list.push_back(&parameter);
  }
  return list;
}

template <typename T>
std::vector<LowRank<T>> LlamaModel<T>::low_rank_of(const Parameter<T>& weight) const {
  std::vector<LowRank<T>> list;
  for (const Term& term : terms_) {
    if (term.weight == &weight) list.push_back(term.low_rank);
  }
  return list;
}

template class LlamaModel<float>;
template class LlamaModel<double>;

}  // namespace mneme::train
