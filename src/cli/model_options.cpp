#include "cli/model_options.h"

#include "base/byte_size.h"
#include "cli/kv_basis_store.h"

namespace mneme::cli {

void ModelOptions::add_to(CLI::App& command, bool with_sequences) {
  command
      .add_option("MODEL", model,
                  "Model: a .gguf file (the first shard of several), a safetensors folder, or a pulled name")
      ->required();
  command.add_option("-m,--memory", memory,
                     "Memory limit of the whole process, e.g. 2G (default: all of the machine's)");
  command.add_option("-c,--context", context, "Tokens of context, e.g. 8k (default: as trained, or as many as fit)");
  command
      .add_option(
          "--kv", kv,
          "How keys and values are kept: f16, bf16, f32, kivi:2|4, token:4, bfp:4, think:0.5 (also +kivi:4), "
          "mikv, h2o, "
          "window:2048, shadowkv:budget=1.5%,values=disk, cskv:0.25 (also ,ranks=measured), instinfer:density=1/8; "
          "auto: the smallest "
          "within --kv-bound (docs/context.md)")
      ->capture_default_str();
  command.add_option("--kv-bound", kv_bound, "With --kv auto: most KL divergence from f16, in nats a token")
      ->capture_default_str()
      ->check(CLI::Range(1e-6, 10.0));
  command.add_option(
      "--kv-text", kv_text,
      "With --kv auto and cskv: text to measure on or to fit to (default: text that the model makes up)");
  command.add_option("--batch", batch, "Tokens of one forward pass (default: 512, or as fits)")
      ->check(CLI::Range(1, 65536));
  command.add_flag("--no-pack", no_pack, "Use weights as they lie in the file: loads at once, runs slower");
  command
      .add_option("--adapter", adapters,
                  "Low-rank adapter to run on top (GGUF), its effect multiplied by SCALE; repeat it to stack several")
      ->type_name("FILE[:SCALE]")
      ->allow_extra_args(false);
  if (with_sequences) {
    const auto number = [](std::string& text) -> std::string {
      if (text == "0") return "expected a number from 1 on, or max";
      if (text == "max") text = "0";
      return {};
    };
    command
        .add_option("--sequences", sequences,
                    "Sequences side by side; max: as many of --context tokens as fit --memory")
        ->capture_default_str()
        ->transform(CLI::Validator(number, "N|max"))
        ->check(CLI::Range(0u, kMostSequences).description(""));
  }
}

PlanRequest ModelOptions::request(bool to_run) const {
  PlanRequest request;
  if (!memory.empty()) request.memory = parse_byte_size(memory);
  if (!context.empty()) request.context = parse_token_count(context);
  if (batch > 0) request.batch = batch;
  request.kv = KvPolicy::parse(kv == "auto" ? resolve_kv_auto(kv_auto()) : kv);
  to_run ? give_bases(request.kv, kv_auto()) : recall_bases(request.kv, kv_auto());
  request.n_sequences = sequences;
  request.pack = !no_pack;
  for (const std::string& adapter : adapters) request.adapters.push_back(AdapterChoice::parse(adapter));
  return request;
}

}  // namespace mneme::cli
