#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/input_text.h"
#include "cli/model_options.h"
#include "engine/embedding.h"

namespace mneme::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string text, pooling;
  bool from_stdin = false, raw = false;
};

void print_embeddings(const Options& options, const GlobalOptions& global) {
  std::vector<std::string> texts;
  if (options.from_stdin) {
    texts = split_lines(read_stdin());
  } else {
    texts.push_back(options.text);
  }
  if (texts.empty()) fail(ErrorCode::kInvalidArgument, "[embed] expected at least one line of text on standard input");
  EmbeddingOptions embedding;
  embedding.normalise = !options.raw;
  if (!options.pooling.empty()) embedding.pooling = parse_pooling(options.pooling);
  Ledger ledger;
  const auto engine = Engine::load(options.model.model, options.model.request(), ledger);
  Json all = Json::array();
  for (const std::string& text : texts) {
    const std::vector<TokenId> tokens = engine->tokenizer().encode(text, {true, false});
    const std::vector<float> vector = embed(*engine, tokens, embedding);
    if (global.json) {
      all.push_back({{"embedding", vector}, {"tokens", tokens.size()}});
    } else {
      fmt::print("{}\n", fmt::join(vector, " "));
    }
  }
  if (global.json) fmt::print("{}\n", all.dump());
}

}  // namespace

void add_embed(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("embed", "Turn texts into vectors");
  options->model.add_to(*command);
  auto* text = command->add_option("TEXT", options->text, "Text to embed");
  auto* from_stdin = command->add_flag("--stdin", options->from_stdin, "Embed each line of standard input");
  text->excludes(from_stdin);
  command->add_option("--pooling", options->pooling, "mean, cls or last (default: the model's own)");
  command->add_flag("--no-normalise", options->raw, "Leave vectors at their own length");
  command->footer("Prints one vector a line. Example: mneme embed bge.gguf \"a small machine\" --json");
  command->callback([options, text, &global] {
    if (!options->from_stdin && text->count() == 0) {
      fail(ErrorCode::kInvalidArgument, "[embed] expected TEXT or --stdin");
    }
    print_embeddings(*options, global);
  });
}

}  // namespace mneme::cli
