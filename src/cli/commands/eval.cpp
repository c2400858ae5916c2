#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/calibration_text.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "eval/claims.h"
#include "eval/divergence.h"
#include "eval/integer_model.h"
#include "eval/perplexity.h"

namespace mneme::cli {
namespace {

struct PerplexityCommand {
  ModelOptions model;
  std::string file;
  PerplexityOptions options;
  std::string arithmetic = "float";
  std::string calibrate = std::string(kOwnText);
  uint64_t calibration_tokens = 4096;
};

/// What the model scores when it is computed in integers, beside what it scores as usual.
void run_integer_perplexity(const PerplexityCommand& command, Engine& engine, std::span<const TokenId> tokens,
                            const GlobalOptions& global) {
  integer::ConversionOptions how;
  how.window = command.options.window;
  how.max_windows = std::max<uint64_t>(1, command.calibration_tokens / how.window);
  const std::vector<TokenId> calibration =
      calibration_tokens(engine, command.calibrate, how.max_windows * how.window, how.window, 1);
  std::optional<integer::Model> model;
  {
    Progress progress("ranges", how.max_windows, "windows");
    model = integer::convert(engine, calibration, how, [&](uint64_t done, uint64_t) { progress.update(done); });
  }
  const auto logits = [&](std::span<const TokenId> window, size_t first) {
    const std::vector<int32_t> units = integer::integer_logits(*model, window, first);
    std::vector<float> out(units.begin(), units.end());
    for (float& logit : out) logit /= static_cast<float>(integer::kOne);
    return out;
  };
  const DivergenceOptions scored{command.options.window, command.options.max_windows, command.options.first_scored};
  Progress progress("perplexity", std::max<uint64_t>(1, tokens.size() / command.options.window), "windows");
  const Divergence found =
      divergence(engine, logits, tokens, scored, [&](uint64_t done, uint64_t) { progress.update(done); });
  if (global.json) {
    fmt::print("{}\n", Json{{"perplexity", found.perplexity},
                            {"arithmetic", "integer"},
                            {"float_perplexity", found.reference_perplexity},
                            {"kl", found.kl},
                            {"same_top", found.same_top},
                            {"tokens_scored", found.n_scored},
                            {"calibrated_on", command.calibrate},
                            {"window", command.options.window}}
                           .dump());
  } else {
    fmt::print("ranges from {}\n", describe_calibration(command.calibrate, calibration.size()));
    fmt::print("perplexity {:.4f} in integers, {:.4f} in floating point, over {} tokens in windows of {}\n",
               found.perplexity, found.reference_perplexity, found.n_scored, command.options.window);
    fmt::print("KL divergence {:.4f} nats a token, same most likely token {:.1f} %\n", found.kl, 100 * found.same_top);
  }
}

void run_perplexity(const PerplexityCommand& command, const GlobalOptions& global) {
  const std::string text = read_text_file(command.file);
  Ledger ledger;
  PlanRequest request = command.model.request();
  if (!request.context) request.context = command.options.window;
  const auto engine = Engine::load(command.model.model, request, ledger);
  const std::vector<TokenId> tokens = engine->tokenizer().encode(text, {false, false});
  if (command.arithmetic == "integer") {
    run_integer_perplexity(command, *engine, tokens, global);
    return;
  }
  Progress progress("perplexity", std::max<uint64_t>(1, tokens.size() / command.options.window), "windows");
  const PerplexityResult result =
      perplexity(*engine, tokens, command.options, [&](uint64_t done, uint64_t) { progress.update(done); });
  if (global.json) {
    fmt::print("{}\n", Json{{"perplexity", result.perplexity},
                            {"nll", result.nll},
                            {"nll_error", result.nll_error},
                            {"tokens_scored", result.n_scored},
                            {"windows", result.n_windows},
                            {"window", command.options.window}}
                           .dump());
  } else {
    fmt::print("perplexity {:.4f} +- {:.4f} over {} tokens in {} windows of {}\n", result.perplexity,
               result.perplexity * result.nll_error, result.n_scored, result.n_windows, command.options.window);
  }
}

void run_claims(const std::string& system, const GlobalOptions& global) {
  const auto results =
      measure_claims(all_claims(), system.empty() ? std::nullopt : std::optional(system), [&](const Claim& claim) {
        if (!global.json) fmt::print(stderr, "measuring {}: {}\n", claim.system, claim.text);
      });
  size_t failed = 0;
  Json all = Json::array();
  for (const ClaimResult& r : results) {
    failed += r.holds ? 0 : 1;
    if (global.json) {
      all.push_back(to_json(r));
      continue;
    }
    fmt::print("{:<6} {:<16} {}\n", r.holds ? "holds" : "FAILS", r.claim->system, r.claim->text);
    if (r.error.empty()) {
      fmt::print("       paper: {}; here: {:.4g} {} (wanted {} {:.4g}); {}\n", r.claim->paper, r.measured.value,
                 r.claim->unit, r.claim->at_most ? "at most" : "at least", r.claim->target, r.measured.how);
    } else {
      fmt::print("       not measured: {}\n", r.error);
    }
  }
  if (global.json) fmt::print("{}\n", all.dump(2));
  if (failed > 0)
    fail(ErrorCode::kInvalidArgument, "[eval claims] {} of {} claims do not hold here", failed, results.size());
}

}  // namespace

void add_eval(CLI::App& app, GlobalOptions& global) {
  CLI::App* command =
      app.add_subcommand("eval", "Measure quality: ppl, kv, memory, quantised models of code, claims, scaling laws");
  command->require_subcommand(1);

  auto ppl = std::make_shared<PerplexityCommand>();
  CLI::App* perplexity_command = command->add_subcommand("ppl", "Perplexity of a text file");
  ppl->model.add_to(*perplexity_command);
  perplexity_command->add_option("FILE", ppl->file, "UTF-8 text")->required();
  perplexity_command->add_option("--window", ppl->options.window, "Tokens of one independent window")
      ->capture_default_str();
  perplexity_command->add_option("--first-scored", ppl->options.first_scored,
                                 "Tokens that are only read (default: half a window)");
  perplexity_command->add_option("--max-windows", ppl->options.max_windows, "Stop after this many (default: all)");
  perplexity_command
      ->add_option(
          "--arithmetic", ppl->arithmetic,
          "float (as models run), or integer: what a device without floating point would compute, 8-bit weights "
          "and activations with fixed scales (llama architectures; for its cost in quality, not fast)")
      ->check(CLI::IsMember({"float", "integer"}))
      ->capture_default_str();
  perplexity_command
      ->add_option("--calibrate", ppl->calibrate,
                   "integer: text that fixes the scales, or self: one that the model makes up")
      ->capture_default_str();
  perplexity_command->add_option("--calibration-tokens", ppl->calibration_tokens, "Tokens of it")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32))
      ->capture_default_str();
  perplexity_command->footer(
      "Example: mneme eval ppl model.gguf wiki.test.txt --window 512\n"
      "Example: mneme eval ppl model.gguf wiki.test.txt --arithmetic integer --calibrate other.txt");
  perplexity_command->callback([ppl, &global] { run_perplexity(*ppl, global); });

  auto system = std::make_shared<std::string>();
  CLI::App* claims = command->add_subcommand("claims", "Claims of published systems, measured here");
  claims->add_option("--system", *system, "Only this system");
  claims->footer("Exit status 0 only when every claim holds. Example: mneme eval claims --system flashattention");
  claims->callback([system, &global] { run_claims(*system, global); });

  add_eval_kv(*command, global);
  add_eval_stack(*command, global);
  add_eval_memory(*command, global);
  add_eval_quant_study(*command, global);
  add_eval_scaling(*command, global);
}

}  // namespace mneme::cli
