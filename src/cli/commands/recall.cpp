#include <fmt/format.h>

#include <memory>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cli/commands.h"
#include "cli/store_access.h"
#include "model/tokenizer/tokenizer.h"
#include "recall/result_json.h"
#include "recall/time_text.h"
#include "weights/model_file.h"

namespace mneme::cli {
namespace {

struct Options {
  StoreAccess access;
  FilterOptions filter;
  std::string text, as_of, weights, vocabulary;
  size_t k = 10;
  uint64_t tokens = 0;
  double diversity = 0.3;
  bool explain = false, no_count = false;
};

void recall_memories(Options& options, const GlobalOptions& global) {
  recall::Query query;
  query.text = options.text;
  query.scope = options.access.scope;
  query.filter = options.filter.filter(query.scope);
  query.k = options.k;
  query.diversity = options.diversity;
  if (options.tokens > 0) query.token_budget = options.tokens;
  if (!options.as_of.empty()) query.as_of = recall::parse_time(options.as_of);
  if (!options.weights.empty()) {
    query.weights = recall::search_weights_from_json(parse_json(read_text_file(options.weights), options.weights));
  }
  Ledger ledger;
  std::unique_ptr<Tokenizer> tokenizer;
  if (!options.vocabulary.empty()) {
    const ModelFile file = open_model(options.vocabulary, ledger);
    tokenizer = Tokenizer::load(file.metadata());
    query.count_tokens = [&](std::string_view text) { return tokenizer->encode(text, {false, false}).size(); };
  }
  recall::Store& store = options.access.open(false);
  const recall::SearchResult result = search(store, query);
  if (!options.no_count && !query.as_of) {
    std::vector<std::string> ids;
    for (const recall::Hit& hit : result.hits) ids.push_back(hit.record.id);
    store.touch(query.scope, ids);
  }
  if (global.json) {
    fmt::print("{}\n", to_json(result, options.explain).dump());
    return;
  }
  for (const recall::Hit& hit : result.hits) {
    fmt::print("{}\n", record_line(hit.record));
    if (options.explain) fmt::print("    score {:.5f}  {}\n", hit.score, to_json(hit.why).dump());
  }
  if (options.explain && !result.vectors.way.empty()) {
    fmt::print("    vectors {}\n", to_json(result.vectors).dump());
  }
  if (result.hits.empty()) fmt::print(stderr, "nothing found\n");
}

}  // namespace

void add_recall(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("recall", "Search long-term memory");
  command->add_option("QUERY", options->text, "What to look for; without it, the newest memories");
  options->access.add_to(*command, true);
  command->add_option("-k", options->k, "Most results (default: 10)")->check(CLI::Range(1, 10000));
  command->add_option("--tokens", options->tokens, "Fill at most this many tokens");
  command->add_option("--vocabulary", options->vocabulary,
                      "Model whose tokens are counted (default: an estimate, 3 bytes each)");
  command->add_option("--diversity", options->diversity, "0: best first; 1: as different as can be (default: 0.3)")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--as-of", options->as_of, "Search the memory as it was at this time");
  command->add_option("--weights", options->weights,
                      "JSON file with weights of words, vectors, names, links, recency, context, ...");
  command->add_flag("--explain", options->explain, "Say why each was found, and what the search for vectors cost");
  command->add_flag("--no-count", options->no_count, "Do not count this as a use of what is found");
  options->filter.add_to(*command);
  command->footer(
      "Finds by words, names, links and, with --embed, by meaning; only in the memory of one user. Example:\n"
      "  mneme recall \"daughter\" --user bo --tokens 800");
  command->callback([options, &global] { recall_memories(*options, global); });
}

}  // namespace mneme::cli
