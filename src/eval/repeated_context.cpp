#include "eval/repeated_context.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/philox.h"

namespace mneme {
namespace {

/// Tokens computed for the page, and again at the end: more than any tail in full precision.
constexpr uint32_t kComputed = 4 * static_cast<uint32_t>(kPageTokens);

class Bytes : public StateWriter {
 public:
  void write(std::span<const std::byte> bytes) override { data.insert(data.end(), bytes.begin(), bytes.end()); }
  std::vector<std::byte> data;
};

void compute(Engine& engine, SequenceState& state, uint32_t n) {
  if (n > 0) engine.run(state, random_tokens(engine.model(), n), [](size_t, size_t, const float*) {});
}

/// The first page of every layer after the text of kComputed tokens; empty for layers without a state.
std::vector<std::vector<std::byte>> first_pages(Engine& engine) {
  const std::unique_ptr<SequenceState> text = engine.make_state();
  compute(engine, *text, kComputed);
  std::vector<std::vector<std::byte>> pages;
  for (LayerState* layer : text->layers()) {
    Bytes page;
    if (layer != nullptr) {
      const PageRange sealed = layer->sealed_pages();
      if (sealed.begin > 0 || sealed.end == 0 || layer->first_page(int64_t{1} << 30) > 0) {
        fail(ErrorCode::kUnsupported,
             "[repeat context] expected a state of pages from the first token on, found one that is not; compute the "
             "context");
      }
      layer->save_page(0, page);
    }
    pages.push_back(std::move(page.data));
  }
  return pages;
}

}  // namespace

std::vector<TokenId> random_tokens(const Model& model, size_t n) {
  PhiloxStream random(42);
  std::vector<TokenId> tokens(n);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random.next_below(model.hyper.n_vocab));
  return tokens;
}

void repeat_context(Engine& engine, SequenceState& state, uint32_t n_tokens) {
  if (n_tokens <= 2 * kComputed) return compute(engine, state, n_tokens);
  const std::vector<std::vector<std::byte>> pages = first_pages(engine);
  const int64_t n_pages = (n_tokens - kComputed) / kPageTokens;
  const std::vector<LayerState*> layers = state.layers();
  for (size_t i = 0; i < layers.size(); ++i) {
    for (int64_t page = 0; layers[i] != nullptr && page < n_pages; ++page) {
      StateReader in(pages[i], "repeated page");
      layers[i]->load_page(page, in);
    }
  }
  state.advance(n_pages * kPageTokens);
  compute(engine, state, n_tokens - static_cast<uint32_t>(n_pages * kPageTokens));
}

}  // namespace mneme
