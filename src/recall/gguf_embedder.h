#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"
#include "recall/embedder.h"

namespace mneme::recall {

/// An embedding model (GGUF) as an Embedder. A text longer than the model's context is embedded in pieces, whose mean it
/// gets. The model's name is its file name, size and width, so that another file of that name is noticed.
class GgufEmbedder final : public Embedder {
 public:
  /// Loads the model into the budget of `ledger`, which must outlive this. Throws Error.
  GgufEmbedder(const std::string& path, Ledger& ledger);

  const std::string& model() const override { return name_; }
  uint32_t dimension() const override { return dimension_; }
  std::vector<std::vector<float>> embed(std::span<const std::string> texts, Role role) override;

 private:
  std::unique_ptr<Engine> engine_;
  std::string name_;
  uint32_t dimension_ = 0;
};

}  // namespace mneme::recall
