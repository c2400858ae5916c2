#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "recall/embedder.h"

namespace mneme {
class HttpClient;
}

namespace mneme::recall {

struct RemoteEmbedderOptions {
  std::string key;                ///< Sent as a bearer token; never over plain HTTP to another machine.
  size_t most_texts = 64;         ///< Of one request,
  size_t most_bytes = 256 << 10;  ///< and their bytes together, unless a single text has more.
  long seconds = 120;             ///< Until an answer must be there.
  int attempts = 5;               ///< Of each request.
  std::function<void(int)> wait;  ///< Between attempts, milliseconds; default: sleeps.
};

/// The `n` vectors of a server's answer in the order of their indexes, each of `dimension` numbers (0: all of as many
/// as the first). Throws Error(kCorruptData) with `what`, the source, for anything else.
std::vector<std::vector<float>> parse_embeddings(std::string_view answer, size_t n, uint32_t dimension,
                                                 std::string_view what);

/// Embeddings of a server that speaks OpenAI's protocol: POST URL/embeddings with {"model", "input": [...],
/// "encoding_format": "float"}, answered by {"data": [{"index", "embedding": [...]}, ...]}. Texts go in batches. A lost
/// connection, a time-out and the statuses 408, 429 and 5xx are tried again after 0.5, 1, 2, 4 seconds, or after what
/// Retry-After says, up to 30 seconds. Everything in an answer is checked: number and order of the vectors, their
/// dimension, every value.
class RemoteEmbedder final : public Embedder {
 public:
  /// `name`: "https://HOST[:PORT]/PATH#MODEL". Asks the server for the dimension. Throws Error.
  RemoteEmbedder(const std::string& name, RemoteEmbedderOptions options);
  ~RemoteEmbedder() override;

  /// The name without a '/' before '#'. Two servers under one name must give the same vectors.
  const std::string& model() const override { return name_; }
  uint32_t dimension() const override { return dimension_; }
  std::vector<std::vector<float>> embed(std::span<const std::string> texts, Role role) override;

 private:
  std::string post(const std::string& body);

  RemoteEmbedderOptions options_;
  std::string name_, url_, model_;
  uint32_t dimension_ = 0;
  std::unique_ptr<HttpClient> client_;
};

}  // namespace mneme::recall
