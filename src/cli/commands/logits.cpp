#include <charconv>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "engine/engine.h"

namespace mneme::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string tokens, out;
};

/// "1 2 3" or "1,2,3".
std::vector<TokenId> parse_tokens(const std::string& text) {
  std::vector<TokenId> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    if (*at == ' ' || *at == ',' || *at == '\n' || *at == '\t') {
      ++at;
      continue;
    }
    TokenId id = 0;
    const auto [rest, status] = std::from_chars(at, end, id);
    if (status != std::errc{}) {
      fail(ErrorCode::kInvalidArgument, "[logits] expected token ids separated by blanks, found '{}'",
           std::string_view(at, static_cast<size_t>(end - at)).substr(0, 20));
    }
    ids.push_back(id);
    at = rest;
  }
  if (ids.empty()) fail(ErrorCode::kInvalidArgument, "[logits] expected at least one token id");
  return ids;
}

void write_logits(const Options& options, const GlobalOptions& global) {
  const std::vector<TokenId> tokens = parse_tokens(options.tokens);
  Ledger ledger;
  PlanRequest request = options.model.request();
  const auto engine = Engine::load(options.model.model, request, ledger);
  const Model& model = engine->model();
  if (!model.output) fail(ErrorCode::kUnsupported, "[logits] {} is an encoder and has no logits", options.model.model);
  const size_t n_vocab = model.hyper.n_vocab;
  const auto state = engine->make_state();
  AtomicFile file(options.out);
  engine->run(*state, tokens, [&](size_t, size_t n, const float* hidden) {
    for (size_t row = 0; row < n; ++row) {  // one row at a time: a pass plans memory for few logits
      const Workspace::Scope scope(engine->workspace());
      float* const out = engine->workspace().floats(model.n_logits());
      model.logits(hidden, {&row, 1}, engine->workspace(), out);
      file.write(std::as_bytes(std::span(out, n_vocab)));
    }
  });
  file.commit();
  if (global.json) {
    fmt::print("{}\n", Json{{"tokens", tokens.size()}, {"n_vocab", n_vocab}, {"out", options.out}}.dump());
  }
}

}  // namespace

void add_logits(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("logits", "Write the logits of all positions of a token sequence");
  options->model.add_to(*command);
  command->add_option("--tokens", options->tokens, "Token ids separated by blanks")->required();
  command->add_option("--out", options->out, "File of little-endian f32, tokens x vocabulary")->required();
  command->footer("Example: mneme logits model.gguf --tokens \"1 403 407\" --out logits.f32 --kv f32");
  command->callback([options, &global] { write_logits(*options, global); });
}

}  // namespace mneme::cli
