#pragma once

#include <string>

namespace mneme::cli {

/// What `--kv auto` measures with.
struct KvAutoOptions {
  std::string model, memory, text_file;  ///< No text file: text that the model makes up.
  double bound = 0.02;                   ///< Mean KL divergence from f16, in nats a token.
  bool pack = true;
};

/// The policy that `--kv auto` stands for: the smallest one within the bound, measured on this model the first time and
/// remembered beside the pulled models. Says on stderr what it chose and why. Throws Error.
std::string resolve_kv_auto(const KvAutoOptions& options);

}  // namespace mneme::cli
