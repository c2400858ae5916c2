#include "cli/sampling_flags.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "engine/grammar/json_schema.h"

namespace mneme::cli {
namespace {

/// "123=-1.5" or "123=-inf".
std::pair<TokenId, float> parse_bias(const std::string& text) {
  const size_t equals = text.find('=');
  try {
    size_t id_end = 0, bias_end = 0;
    if (equals == std::string::npos) throw std::invalid_argument(text);
    const int id = std::stoi(text.substr(0, equals), &id_end);
    const std::string value = text.substr(equals + 1);
    const float bias = std::stof(value, &bias_end);
    if (id_end != equals || bias_end != value.size()) throw std::invalid_argument(text);
    return {id, bias};
  } catch (const std::exception&) {
    fail(ErrorCode::kInvalidArgument, "[--logit-bias] expected ID=BIAS, found '{}'", text);
  }
}

}  // namespace

void SamplingFlags::add_to(CLI::App& c) {
  const auto group = "Sampling";
  c.add_option("-n,--predict", n_predict, "Longest answer in tokens (default: until the model ends)")->check(CLI::NonNegativeNumber);
  c.add_option("--stop", stop, "End at this text; may be given several times");
  c.add_option("--seed", seed, "Seed of the random draws (default: random)")->group(group);
  c.add_option("--temp", options.temperature, "Temperature; 0: always the best token")->capture_default_str()->group(group);
  c.add_option("--top-k", options.top_k, "Keep the k best tokens; 0: all")->capture_default_str()->group(group);
  c.add_option("--top-p", options.top_p, "Keep the likeliest tokens up to this probability; 1: off")->capture_default_str()->group(group);
  c.add_option("--min-p", options.min_p, "Drop tokens below this part of the best one; 0: off")->capture_default_str()->group(group);
  c.add_option("--typical-p", options.typical_p, "Locally typical sampling; 1: off")->capture_default_str()->group(group);
  c.add_option("--top-n-sigma", options.top_n_sigma, "Drop logits this many deviations below the best; negative: off")->capture_default_str()->group(group);
  c.add_option("--repeat-penalty", options.repeat_penalty, "Penalty on repeated tokens; 1: off")->capture_default_str()->group(group);
  c.add_option("--repeat-last-n", options.penalty_last_n, "Tokens the penalties look back; -1: all")->capture_default_str()->group(group);
  c.add_option("--frequency-penalty", options.frequency_penalty, "Penalty for each occurrence")->capture_default_str()->group(group);
  c.add_option("--presence-penalty", options.presence_penalty, "Penalty for occurring at all")->capture_default_str()->group(group);
  c.add_option("--dry-multiplier", options.dry_multiplier, "DRY penalty on repeated sequences; 0: off")->capture_default_str()->group(group);
  c.add_option("--dry-base", options.dry_base, "Growth of the DRY penalty")->capture_default_str()->group(group);
  c.add_option("--dry-allowed-length", options.dry_allowed_length, "Repetition that costs nothing")->capture_default_str()->group(group);
  c.add_option("--dry-last-n", options.dry_last_n, "Tokens DRY looks back; -1: all")->capture_default_str()->group(group);
  c.add_option("--xtc-probability", options.xtc_probability, "Chance to exclude top choices; 0: off")->capture_default_str()->group(group);
  c.add_option("--xtc-threshold", options.xtc_threshold, "Probability of a top choice")->capture_default_str()->group(group);
  c.add_option("--dynatemp-range", options.dynatemp_range, "Dynamic temperature; 0: off")->capture_default_str()->group(group);
  c.add_option("--dynatemp-exponent", options.dynatemp_exponent, "Its exponent")->capture_default_str()->group(group);
  c.add_option("--mirostat", options.mirostat, "Mirostat 1 or 2 instead of the chain; 0: off")->capture_default_str()->group(group);
  c.add_option("--mirostat-tau", options.mirostat_tau, "Its target surprise")->capture_default_str()->group(group);
  c.add_option("--mirostat-eta", options.mirostat_eta, "Its learning rate")->capture_default_str()->group(group);
  c.add_option("--samplers", samplers, "Order of the chain, e.g. top_k top_p temperature")->delimiter(',')->group(group);
  c.add_option("--logit-bias", logit_bias, "ID=BIAS added to a token's logit; may be given several times")->group(group);
  c.add_flag("--ignore-eos", options.ignore_end_of_generation, "Do not let the model end")->group(group);
  c.add_option("--logprobs", logprobs, "With --json: log-probabilities and this many alternatives")->check(CLI::Range(0, 100))->group(group);
  auto* grammar = c.add_option("--grammar-file", grammar_file, "Only text of this GBNF grammar")->group(group);
  c.add_option("--json-schema-file", schema_file, "Only JSON of this schema")->group(group)->excludes(grammar);
}

GenerationRequest SamplingFlags::request(Engine& engine) const {
  GenerationRequest request;
  request.max_tokens = static_cast<uint32_t>(n_predict);
  request.stop = stop;
  request.n_logprobs = logprobs;
  request.sampling = options;
  if (seed >= 0) request.sampling.seed = static_cast<uint64_t>(seed);
  if (!samplers.empty()) {
    request.sampling.samplers.clear();
    for (const std::string& name : samplers) request.sampling.samplers.push_back(parse_sampler_name(name));
  }
  for (const std::string& text : logit_bias) request.sampling.logit_bias.push_back(parse_bias(text));
  if (!grammar_file.empty()) {
    request.grammar = engine.make_grammar(read_text_file(grammar_file));
  } else if (!schema_file.empty()) {
    const Json schema = parse_json(read_text_file(schema_file), schema_file);
    request.grammar = engine.make_grammar(json_schema_gbnf(schema));
  }
  return request;
}

}  // namespace mneme::cli
