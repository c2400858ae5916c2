#include "eval/integer_model.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/parallel.h"
#include "engine/engine.h"

namespace mneme::integer {
namespace {

/// Bits of the largest residual value that the text showed; five are left for others.
constexpr int kResidualBits = 26;
constexpr int kMostResidualBits = 24;

[[noreturn]] void refuse(const Engine& engine, const std::string& expected, const std::string& found) {
  throw Error(ErrorCode::kUnsupported,
              fmt::format("[integer] {}: expected {}, found {}", engine.file().path(), expected, found),
              "integer-only passes are of plain llama models; leave out --arithmetic integer for others");
}

void check_model(const Engine& engine) {
  const mneme::Model& model = engine.model();
  const Hyperparameters& h = model.hyper;
  if (h.architecture != "llama") refuse(engine, "architecture llama", h.architecture);
  if (h.n_experts > 0) refuse(engine, "dense layers", fmt::format("{} experts", h.n_experts));
  if (model.weights.stack != nullptr) refuse(engine, "plain matrices", "BITSTACK");
  if (model.widest_adapter > 0) refuse(engine, "no adapter", fmt::format("one of rank {}", model.widest_adapter));
  if (h.key_dim != h.value_dim) {
    refuse(engine, "keys as wide as values", fmt::format("{} and {}", h.key_dim, h.value_dim));
  }
  if (h.width > kWidest) refuse(engine, fmt::format("at most {} columns", kWidest), std::to_string(h.width));
  const auto alike = [](const std::vector<uint32_t>& n) { return std::set<uint32_t>(n.begin(), n.end()).size() == 1; };
  if (h.n_layers == 0 || !alike(h.n_heads) || !alike(h.n_kv_heads))
    refuse(engine, "layers with as many heads", "others");
  if (model.ropes.size() != 1 || model.ropes.front().magnitude != 1.0f) {
    refuse(engine, "one rotation of magnitude 1", "another");
  }
  for (const NamedTensor& tensor : engine.file().tensors()) {
    if (tensor.name.ends_with(".bias")) refuse(engine, "no biases", tensor.name);
  }
}

/// Decodes tensors by name. The engine has checked their shapes.
class Reader {
 public:
  explicit Reader(const ModelFile& file) : file_(file) {}

  bool has(const std::string& name) const { return file_.find(name) != nullptr; }

  std::vector<float> values(const std::string& name) const {
    const NamedTensor* tensor = file_.find(name);
    if (tensor == nullptr)
      fail(ErrorCode::kCorruptData, "[integer] {}: expected tensor '{}', found none", file_.path(), name);
    const TensorView& view = tensor->view;
    std::vector<float> out(view.shape.elements());
    for (uint64_t r = 0; r < view.rows(); ++r) decode_row(view, r, out.data() + r * view.columns());
    return out;
  }
  Matrix matrix(const std::string& name) const {
    return quantise(values(name), static_cast<size_t>(file_.find(name)->view.columns()), name);
  }
  Norm norm(const std::string& name) const {
    Norm out{values(name), {}};
    for (const float weight : out.weight) {
      if (!std::isfinite(weight)) {
        fail(ErrorCode::kInvalidArgument, "[integer] {}: expected finite values, found {}", name, weight);
      }
    }
    return out;
  }
  /// Codes, with a scale and a factor a row.
  uint64_t coded_bytes() const {
    uint64_t sum = 0;
    for (const NamedTensor& tensor : file_.tensors()) {
      const uint64_t rows = tensor.view.shape.rank() < 2 ? tensor.view.shape.elements() : tensor.view.rows();
      sum += tensor.view.shape.elements() + rows * (sizeof(float) + sizeof(Dyadic));
    }
    return sum;
  }

