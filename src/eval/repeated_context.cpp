#include "eval/repeated_context.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/philox.h"
#include "eval/drawn_context.h"

namespace mneme {
namespace {

/// Tokens of the text that a page is taken from: more than any usual tail in full precision and a page.
constexpr uint32_t kTextTokens = 4 * static_cast<uint32_t>(kPageTokens);

class Bytes : public StateWriter {
 public:
  void write(std::span<const std::byte> bytes) override { data.insert(data.end(), bytes.begin(), bytes.end()); }
  std::vector<std::byte> data;
};

void compute(Engine& engine, SequenceState& state, uint32_t n) {
  if (n > 0) engine.run(state, random_tokens(engine.model(), n), [](size_t, size_t, const float*) {});
}

/// What a text leaves in a state that consists of pages from the first token on.
struct Text {
  std::vector<std::vector<std::byte>> first_pages;  ///< Of every layer; empty for layers without a state.
  uint32_t n_open = 0;  ///< Tokens behind the last page, of the layer with the fewest pages.
};

/// Whether a state may consist of pages from the first token on, before there are any.
bool may_be_pages(const SequenceState& state) {
  for (size_t i = 0; i < state.n_layers(); ++i) {
    if (state.layer(i) != nullptr && state.layer(i)->first_page(int64_t{1} << 30) > 0) return false;
  }
  return true;
}

/// Nothing when the state does not.
std::optional<Text> compute_text(Engine& engine, uint32_t n_tokens) {
  const std::unique_ptr<SequenceState> state = engine.make_state();
  compute(engine, *state, n_tokens);
  Text text;
  for (LayerState* layer : state->layers()) {
    Bytes page;
    if (layer != nullptr) {
      const PageRange sealed = layer->sealed_pages();
      if (sealed.begin > 0 || sealed.end == 0) return std::nullopt;
      layer->save_page(0, page);
      text.n_open = std::max(text.n_open, n_tokens - static_cast<uint32_t>(sealed.end * kPageTokens));
    }
    text.first_pages.push_back(std::move(page.data));
  }
  return text;
}

}  // namespace

std::vector<TokenId> random_tokens(const Model& model, size_t n) {
  PhiloxStream random(42);
  std::vector<TokenId> tokens(n);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random.next_below(model.hyper.n_vocab));
  return tokens;
}

void repeat_context(Engine& engine, SequenceState& state, uint32_t n_tokens) {
  if (n_tokens <= 2 * kTextTokens) return compute(engine, state, n_tokens);
  if (!may_be_pages(state)) return draw_context(engine, state, n_tokens);
  // As far from the end of a page as the whole: as many tokens are open behind the last one.
  const std::optional<Text> text = compute_text(engine, kTextTokens + n_tokens % kPageTokens);
  if (!text) return draw_context(engine, state, n_tokens);
  const int64_t n_pages = (n_tokens - text->n_open) / kPageTokens;
  const std::vector<LayerState*> layers = state.layers();
  for (size_t i = 0; i < layers.size(); ++i) {
    for (int64_t page = 0; layers[i] != nullptr && page < n_pages; ++page) {
      StateReader in(text->first_pages[i], "repeated page");
      layers[i]->load_page(page, in);
    }
  }
  state.advance(n_pages * kPageTokens);
  compute(engine, state, text->n_open);
}

std::unique_ptr<SequenceState> separate_copy(const Engine& engine, const SequenceState& state) {
  if (!state.shares_pages()) return state.deep_copy();
  std::unique_ptr<SequenceState> copy = engine.make_state();
  std::vector<PageRange> pages(state.n_layers());
  int64_t last = 0;
  for (size_t i = 0; i < state.n_layers(); ++i) {
    if (state.layer(i) != nullptr) pages[i] = state.layer(i)->sealed_pages();
    last = std::max(last, pages[i].end);
  }
  for (int64_t page = 0; page < last; ++page) {  // of all layers before the next: some build on each other
    for (size_t i = 0; i < state.n_layers(); ++i) {
      if (page < pages[i].begin || page >= pages[i].end) continue;
      Bytes bytes;
      state.layer(i)->save_page(page, bytes);
      StateReader in(bytes.data, "copied page");
      copy->layer(i)->load_page(page, in);
    }
  }
  for (size_t i = 0; i < state.n_layers(); ++i) {
    if (state.layer(i) == nullptr) continue;
    Bytes bytes;
    if (!state.layer(i)->save_rest(state.n_tokens(), bytes)) {
      fail(ErrorCode::kUnsupported, "[copy context] layer {}: expected a state that can be saved", i);
    }
    StateReader in(bytes.data, "copied rest");
    copy->layer(i)->load_rest(in);
  }
  copy->advance(state.n_tokens());
  return copy;
}

}  // namespace mneme
