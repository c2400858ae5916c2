#include "recall/open_embedder.h"

#include <cstdlib>

#include "recall/gguf_embedder.h"
#include "recall/remote_embedder.h"
#include "weights/store/http_client.h"

namespace mneme::recall {

std::unique_ptr<Embedder> open_embedder(const std::string& name, Ledger& ledger) {
  if (is_http_url(name)) {
    RemoteEmbedderOptions options;
    if (const char* key = std::getenv("MNEME_EMBED_KEY"); key != nullptr) options.key = key;
    return std::make_unique<RemoteEmbedder>(name, options);
  }
  return std::make_unique<GgufEmbedder>(name, ledger);
}

}  // namespace mneme::recall
