#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "budget/ledger.h"
#include "cli/commands.h"
#include "cli/escaped.h"
#include "cli/input_text.h"
#include "model/tokenizer/tokenizer.h"
#include "weights/model_file.h"

namespace mneme::cli {
namespace {

struct Options {
  std::string model;
  std::vector<std::string> ids;
  bool from_stdin = false, special = false;
};

/// Ids separated by white space or commas.
void parse_ids(std::string_view text, std::vector<TokenId>& ids) {
  constexpr std::string_view kSeparators = " \t\r\n,";
  for (;;) {
    text.remove_prefix(std::min(text.find_first_not_of(kSeparators), text.size()));
    if (text.empty()) return;
    const std::string_view word = text.substr(0, text.find_first_of(kSeparators));
    TokenId id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size()) {
      fail(ErrorCode::kInvalidArgument, "[detokenize] expected token ids, found '{}'", escaped(word.substr(0, 40)));
    }
    ids.push_back(id);
    text.remove_prefix(word.size());
  }
}

void detokenize(const Options& options, const GlobalOptions& global) {
  std::vector<TokenId> ids;
  if (options.from_stdin) parse_ids(read_stdin(), ids);
  for (const std::string& words : options.ids) parse_ids(words, ids);
  Ledger ledger;
  const ModelFile file = open_model(options.model, ledger);
  const auto tokenizer = Tokenizer::load(file.metadata());
  const std::string text = tokenizer->detokenize(ids, !options.special, options.special);
  if (global.json) {
    fmt::print("{}\n", Json{{"text", text}}.dump(-1, ' ', false, Json::error_handler_t::replace));
    return;
  }
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (isatty(STDOUT_FILENO) != 0 && !text.empty() && text.back() != '\n') std::fputc('\n', stdout);
}

}  // namespace

void add_detokenize(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("detokenize", "Print the text of token ids");
  command->add_option("MODEL", options->model, "Model file; one that holds only a vocabulary is enough")->required();
  auto* ids = command->add_option("IDS", options->ids, "Token ids, separated by spaces or commas");
  auto* from_stdin = command->add_flag("--stdin", options->from_stdin, "Read the ids from standard input");
  ids->excludes(from_stdin);
  command->add_flag("--special", options->special, "Show control tokens (default: they are left out)");
  command->footer(
      "Prints the text as it is, without a line end of its own when the output is no terminal, so that what tokenize\n"
      "reads comes back. Example: mneme detokenize model.gguf 9038 2501 263 931");
  command->callback([options, ids, &global] {
    if (!options->from_stdin && ids->count() == 0) {
      fail(ErrorCode::kInvalidArgument, "[detokenize] expected IDS or --stdin");
    }
    detokenize(*options, global);
  });
}

}  // namespace mneme::cli
