#include "train/llama.h"

#include <cmath>

#include "base/error.h"
#include "base/philox.h"

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
LlamaModel<T>::LlamaModel(Ledger& ledger, const LlamaSizes& sizes, GemmFormat format, const OperandRounding& rounding)
    : sizes_(sizes), format_(format), rounding_(rounding) {
  sizes.check();
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
  loss_ = &program_.template add<CrossEntropy<T>>({final_hidden_}, {}, head, format);
  parameters_.allocate(ledger);
}

template <typename T>
ValueId LlamaModel<T>::add_layer(size_t index, ValueId x) {
  const size_t d = sizes_.width, kv = sizes_.n_kv_heads * sizes_.head_dim(), f = sizes_.ffn_width;
  const auto eps = static_cast<T>(sizes_.norm_eps);
  const auto weight = [&](const char* name, Role role, size_t rows, size_t columns) {
    return &parameters_.add(fmt::format("blk.{}.{}.weight", index, name), role, rows, columns);
  };
  const auto value = [&](const char* name, size_t columns) {
    return program_.value(fmt::format("{}.{}", index, name), columns);
  };
  using List = std::vector<Parameter<T>*>;

  const ValueId normed = value("attn_norm", d), q = value("q", d), k = value("k", kv), v = value("v", kv);
  program_.template add<RmsNorm<T>>({x}, {normed}, weight("attn_norm", Role::kNorm, 1, d), eps);
  const List qkv{weight("attn_q", Role::kAttention, d, d), weight("attn_k", Role::kAttention, kv, d),
                 weight("attn_v", Role::kAttention, kv, d)};
  program_.template add<Linear<T>>({normed}, {q, k, v}, qkv, format_, rounding_);
  const ValueId q_rotated = value("q_rotated", d), k_rotated = value("k_rotated", kv);
  program_.template add<Rope<T>>({q}, {q_rotated}, rope_, sizes_.n_heads);
  program_.template add<Rope<T>>({k}, {k_rotated}, rope_, sizes_.n_kv_heads);
  const ValueId attended = value("attended", d), lse = value("lse", sizes_.n_heads);
  program_.template add<Attention<T>>({q_rotated, k_rotated, v}, {attended, lse}, sizes_.n_heads, sizes_.n_kv_heads,
                                      sizes_.head_dim());
  const ValueId projected = value("attn_output", d), middle = value("middle", d);
  program_.template add<Linear<T>>({attended}, {projected}, List{weight("attn_output", Role::kAttention, d, d)},
                                   format_, rounding_);
  program_.template add<Add<T>>({x, projected}, {middle}, d);

  const ValueId ffn_normed = value("ffn_norm", d), gate = value("gate", f), up = value("up", f), product = value("product", f);
  program_.template add<RmsNorm<T>>({middle}, {ffn_normed}, weight("ffn_norm", Role::kNorm, 1, d), eps);
  const List gate_up{weight("ffn_gate", Role::kFeedForward, f, d), weight("ffn_up", Role::kFeedForward, f, d)};
  program_.template add<Linear<T>>({ffn_normed}, {gate, up}, gate_up, format_, rounding_);
  program_.template add<SwiGlu<T>>({gate, up}, {product}, f);
  const ValueId down = value("down", d), result = value("output", d);
  program_.template add<Linear<T>>({product}, {down}, List{weight("ffn_down", Role::kFeedForward, d, f)}, format_,
                                   rounding_);
  program_.template add<Add<T>>({middle, down}, {result}, d);
  return result;
}

template <typename T>
void LlamaModel<T>::initialise(uint64_t seed) {
  uint64_t stream = 0;
  const double residual = 1.0 / std::sqrt(2.0 * static_cast<double>(sizes_.n_layers));
  for (Parameter<T>& parameter : parameters_.all()) {
    PhiloxStream random(seed, ++stream);
    const bool into_residual =
        parameter.name.find("attn_output") != std::string::npos || parameter.name.find("ffn_down") != std::string::npos;
    const double deviation = 0.02 * (into_residual ? residual : 1.0);
    for (size_t i = 0; i < parameter.size(); ++i) {
      parameter.value[i] = parameter.role == Role::kNorm
                               ? T{1}
                               : static_cast<T>(deviation * static_cast<double>(random.next_normal()));
    }
  }
}

template <typename T>
std::vector<Parameter<T>*> LlamaModel<T>::parameter_list() {
  std::vector<Parameter<T>*> list;
  for (Parameter<T>& parameter : parameters_.all()) list.push_back(&parameter);
  return list;
}

template class LlamaModel<float>;
template class LlamaModel<double>;

}  // namespace mneme::train
