#pragma once

#include <memory>
#include <string>

#include "budget/ledger.h"
#include "recall/embedder.h"

namespace mneme::recall {

/// The embedder that a user names:
///   https://HOST/v1#MODEL   an OpenAI-compatible server (remote_embedder.h), its key in $MNEME_EMBED_KEY
///   builtin                 the word vectors that come with mneme (static_embedder.h)
///   anything else           a GGUF file of either kind, or the name of a pulled model (gguf_embedder.h)
/// Its memory is counted in `ledger`, which must outlive it. Throws Error.
std::unique_ptr<Embedder> open_embedder(const std::string& name, Ledger& ledger);

}  // namespace mneme::recall