 private:
  const ModelFile& file_;
};

/// Cosines and sines of positions times frequencies in Q14.
void set_angles(Model& model) {
  constexpr double kUnit = 1 << kAngleBits;
  for (size_t t = 0; t < model.window; ++t) {
    for (const float frequency : model.frequency) {
      const double angle = static_cast<double>(t) * static_cast<double>(frequency);
      model.cosines.push_back(static_cast<int16_t>(std::lround(kUnit * std::cos(angle))));
      model.sines.push_back(static_cast<int16_t>(std::lround(kUnit * std::sin(angle))));
    }
  }
}

/// Ranges that no value has come to are taken as 1, so that scales are never zero.
float checked(float range, const char* what) {
  if (!std::isfinite(range))
    fail(ErrorCode::kInvalidArgument, "[integer] expected a finite range of {}, found {}", what, range);
  return range > 0 ? range : 1.0f;
}

/// Sums of products of codes times `in`, the scale of the inputs, to units of `out`.
void set_product(Matrix& w, double in, double out) {
  w.requantise.clear();
  for (const float scale : w.scales) w.requantise.push_back(to_dyadic(static_cast<double>(scale) * in / out));
}

void set_norm(Norm& norm, double out) {
  norm.requantise.clear();
  for (const float w : norm.weight)
    norm.requantise.push_back(to_dyadic(std::ldexp(static_cast<double>(w) / out, -kRatioBits)));
}

}  // namespace

Ranges Ranges::none(size_t n_layers) {
  Ranges out;
  out.layers.resize(n_layers);
  return out;
}

void check_window(const Model& model, std::span<const TokenId> window, size_t first) {
  if (window.empty() || window.size() > model.window || first < 1 || first > window.size()) {
    fail(ErrorCode::kInvalidArgument,
         "[integer] expected 1 to {} tokens and to score from one of them on, found {} and {}", model.window,
         window.size(), first);
  }
  for (const TokenId token : window) {
    if (token >= 0 && static_cast<size_t>(token) < model.n_vocab) continue;
    fail(ErrorCode::kInvalidArgument, "[integer] expected tokens below {}, found {}", model.n_vocab, token);
  }
}

Matrix quantise(std::span<const float> values, size_t columns, const std::string& name) {
  if (columns > kMostProducts) {
    fail(ErrorCode::kInvalidArgument,
         "[integer] {}: expected at most {} columns, whose products of 8-bit numbers fit a sum of 32 bits, found {}",
         name, kMostProducts, columns);
  }
  Matrix out;
  out.rows = values.size() / columns;
  out.columns = columns;
  out.codes.resize(values.size());
  for (size_t r = 0; r < out.rows; ++r) {
    float largest = 0;
    for (size_t j = 0; j < columns; ++j) {
      const float value = values[r * columns + j];
      if (!std::isfinite(value)) {
        fail(ErrorCode::kInvalidArgument, "[integer] {}: expected finite values, found {} in row {}, column {}", name,
             value, r, j);
      }
      largest = std::max(largest, std::abs(value));
    }
    // A denormal scale would have no inverse; such a row is zero for all that follows.
    const float scale = largest / 127.0f >= std::numeric_limits<float>::min() ? largest / 127.0f : 1.0f;
    out.scales.push_back(scale);
    for (size_t j = 0; j < columns; ++j) {
      const float code = std::nearbyint(values[r * columns + j] / scale);
      out.codes[r * columns + j] = static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f));
    }
  }
  return out;
}

void set_ranges(Model& model, const Ranges& ranges) {
  model.ranges = ranges;
  Ranges& r = model.ranges;
  r.residual = checked(r.residual, "the residual stream");
  r.last = checked(r.last, "the output's input");
  const int exponent = static_cast<int>(std::ceil(std::log2(static_cast<double>(r.residual))));
  model.residual_bits = std::clamp(kResidualBits - exponent, 0, kMostResidualBits);
  const double residual = std::ldexp(1.0, -model.residual_bits), wide = std::ldexp(1.0, -kFraction);
  model.epsilon = std::llround(std::ldexp(static_cast<double>(model.norm_eps), 2 * model.residual_bits));
  model.table_residual.clear();
  for (const float scale : model.table_scales)
    model.table_residual.push_back(to_dyadic(static_cast<double>(scale) / residual));
  for (size_t i = 0; i < model.layers.size(); ++i) {
    Layer& layer = model.layers[i];
    std::array<double, kPoints> s{};
    for (size_t p = 0; p < kPoints; ++p) {
      r.layers[i].points[p] = checked(r.layers[i].points[p], "an activation");
      s[p] = static_cast<double>(scale_of(r.layers[i].points[p]));
    }
    r.layers[i].output = checked(r.layers[i].output, "the residual stream");
    const auto at = [&](Point point) { return s[static_cast<size_t>(point)]; };
    set_norm(layer.attention_norm, at(Point::kAttentionInput));
    set_norm(layer.feed_forward_norm, at(Point::kFeedForwardInput));
    set_product(layer.query, at(Point::kAttentionInput), std::ldexp(at(Point::kQuery), -kRotationBits));
    set_product(layer.key, at(Point::kAttentionInput), std::ldexp(at(Point::kKey), -kRotationBits));
    set_product(layer.value, at(Point::kAttentionInput), at(Point::kValue));
    set_product(layer.output, at(Point::kAttended), residual);
    set_product(layer.gate, at(Point::kFeedForwardInput), wide);
    set_product(layer.up, at(Point::kFeedForwardInput), wide);
    set_product(layer.down, at(Point::kHidden), residual);
    layer.score =
        to_dyadic(at(Point::kQuery) * at(Point::kKey) / std::sqrt(static_cast<double>(model.head_dim)) / wide);
    layer.attended = to_dyadic(std::ldexp(at(Point::kValue) / at(Point::kAttended), -kAverageBits));
    layer.hidden = to_dyadic(wide / at(Point::kHidden));
  }
  set_norm(model.last_norm, static_cast<double>(scale_of(r.last)));
  set_product(model.output, static_cast<double>(scale_of(r.last)), wide);
}

