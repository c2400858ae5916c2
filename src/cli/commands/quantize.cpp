#include "weights/quantize.h"

#include <fmt/format.h>

#include <memory>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/transcode_report.h"

namespace mneme::cli {
namespace {

struct Options {
  std::string in, out, format;
  bool pure = false, requantize = false;
};

void quantize(const Options& options, const GlobalOptions& global) {
  QuantizeOptions how;
  how.recipe = find_quant_recipe(options.format);
  how.pure = options.pure;
  how.requantize = options.requantize;
  if (how.recipe == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("[quantize] expected a format, found '{}'", options.format),
                "mneme quantize --help lists the formats");
  }
  Ledger ledger;
  const auto source = open_source(options.in, ledger);
  TranscodeReport report;
  {
    Progress progress("quantize", source->tensor_bytes(), "bytes");
    report = quantize_model(*source, options.out, how, ledger,
                            [&](uint64_t done, const std::string& tensor) { progress.update(done, tensor); });
  }
  print_transcode_report(report, options.out, global);
}

std::string format_list() {
  std::string out = "Formats:\n";
  for (const QuantRecipe& recipe : quant_recipes()) {
    const DTypeInfo& info = dtype_info(recipe.base);
    out += fmt::format("  {:<8} {:>6.3f} bits  {}\n", recipe.name,
                       8.0 * static_cast<double>(info.block_bytes) / static_cast<double>(info.block_elements),
                       recipe.summary);
  }
  return out;
}

}  // namespace

void add_quantize(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("quantize", "Write a model in a smaller format");
  command->add_option("IN", options->in, "GGUF file, or folder of a Hugging Face checkpoint")->required();
  command->add_option("OUT", options->out, "GGUF file to write")->required();
  command->add_option("-f,--format", options->format, "Format, see below (default: Q4_K_M)")->default_val("Q4_K_M");
  command->add_flag("--pure", options->pure, "All matrices alike, the output matrix too (default: off)");
  command->add_flag("--requantize", options->requantize, "Allow input that is already quantised (default: off)");
  command->footer(format_list() +
                  "Vectors, norms, routers and position tables stay F32; the output matrix gets Q6_K or better.\n"
                  "Example: mneme quantize model-f16.gguf model-q4.gguf --format Q4_K_M");
  command->callback([options, &global] { quantize(*options, global); });
}

}  // namespace mneme::cli
