#include "eval/drawn_context.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "context/kv_layer.h"
#include "eval/repeated_context.h"

namespace mneme {
namespace {

/// Tokens of the text that rows are taken from: more than any usual tail in full precision and a page.
constexpr uint32_t kTextTokens = 4 * static_cast<uint32_t>(kPageTokens);

/// Keys and values of some tokens of a layer.
struct Rows {
  size_t key_width = 0, value_width = 0;
  std::vector<float> keys, values;  ///< [tokens, width].
  const RopeSpec* rope = nullptr;
};

/// Passes everything on to a store, and keeps the rows of the newest kPageTokens tokens.
class Recorder : public KvLayer {
 public:
  Recorder(KvLayer& store, const KvShape& shape, Rows& rows) : store_(store), rows_(rows) {
    rows_.key_width = size_t{shape.n_kv_heads} * shape.key_dim;
    rows_.value_width = size_t{shape.n_kv_heads} * shape.value_dim;
  }

  void reserve(size_t n_tokens) override { store_.reserve(n_tokens); }
  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override {
    append(rows.k, rows.k_stride, rows.n_tokens, rows_.key_width, rows_.keys);
    append(rows.v, rows.v_stride, rows.n_tokens, rows_.value_width, rows_.values);
    rows_.rope = rows.angles != nullptr ? &rows.angles->spec() : nullptr;
    store_.extend(rows, queries, out, out_stride);
  }
  uint64_t bytes() const override { return store_.bytes(); }
  int64_t n_tokens() const override { return store_.n_tokens(); }
  std::string_view trouble() const override { return store_.trouble(); }
  bool truncate(int64_t) override { return false; }
  std::unique_ptr<LayerState> copy(CopyScope&) const override {
    fail(ErrorCode::kUnsupported, "[copy] a state that is recorded cannot be copied");
  }
  bool save_rest(int64_t, StateWriter&) const override { return false; }
  void load_rest(StateReader&) override {
    fail(ErrorCode::kUnsupported, "[load] a state that is recorded cannot be loaded");
  }

 private:
  static void append(const float* rows, size_t stride, size_t n, size_t width, std::vector<float>& out) {
    for (size_t t = 0; t < n; ++t) out.insert(out.end(), rows + t * stride, rows + t * stride + width);
    const size_t most = static_cast<size_t>(kPageTokens) * width;
    if (out.size() > most) out.erase(out.begin(), out.end() - static_cast<std::ptrdiff_t>(most));
  }

  KvLayer& store_;
  Rows& rows_;
};

/// The stores of a state's layers, null for layers that keep nothing.
std::vector<KvLayer*> stores_of(SequenceState& state) {
  std::vector<KvLayer*> stores;
  for (LayerState* layer : state.layers()) {
    auto* const store = dynamic_cast<KvLayer*>(layer);
    if (layer != nullptr && (store == nullptr || store->needs_queries())) {
      fail(ErrorCode::kUnsupported,
           "[draw context] layer {}: expected keys and values that can be stored without queries, found a state that "
           "depends on them; compute the context",
           stores.size());
    }
    stores.push_back(store);
  }
  return stores;
}

/// Computes a text in the stores and returns its last rows.
std::vector<Rows> compute_text(Engine& engine, std::span<KvLayer* const> stores) {
  std::vector<Rows> rows(stores.size());
  std::vector<std::unique_ptr<LayerState>> recorders(stores.size());
  for (size_t i = 0; i < stores.size(); ++i) {
    if (stores[i] == nullptr) continue;
    recorders[i] = std::make_unique<Recorder>(*stores[i], engine.model().blocks[i].mixer->kv_shape().value(), rows[i]);
  }
  SequenceState recorded(std::move(recorders));
  engine.run(recorded, random_tokens(engine.model(), kTextTokens), [](size_t, size_t, const float*) {});
  return rows;
}

/// Appends tokens of the rows `drawn` at the positions from `first` on.
void append(KvLayer& store, const Rows& rows, std::span<const size_t> drawn, size_t first) {
  std::vector<float> keys, values;
  for (const size_t row : drawn) {
    const auto key = rows.keys.begin() + static_cast<std::ptrdiff_t>(row * rows.key_width);
    const auto value = rows.values.begin() + static_cast<std::ptrdiff_t>(row * rows.value_width);
    keys.insert(keys.end(), key, key + static_cast<std::ptrdiff_t>(rows.key_width));
    values.insert(values.end(), value, value + static_cast<std::ptrdiff_t>(rows.value_width));
  }
  RopeAngles angles;
  if (rows.rope != nullptr) {
    std::vector<int32_t> positions(drawn.size());
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(first));
    angles = RopeAngles(*rows.rope, positions);
  }
  store.reserve(drawn.size());
  store.extend({keys.data(), values.data(), rows.key_width, rows.value_width, drawn.size(),
                rows.rope != nullptr ? &angles : nullptr, 0},
               {nullptr, 0, 0, 1.0f}, nullptr, 0);
}

}  // namespace

void draw_context(Engine& engine, SequenceState& state, uint32_t n_tokens) {
  if (n_tokens <= kTextTokens) {
    engine.run(state, random_tokens(engine.model(), n_tokens), [](size_t, size_t, const float*) {});
    return;
  }
  const std::vector<KvLayer*> stores = stores_of(state);
  const std::vector<Rows> rows = compute_text(engine, stores);
  state.advance(kTextTokens);
  PhiloxStream random(43);
  for (uint32_t first = kTextTokens; first < n_tokens;) {
    // All layers take a piece before any takes the next: some build on each other.
    std::vector<size_t> drawn(std::min(engine.plan().batch, n_tokens - first));
    for (size_t& row : drawn) row = random.next_below(static_cast<uint32_t>(kPageTokens));
    for (size_t i = 0; i < stores.size(); ++i) {
      if (stores[i] != nullptr) append(*stores[i], rows[i], drawn, first);
    }
    state.advance(static_cast<int64_t>(drawn.size()));
    first += static_cast<uint32_t>(drawn.size());
    if (const std::string trouble = state.trouble(); !trouble.empty()) throw Error(ErrorCode::kIo, trouble);
  }
}

}  // namespace mneme