Model convert(Engine& engine, std::span<const TokenId> tokens, const ConversionOptions& options,
              const std::function<void(uint64_t, uint64_t)>& progress) {
  check_model(engine);
  if (tokens.empty()) fail(ErrorCode::kInvalidArgument, "[integer] expected a text that sets the ranges, found none");
  if (options.window < 2 || options.window > kLongestWindow) {
    fail(ErrorCode::kInvalidArgument, "[integer] expected a window of 2 to {} tokens, found {}", kLongestWindow,
         options.window);
  }
  const mneme::Model& from = engine.model();
  const Hyperparameters& h = from.hyper;
  const Reader read(engine.file());
  Model out;
  const uint64_t angles = 2 * sizeof(int16_t) * options.window * from.ropes.front().n_pairs();
  out.reserved = engine.ledger().reserve(Tag::kScratch, read.coded_bytes() + angles, "the model in integers");
  out.width = h.width;
  out.n_vocab = h.n_vocab;
  out.n_heads = h.n_heads.front();
  out.n_kv_heads = h.n_kv_heads.front();
  out.head_dim = h.key_dim;
  out.n_pairs = from.ropes.front().n_pairs();
  out.interleaved = from.ropes.front().pairing == RopeSpec::Pairing::kInterleaved;
  out.frequency = from.ropes.front().frequency;
  out.window = options.window;
  out.norm_eps = h.norm_eps;
  set_angles(out);
  Matrix table = read.matrix("token_embd.weight");
  out.table_scales = table.scales;
  if (read.has("output.weight")) {
    out.output = read.matrix("output.weight");
    out.table = std::move(table.codes);
  } else {
    out.output = std::move(table);
  }
  // Rows beyond the vocabulary have no token.
  out.output.rows = out.n_vocab;
  out.output.scales.resize(out.n_vocab);
  out.table_scales.resize(out.n_vocab);
  out.last_norm = read.norm("output_norm.weight");
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    const std::string blk = fmt::format("blk.{}.", i);
    out.layers.push_back({read.norm(blk + "attn_norm.weight"),
                          read.norm(blk + "ffn_norm.weight"),
                          read.matrix(blk + "attn_q.weight"),
                          read.matrix(blk + "attn_k.weight"),
                          read.matrix(blk + "attn_v.weight"),
                          read.matrix(blk + "attn_output.weight"),
                          read.matrix(blk + "ffn_gate.weight"),
                          read.matrix(blk + "ffn_up.weight"),
                          read.matrix(blk + "ffn_down.weight"),
                          {},
                          {},
                          {}});
  }
  Ranges ranges = Ranges::none(h.n_layers);
  const size_t n_windows = std::min<uint64_t>(std::max<uint64_t>(1, options.max_windows),
                                              (tokens.size() + options.window - 1) / options.window);
  for (size_t w = 0; w < n_windows; ++w) {
    const std::span<const TokenId> part = tokens.subspan(w * options.window);
    std::vector<TokenId> window(part.begin(),
                                part.begin() + static_cast<long>(std::min<size_t>(part.size(), options.window)));
    if (engine.tokenizer().adds_bos()) window.front() = *engine.tokenizer().bos();
    widen_ranges(out, window, ranges);
    progress(w + 1, n_windows);
  }
  set_ranges(out, ranges);
  return out;
}

}  // namespace mneme::integer
