#include "train/sampler.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "train/ops/gemm.h"
#include "train/ops/packed_product.h"
#include "train/ops/vector_math.h"

namespace mneme::train {
namespace {

void norm_rows(const float* x, const Parameter<float>& w, float eps, size_t n, float* y) {
  const size_t d = w.columns;
  for (size_t i = 0; i < n; ++i) {
    const float inverse = 1.0f / std::sqrt(dot(x + i * d, x + i * d, d) / static_cast<float>(d) + eps);
    multiply_scaled(x + i * d, w.value, inverse, d, y + i * d);
  }
}

}  // namespace

Sampler::Sampler(Ledger& ledger, LlamaModel<float>& model, size_t n_sequences, size_t max_tokens)
    : model_(model),
      n_sequences_(n_sequences),
      max_tokens_(max_tokens),
      rope_(max_tokens, model.sizes().head_dim(), model.sizes().rope_base) {
  const LlamaSizes& s = model.sizes();
  if (max_tokens > s.context) {
    fail(ErrorCode::kContextOverflow, "[sample] expected at most {} tokens, found {}", s.context, max_tokens);
  }
  const size_t kv = s.n_kv_heads * s.head_dim();
  const size_t cache = s.n_layers * n_sequences * kv * max_tokens * sizeof(float);
  keys_ = Buffer(ledger, Tag::kKv, cache, "keys of the sampler");
  values_ = Buffer(ledger, Tag::kKv, cache, "values of the sampler");
  const size_t widths[] = {s.width, s.width, s.width, kv, kv, s.ffn_width, s.ffn_width, s.vocabulary};
  const size_t total = std::accumulate(std::begin(widths), std::end(widths), size_t{0});
  size_t rounded = 0, inner = 0;
  for (const Parameter<float>& w : model.parameters().all()) {
    if (model.is_rounded(w)) rounded = std::max(rounded, w.size());
    if (w.role == Role::kAdapter) inner = std::max(inner, n_sequences * std::min(w.rows, w.columns));
  }
  scratch_ = Buffer(ledger, Tag::kScratch, (total * n_sequences + rounded + inner) * sizeof(float),
                    "activations of the sampler");
  std::span<float> rest = scratch_.as<float>();
  std::span<float>* const parts[] = {&x_, &normed_, &q_, &k_, &v_, &gate_, &up_, &logits_};
  for (size_t i = 0; i < std::size(parts); ++i) {
    *parts[i] = rest.first(widths[i] * n_sequences);
    rest = rest.subspan(widths[i] * n_sequences);
  }
  rounded_ = rest.first(rounded);
  inner_ = rest.subspan(rounded);
}

void Sampler::multiply(const float* x, const Parameter<float>& w, size_t n, bool accumulate, float* y) {
  if (w.is_packed()) {
    packed_multiply(w.packed, x, n, accumulate, y);
  } else {
    const float* seen = w.value;
    if (model_.is_rounded(w)) {
      model_.seen_values(w, rounded_.data());
      seen = rounded_.data();
    }
    gemm({n, w.rows, w.columns, false, true, w.columns, w.columns, w.rows}, 1.0f, x, seen, accumulate ? 1.0f : 0.0f, y);
  }
  for (const LowRank<float>& term : model_.low_rank_of(w)) term.forward(x, n, inner_.data(), y);
}

std::vector<std::vector<int32_t>> Sampler::run(const std::vector<std::vector<int32_t>>& prompts, int32_t stop,
                                               const SampleOptions& options) {
  std::vector<std::vector<int32_t>> results(prompts.size());
  if (prompts.size() > n_sequences_) {
    fail(ErrorCode::kInvalidArgument, "[sample] expected at most {} prompts, found {}", n_sequences_, prompts.size());
  }
  std::vector<int32_t> ids;
  for (const auto& prompt : prompts) ids.push_back(prompt.at(0));
  std::vector<bool> done(prompts.size(), false);
  for (size_t position = 0; position + 1 < max_tokens_; ++position) {
    if (std::all_of(done.begin(), done.end(), [](bool d) { return d; })) break;
    step(ids, position);
    for (size_t i = 0; i < prompts.size(); ++i) {
      if (position + 1 < prompts[i].size()) {
        ids[i] = prompts[i][position + 1];
        continue;
      }
      if (done[i]) continue;
      PhiloxStream random(options.seed, i, position * 4);
      const auto vocabulary = model_.sizes().vocabulary;
      ids[i] = draw(logits_.subspan(i * vocabulary, vocabulary), options, random.next_float());
      if (ids[i] == stop) {
        done[i] = true;
      } else {
        results[i].push_back(ids[i]);
      }
    }
  }
  return results;
}

void Sampler::step(std::span<const int32_t> ids, size_t position) {
  const LlamaSizes& s = model_.sizes();
  const size_t n = ids.size(), d = s.width, pairs = s.head_dim() / 2;
  const auto eps = static_cast<float>(s.norm_eps);
  auto parameter = model_.parameters().all().begin();
  const Parameter<float>& embedding = *parameter++;
  for (size_t i = 0; i < n; ++i) {
    copy_row(embedding, static_cast<size_t>(ids[i]), x_.data() + i * d);
  }
  const auto rotate = [&](float* x, size_t n_heads) {
    for (size_t i = 0; i < n * n_heads; ++i) {
      float* head = x + i * s.head_dim();
      rotate_pairs(head, rope_.cosines.data() + position * pairs, rope_.sines.data() + position * pairs, 1.0f, pairs,
                   head);
    }
  };
  auto mixture = model_.expert_layers().begin();
  for (size_t layer = 0; layer < s.n_layers; ++layer) {
    norm_rows(x_.data(), *parameter++, eps, n, normed_.data());
    multiply(normed_.data(), *parameter++, n, false, q_.data());
    multiply(normed_.data(), *parameter++, n, false, k_.data());
    multiply(normed_.data(), *parameter++, n, false, v_.data());
    rotate(q_.data(), s.n_heads);
    rotate(k_.data(), s.n_kv_heads);
    attend(layer, n, position);
    multiply(normed_.data(), *parameter++, n, true, x_.data());
    norm_rows(x_.data(), *parameter++, eps, n, normed_.data());
    if (mixture != model_.expert_layers().end() && mixture->layer == layer) {
      mix(*mixture, n);
      parameter += static_cast<std::ptrdiff_t>(mixture++->n_parameters);
      continue;
    }
    multiply(normed_.data(), *parameter++, n, false, gate_.data());
    multiply(normed_.data(), *parameter++, n, false, up_.data());
    swiglu(gate_.data(), up_.data(), n * s.ffn_width, gate_.data());
    multiply(gate_.data(), *parameter++, n, true, x_.data());
  }
  norm_rows(x_.data(), *parameter++, eps, n, normed_.data());
  multiply(normed_.data(), s.tied_head ? embedding : *parameter, n, false, logits_.data());
}

void Sampler::mix(const ExpertLayer<float>& layer, size_t n) {
  const Program<float>& program = model_.program();
  const std::vector<int32_t> tokens(n, 0);
  Batch batch;
  batch.tokens = tokens;
  std::map<ValueId, std::vector<float>> values;
  values[layer.input].assign(normed_.data(), normed_.data() + n * model_.sizes().width);
  std::vector<std::byte> scratch;
  for (size_t i = layer.first_op; i < layer.first_op + layer.n_ops; ++i) {
    Op<float>& op = *program.ops()[i];
    Call<float> call;
    call.batch = &batch;
    call.rows = {0, n};
    for (size_t k = 0; k < op.inputs.size(); ++k) call.in[k] = values.at(op.inputs[k]).data();
    for (size_t k = 0; k < op.outputs.size(); ++k) {
      std::vector<float>& out = values[op.outputs[k]];
      out.resize(n * program.values()[op.outputs[k]].columns);
      call.out[k] = out.data();
    }
    constexpr size_t kAlign = 64;
    scratch.resize(op.forward_scratch_bytes(n) + kAlign);
    const auto address = reinterpret_cast<uintptr_t>(scratch.data());
    call.scratch = scratch.data() + (round_up<uintptr_t>(address, kAlign) - address);
    op.forward(call);
  }
  add(x_.data(), values.at(layer.output).data(), n * model_.sizes().width, x_.data());
}

// Puts k and v of this position into the cache and leaves the attention output in normed_.
void Sampler::attend(size_t layer, size_t n, size_t position) {
  const LlamaSizes& s = model_.sizes();
  const size_t head_dim = s.head_dim(), kv = s.n_kv_heads * head_dim, group = s.n_heads / s.n_kv_heads;
  const float factor = 1.0f / std::sqrt(static_cast<float>(head_dim));
  parallel_for(n, 1, [&](size_t begin, size_t end) {
    std::vector<float> scores(position + 1);
    for (size_t i = begin; i < end; ++i) {
      float* keys = keys_.as<float>().data() + (layer * n_sequences_ + i) * kv * max_tokens_;
      float* values = values_.as<float>().data() + (layer * n_sequences_ + i) * kv * max_tokens_;
      for (size_t c = 0; c < kv; ++c) {
        keys[c * max_tokens_ + position] = k_[i * kv + c];
        values[c * max_tokens_ + position] = v_[i * kv + c];
      }
      for (size_t head = 0; head < s.n_heads; ++head) {
        const size_t offset = head / group * head_dim * max_tokens_;
        const float* q = q_.data() + i * s.width + head * head_dim;
        std::fill(scores.begin(), scores.end(), 0.0f);
        for (size_t c = 0; c < head_dim; ++c) {
          add_scaled(keys + offset + c * max_tokens_, q[c], position + 1, scores.data());
        }
        const float top = max_of(scores.data(), position + 1) * factor;
        const float sum = exp_shifted(scores.data(), factor, top, position + 1);
        float* out = normed_.data() + i * s.width + head * head_dim;
        for (size_t c = 0; c < head_dim; ++c) {
          out[c] = dot(values + offset + c * max_tokens_, scores.data(), position + 1) / sum;
        }
      }
    }
  });
}

int32_t draw(std::span<float> logits, const SampleOptions& options, float uniform) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (options.temperature <= 0) return static_cast<int32_t>(best - logits.begin());
  const float factor = 1.0f / options.temperature;
  const float sum = exp_shifted(logits.data(), factor, *best * factor, logits.size());
  // Sorting needs numbers that compare.
  if (!std::isfinite(sum))
    fail(ErrorCode::kCorruptData, "[sample] expected finite logits, found a sum of exponentials of {}", sum);
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const float pa = logits[static_cast<size_t>(a)], pb = logits[static_cast<size_t>(b)];
    return pa != pb ? pa > pb : a < b;
  });
  float kept = 0;
  size_t n_kept = 0;
  while (n_kept < order.size() && (n_kept == 0 || kept < options.top_p * sum)) {
    kept += logits[static_cast<size_t>(order[n_kept++])];
  }
  float left = uniform * kept;
  for (size_t i = 0; i < n_kept; ++i) {
    left -= logits[static_cast<size_t>(order[i])];
    if (left < 0) return order[i];
  }
  return order[n_kept - 1];
}

}  // namespace mneme::train
