#pragma once

#include <string>

#include "engine/chat_session.h"
#include "eval/kv_guard.h"

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

/// Watches what `--kv auto` chose during a chat: after an answer, when it is time, looks whether the bound holds on the
/// dialogue. When it does not, the dialogue goes on with a larger form, which is remembered in place of the first choice,
/// and the person is told on stderr.
class KvWatch {
 public:
  static constexpr uint32_t kWindow = 512;  ///< PlanRequest::guard_tokens that it wants.

  /// `engine` must outlive the watch. `in_session`: the dialogue is saved under its policy, which is then kept.
  KvWatch(Engine& engine, const KvAutoOptions& options, bool in_session);

  void after_answer(ChatSession& session);

 private:
  KvAutoOptions options_;
  bool in_session_;
  KvGuard guard_;
  bool quiet_ = false;  ///< There was something that need not be said twice.
};

}  // namespace mneme::cli
