#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "budget/ledger.h"
#include "cli/commands.h"
#include "cli/input_text.h"
#include "model/tokenizer/tokenizer.h"
#include "weights/model_file.h"

namespace mneme::cli {
namespace {

struct Options {
  std::string model, text;
  bool from_stdin = false, no_special = false, parse_special = false;
};

/// A piece as JSON: its text, or its bytes where it is a part of a character only.
Json piece_json(std::string_view piece) {
  if (is_valid_utf8(piece)) return piece;
  Json bytes = Json::array();
  for (const char byte : piece) bytes.push_back(static_cast<unsigned char>(byte));
  return bytes;
}

void tokenize(const Options& options, const GlobalOptions& global) {
  Ledger ledger;
  const ModelFile file = open_model(options.model, ledger);
  const auto tokenizer = Tokenizer::load(file.metadata());
  const std::string text = options.from_stdin ? read_stdin() : options.text;
  const std::vector<TokenId> ids =
      tokenizer->encode(text, {.add_special = !options.no_special, .parse_special = options.parse_special});
  if (!global.json) {
    fmt::print("{}\n", fmt::join(ids, " "));
    return;
  }
  Json pieces = Json::array();
  for (const TokenId id : ids) pieces.push_back(piece_json(tokenizer->piece(id, true)));
  fmt::print("{}\n", Json{{"tokens", ids}, {"pieces", pieces}}.dump());
}

}  // namespace

void add_tokenize(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("tokenize", "Print the token ids of a text");
  command->add_option("MODEL", options->model, "Model file; one that holds only a vocabulary is enough")->required();
  auto* text = command->add_option("TEXT", options->text, "Text to tokenize");
  auto* from_stdin = command->add_flag("--stdin", options->from_stdin, "Tokenize standard input, to its last byte");
  text->excludes(from_stdin);
  command->add_flag("--no-special", options->no_special,
                    "Leave out BOS, EOS and SEP (default: added where the model asks for them)");
  command->add_flag("--parse-special", options->parse_special,
                    "Turn the spellings of control tokens into these tokens (default: they are plain text)");
  command->footer(
      "Prints ids separated by spaces; with --json also the piece of each, as a list of bytes where it is only a part\n"
      "of a character. Example: mneme tokenize model.gguf \"Once upon a time\"");
  command->callback([options, text, &global] {
    if (!options->from_stdin && text->count() == 0) {
      fail(ErrorCode::kInvalidArgument, "[tokenize] expected TEXT or --stdin");
    }
    tokenize(*options, global);
  });
}

}  // namespace mneme::cli
