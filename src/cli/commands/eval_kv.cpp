#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/fetch_counts.h"
#include "cli/commands.h"
#include "cli/kv_basis_store.h"
#include "cli/model_options.h"
#include "eval/kv_quality.h"
#include "eval/kv_recall.h"
#include "train/data/sources.h"

namespace mneme::cli {
namespace {

struct KvCommand {
  ModelOptions model;
  std::string file, books;
  std::vector<std::string> policies = {"kivi:4", "kivi:2", "token:4", "token:2", "bfp:4", "mikv", "h2o", "think:0.5", "window:512"};
  KvQualityOptions quality;
  KvRecallOptions recall;
};

void run_kv(const KvCommand& command, const GlobalOptions& global) {
  std::vector<KvPolicy> policies;
  for (const std::string& name : command.policies) {
    policies.push_back(KvPolicy::parse(name));
    give_bases(policies.back(), command.model.kv_auto());
  }
  const bool asks = !command.books.empty();
  const std::string text = read_text_file(command.file);

  Ledger ledger;
  PlanRequest request = command.model.request();
  request.n_sequences = static_cast<uint32_t>(policies.size()) + 1;
  if (!request.context && !asks) request.context = command.quality.window;
  const auto engine = Engine::load(command.model.model, request, ledger);
  const std::vector<TokenId> tokens = engine->tokenizer().encode(text, {false, false});

  Progress windows("quality", std::max<uint64_t>(1, command.quality.max_windows), "windows");
  const std::vector<KvQuality> qualities = measure_kv_quality(*engine, tokens, policies, command.quality,
                                                              [&](uint64_t done, uint64_t) { windows.update(done); });
  std::vector<double> recalled;
  uint32_t n_probes = 0;
  if (asks) {
    const train::DataSources sources = train::open_sources({train::recipe_path(command.books), {}, {}}, {});
    policies.insert(policies.begin(), KvPolicy::parse("f16"));
    Progress questions("recall", uint64_t{command.recall.probes} * policies.size(), "questions");
    for (size_t i = 0; i < policies.size(); ++i) {
      const KvRecall recall = measure_kv_recall(*engine, policies[i], *sources.texts, command.recall, [&](uint64_t done, uint64_t) {
        questions.update(i * command.recall.probes + done);
      });
      recalled.push_back(recall.recalled);
      n_probes = recall.n_probes;
    }
  }
  if (global.json) {
    Json rows = Json::array();
    for (size_t i = 0; i < qualities.size(); ++i) {
      const KvQuality& q = qualities[i];
      Json row{{"policy", q.policy},
               {"bytes", q.bytes},
               {"plain_bytes", q.plain_bytes},
               {"perplexity", q.perplexity},
               {"plain_perplexity", q.plain_perplexity},
               {"kl_divergence", q.divergence},
               {"same_choice", q.same_choice},
               {"tokens_scored", q.n_scored}};
      if (q.fetches.wanted > 0) {
        row["kv_fetches"] = fetch_json(q.fetches);
      }
      if (asks) row["recalled"] = recalled[i + 1];
      rows.push_back(row);
    }
    Json out{{"window", command.quality.window}, {"policies", rows}};
    if (asks) out["recall"] = {{"distance", command.recall.distance}, {"probes", n_probes}, {"f16", recalled[0]}};
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("windows of {} tokens, {} scored; perplexity with f16: {:.4f}, {} a sequence\n", command.quality.window,
             qualities[0].n_scored, qualities[0].plain_perplexity, format_byte_size(qualities[0].plain_bytes));
  if (asks) fmt::print("recall: {} facts told {} tokens before; with f16: {:.1f} %\n", n_probes, command.recall.distance, 100 * recalled[0]);
  fmt::print("{:<34} {:>9} {:>10} {:>10} {:>8}{}\n", "policy", "of f16", "perplexity", "KL, nats", "same", asks ? "  recalled" : "");
  for (size_t i = 0; i < qualities.size(); ++i) {
    const KvQuality& q = qualities[i];
    fmt::print("{:<34} {:>8.1f}% {:>+9.2f}% {:>10.5f} {:>7.2f}%", q.policy,
               100 * static_cast<double>(q.bytes) / static_cast<double>(q.plain_bytes),
               100 * (q.perplexity / q.plain_perplexity - 1), q.divergence, 100 * q.same_choice);
    if (asks) fmt::print("  {:>7.1f}%", 100 * recalled[i + 1]);
    if (q.fetches.wanted > 0) {
      fmt::print("  {}", fetch_text(q.fetches));
    }
    fmt::print("\n");
  }
}

}  // namespace

void add_eval_kv(CLI::App& eval, GlobalOptions& global) {
  auto kv = std::make_shared<KvCommand>();
  CLI::App* command = eval.add_subcommand("kv", "What each way to keep keys and values costs in quality, against f16");
  kv->model.add_to(*command);
  command->add_option("FILE", kv->file, "UTF-8 text of your own")->required();
  command->add_option("--policy", kv->policies, "A policy to measure, as for --kv; may be given several times")->capture_default_str();
  command->add_option("--window", kv->quality.window, "Tokens of one independent window")->capture_default_str();
  command->add_option("--first-scored", kv->quality.first_scored, "Tokens of a window that are only read")->capture_default_str();
  command->add_option("--windows", kv->quality.max_windows, "Stop after this many")->capture_default_str();
  command->add_option("--recall", kv->books, "Folder of .txt books: also asks a dialogue model for facts told before pages of them");
  command->add_option("--probes", kv->recall.probes, "Questions a policy, with --recall")->capture_default_str();
  command->add_option("--distance", kv->recall.distance, "Tokens between fact and question, with --recall")->capture_default_str();
  command->add_option("--seed", kv->recall.seed, "Of the questions")->capture_default_str();
  command->footer("Example: mneme eval kv model.gguf book.txt --policy kivi:4 --policy kivi:2 --window 4096");
  command->callback([kv, &global] { run_kv(*kv, global); });
}

}  // namespace mneme::cli
