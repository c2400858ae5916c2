#include "recall/open_embedder.h"

#include <cstdlib>

#include "recall/gguf_embedder.h"
#include "recall/remote_embedder.h"
#include "recall/static_embedder.h"
#include "weights/store/http_client.h"

namespace mneme::recall {

std::unique_ptr<Embedder> open_embedder(const std::string& name, Ledger& ledger) {
  if (is_http_url(name)) {
    RemoteEmbedderOptions options;
    if (const char* key = std::getenv("MNEME_EMBED_KEY"); key != nullptr) options.key = key;
    return std::make_unique<RemoteEmbedder>(name, options);
  }
  if (name == "builtin") return std::make_unique<StaticEmbedder>(builtin_embedder_path());
  if (name.ends_with(".gguf") && StaticEmbedder::is_model(name)) return std::make_unique<StaticEmbedder>(name);
  return std::make_unique<GgufEmbedder>(name, ledger);
}

}  // namespace mneme::recall
