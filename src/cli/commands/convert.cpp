#include <fmt/format.h>

#include <memory>
#include <string>

#include "base/progress.h"
#include "cli/commands.h"
#include "cli/transcode_report.h"
#include "weights/quantize.h"

namespace mneme::cli {
namespace {

struct Options {
  std::string in, out;
  std::string type = "keep";
};

void convert(const Options& options, const GlobalOptions& global) {
  Ledger ledger;
  const auto source = open_source(options.in, ledger);
  QuantizeOptions how;
  how.recipe = options.type == "keep" ? nullptr : find_quant_recipe(options.type);
  TranscodeReport report;
  {
    Progress progress("convert", source->tensor_bytes(), "bytes");
    report = quantize_model(*source, options.out, how, ledger,
                            [&](uint64_t done, const std::string& tensor) { progress.update(done, tensor); });
  }
  print_transcode_report(report, options.out, global);
}

}  // namespace

void add_convert(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("convert", "Write a Hugging Face checkpoint, or the shards of a model, as one GGUF file");
  command->add_option("IN", options->in, "Folder with config.json and *.safetensors, or a GGUF file")->required();
  command->add_option("OUT", options->out, "GGUF file to write")->required();
  command->add_option("--type", options->type, "Type of the matrices: keep, f32, f16 or bf16 (default: keep)")
      ->check(CLI::IsMember({"keep", "f32", "f16", "bf16"}, CLI::ignore_case));
  command->footer(
      "The tokenizer (tokenizer.json, tokenizer.model or vocab.txt) and the chat template are taken along.\n"
      "Example: mneme convert SmolLM2-135M/ smollm2-135m.gguf --type f16");
  command->callback([options, &global] { convert(*options, global); });
}

}  // namespace mneme::cli
