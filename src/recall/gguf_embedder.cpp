#include "recall/gguf_embedder.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "engine/embedding.h"

namespace mneme::recall {

GgufEmbedder::GgufEmbedder(const std::string& path, Ledger& ledger) {
  engine_ = Engine::load(path, PlanRequest{.memory = 0, .context = {}, .batch = {}}, ledger);
  dimension_ = static_cast<uint32_t>(embed(std::vector<std::string>{"a"}, Role::kPassage).front().size());
  std::error_code ignored;
  const auto bytes = std::filesystem::is_regular_file(path, ignored) ? std::filesystem::file_size(path, ignored) : 0;
  name_ = fmt::format("{}:{}:{}", std::filesystem::path(path).filename().string(), bytes, dimension_);
}

std::vector<std::vector<float>> GgufEmbedder::embed(std::span<const std::string> texts, Role) {
  // Room for what the model puts around a text.
  const size_t most = static_cast<size_t>(std::max<uint64_t>(engine_->plan().context, 16)) - 2;
  std::vector<std::vector<float>> vectors;
  for (const std::string& text : texts) {
    std::vector<TokenId> tokens = engine_->tokenizer().encode(text, {true, false});
    if (tokens.empty()) fail(ErrorCode::kInvalidArgument, "[embed] expected a text of at least one token, found none");
    std::vector<float> sum;
    for (size_t begin = 0; begin < tokens.size(); begin += most) {
      const auto piece = std::span(tokens).subspan(begin, std::min(most, tokens.size() - begin));
      const std::vector<float> vector = mneme::embed(*engine_, piece, {});
      sum.resize(vector.size());
      for (size_t i = 0; i < vector.size(); ++i) sum[i] += vector[i] * static_cast<float>(piece.size());
    }
    vectors.push_back(std::move(sum));
  }
  return vectors;
}

}  // namespace mneme::recall
