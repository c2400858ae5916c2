#include "weights/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <optional>
#include <string>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/calibration_text.h"
#include "cli/commands.h"
#include "cli/quantize_compare.h"
#include "cli/transcode_report.h"
#include "engine/calibration.h"
#include "eval/hessian_trace.h"
#include "eval/sensitivity.h"
#include "eval/stack_gains.h"

namespace mneme::cli {
namespace {

struct Options {
  std::string in, out, format = "Q4_K_M";
  bool pure = false, lossy = false;
  std::string calibrate, imatrix, save_imatrix, method = "rtn", clip = "none", rounding = "nearest", size, candidates;
  uint64_t seed = 1;
  uint64_t calibration_tokens = 16384;
  bool awq = false;
  int activation_bits = 8;
  std::string activations = "dynamic", sensitivity = "measured";
  uint32_t vectors = 0, blocks = 8;
  std::string order = "average", order_by = "error", order_text;
  uint64_t order_tokens = 4096;
  std::string compare;
  std::vector<std::string> tensor_types;
  CompareCommand comparison;
};

const QuantRecipe& recipe_of(const std::string& name) {
  const QuantRecipe* recipe = find_quant_recipe(name);
  if (recipe == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("[quantize] expected a format, found '{}'", name),
                "mneme quantize --help lists the formats");
  }
  return *recipe;
}

/// PART=FORMAT
std::pair<std::string, DType> tensor_type_of(const std::string& text) {
  const size_t at = text.rfind('=');
  if (at == std::string::npos || at == 0) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("[quantize] expected PART=FORMAT, found '{}'", text),
                "for example --tensor ffn_down=Q6_K");
  }
  const DType dtype = recipe_of(text.substr(at + 1)).base;
  if (dtype == DType::kBitStack) {
    fail(ErrorCode::kInvalidArgument, "[quantize] expected a format for single tensors, found BITSTACK");
  }
  return {text.substr(0, at), dtype};
}

std::vector<std::string> split_commas(const std::string& text) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) out.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

bool wants_gram(const Options& options) {
  if (options.method == "gptq") return true;
  const auto is_aqlm = [](const std::string& name) {
    const QuantRecipe* recipe = find_quant_recipe(name);
    return recipe != nullptr && recipe->base == DType::kAqlm;
  };
  const std::vector<std::string> formats = split_commas(options.compare.empty() ? options.format : options.compare);
  return std::any_of(formats.begin(), formats.end(), is_aqlm);
}

/// What a text says about a model's matrices.
struct TextStatistics {
  Calibration calibration;
  std::optional<MeasuredLosses> measured;
  std::optional<HessianTraces> traces;
};

/// True when some form that is asked for is a size rather than a format.
bool wants_sizes(const Options& options) {
  const std::vector<std::string> formats = split_commas(options.compare);
  return !options.size.empty() || std::any_of(formats.begin(), formats.end(), [](const std::string& name) {
    return find_quant_recipe(name) == nullptr;
  });
}

/// The candidate of fewest bits, whose errors show best what matters.
DType probe_among(const std::vector<DType>& candidates) {
  DType probe = DType::kQ8_0;
  for (const DType candidate : candidates) {
    if (!is_stream(candidate) && row_bytes(candidate, 256) < row_bytes(probe, 256)) probe = candidate;
  }
  return probe;
}

/// Traces of the Hessian, which the training engine finds for models that it knows.
HessianTraces read_traces(const Options& options, std::span<const TokenId> tokens) {
  Ledger ledger;
  const TraceOptions how;
  Progress progress("sensitivity", how.probes, "probes");
  try {
    return hessian_traces(options.in, tokens, {}, how, ledger, [&](size_t done, size_t) { progress.update(done); });
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("[quantize] --sensitivity hessian: {}", e.what()),
                "it is for GGUF files that can be trained on; --sensitivity measured is for all");
  }
}

/// Runs the model over the calibration text, in its own memory, which is given back before quantisation starts.
TextStatistics read_calibration_text(const Options& options, const std::vector<DType>& candidates) {
  constexpr uint32_t kWindow = 512;
  Ledger ledger;
  PlanRequest request;
  request.context = kWindow;
  const auto engine = Engine::load(options.in, request, ledger);
  CalibrationOptions how;
  how.window = kWindow;
  how.max_windows = (options.calibration_tokens + kWindow - 1) / kWindow;
  const std::vector<TokenId> tokens =
      calibration_tokens(*engine, options.calibrate, how.max_windows * kWindow, kWindow, options.seed);
  fmt::print(stderr, "calibrating on {}\n", describe_calibration(options.calibrate, tokens.size()));
  if (wants_gram(options)) {
    // Token tables are looked up, and an output matrix is not worth a gram matrix of its own inputs: one row a window.
    how.wants_gram = [](const std::string& name) { return name.starts_with("blk."); };
  }
  TextStatistics out;
  {
    Progress progress(
        "calibrate",
        std::max<uint64_t>(1, std::min<uint64_t>(how.max_windows, (tokens.size() + kWindow - 1) / kWindow)), "windows");
    out.calibration = calibrate(*engine, tokens, how, [&](uint64_t done, uint64_t) { progress.update(done); });
  }
  if (wants_sizes(options) && options.sensitivity == "measured") {
    Progress progress("sensitivity", engine->model().weights.matrices.size(), "matrices");
    out.measured = measure_sensitivity(*engine, tokens, probe_among(candidates), {},
                                       [&](size_t done, size_t) { progress.update(done); });
  }
  if (wants_sizes(options) && options.sensitivity == "hessian") out.traces = read_traces(options, tokens);
  return out;
}

/// Sorts the blocks of a written BITSTACK model by what they gain on a text.
void sort_by_perplexity(const Options& options) {
  constexpr uint32_t kWindow = 512;
  std::vector<TokenId> tokens;
  {
    Ledger ledger;
    PlanRequest request;
    request.context = kWindow;
    const auto engine = Engine::plan_only(options.out, request, ledger);
    tokens = engine->tokenizer().encode(read_text_file(options.order_text), {false, false});
  }
  tokens.resize(std::min<size_t>(tokens.size(), std::max<uint64_t>(kWindow, options.order_tokens)));
  Progress progress("order", 1, "blocks");
  PerplexityOptions how;
  how.window = kWindow;
  sort_stack_by_perplexity(options.out, tokens, how, *bitstack::find_stack_order(options.order),
                           [&](size_t done, size_t all) { progress.update(done, fmt::format("of {}", all)); });
}

void quantize(const Options& options, const GlobalOptions& global) {
  QuantizeOptions how;
  how.pure = options.pure;
  how.lossy = options.lossy;
  how.awq = options.awq;
  how.activation_bits = options.activation_bits;
  how.static_activations = options.activations == "static";
  how.gptq = options.method == "gptq";
  how.clipping = *find_clipping(options.clip);
  how.stochastic = options.rounding == "stochastic";
  how.seed = options.seed;
  how.stack = {options.vectors, options.blocks, *bitstack::find_stack_order(options.order), 0};
  for (const std::string& text : options.tensor_types) how.tensor_types.push_back(tensor_type_of(text));
  const bool by_perplexity = options.order_by == "perplexity";
  if (by_perplexity && options.order_text.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "[quantize] expected a text to sort the blocks by, found none",
                "give one with --order-text FILE");
  }
  if (!options.size.empty()) how.size = parse_byte_size(options.size);
  if (!options.candidates.empty()) {
    how.candidates.clear();
    for (const std::string& name : split_commas(options.candidates)) how.candidates.push_back(recipe_of(name).base);
  }
  if (options.calibrate.empty() && (how.awq || how.gptq || !options.save_imatrix.empty())) {
    throw Error(ErrorCode::kInvalidArgument, "[quantize] expected a calibration text for this, found none",
                "give one with --calibrate FILE");
  }
  if (!options.calibrate.empty() && !options.imatrix.empty()) {
    fail(ErrorCode::kInvalidArgument, "[quantize] expected --calibrate or --imatrix, found both");
  }
  if (how.stochastic && !(options.calibrate.empty() && options.imatrix.empty())) {
    throw Error(ErrorCode::kInvalidArgument, "[quantize] expected no calibration with --rounding stochastic, found one",
                "leave out --calibrate, --imatrix, --awq and --method gptq, or round to the nearest");
  }
  if (options.sensitivity == "hessian" && (options.calibrate.empty() || !wants_sizes(options))) {
    throw Error(ErrorCode::kInvalidArgument,
                "[quantize] --sensitivity hessian: expected a size and a text to find gradients on, found one or none",
                "give --size BYTES and --calibrate FILE");
  }
  // What can be refused is refused before minutes of reading.
  if (options.compare.empty()) {
    if (options.out.empty()) fail(ErrorCode::kInvalidArgument, "[quantize] expected a file to write, or --compare");
    if (options.format != "KEEP") how.recipe = &recipe_of(options.format);
  } else {
    if (options.comparison.text.empty())
      fail(ErrorCode::kInvalidArgument, "[quantize] expected a text to compare on: --text FILE");
    for (const std::string& form : split_commas(options.compare)) {
      if (std::isdigit(static_cast<unsigned char>(form.front())) != 0) {
        parse_byte_size(form);
      } else {
        recipe_of(form);
      }
    }
  }
  TextStatistics text;
  if (!options.calibrate.empty()) text = read_calibration_text(options, how.candidates);
  Calibration& calibration = text.calibration;
  if (!options.imatrix.empty()) calibration = Calibration::load(options.imatrix);
  if (calibration.size() > 0) how.calibration = &calibration;
  if (text.measured) how.measured = &*text.measured;
  if (text.traces) how.traces = &*text.traces;
  if (!options.save_imatrix.empty()) calibration.save(options.save_imatrix, options.calibrate);
  if (!options.compare.empty()) {
    CompareCommand comparison = options.comparison;
    comparison.in = options.in;
    comparison.formats = split_commas(options.compare);
    comparison.how = how;
    compare_formats(comparison, global);
    return;
  }
  Ledger ledger;
  const auto source = open_source(options.in, ledger);
  TranscodeReport report;
  {
    Progress progress("quantize", source->tensor_bytes(), "bytes");
    report = quantize_model(*source, options.out, how, ledger,
                            [&](uint64_t done, const std::string& tensor) { progress.update(done, tensor); });
  }
  if (by_perplexity && how.recipe != nullptr && how.recipe->base == DType::kBitStack) sort_by_perplexity(options);
  print_transcode_report(report, options.out, global);
}

/// Bits a weight, of streams about: AQLM without its codebooks.
std::string bits_text(const QuantRecipe& recipe) {
  const DTypeInfo& info = dtype_info(recipe.base);
  if (recipe.base == DType::kAqlm) {
    return fmt::format("> {:.3f}", static_cast<double>(recipe.scheme.codebooks * recipe.scheme.bits) /
                                       static_cast<double>(recipe.scheme.group));
  }
  if (recipe.base == DType::kBitStack) return "~1-10";
  if (is_stream(recipe.base)) return "~11-12";
  return fmt::format("{:.3f}", 8.0 * static_cast<double>(info.block_bytes) / static_cast<double>(info.block_elements));
}

std::string format_list() {
  std::string out = "Formats:\n";
  for (const QuantRecipe& recipe : quant_recipes()) {
    out += fmt::format("  {:<9} {:>8} bits  {}\n", recipe.name, bits_text(recipe), recipe.summary);
  }
  return out;
}

}  // namespace

void add_quantize(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("quantize", "Write a model in a smaller format");
  command->add_option("IN", options->in, "GGUF file, or folder of a Hugging Face checkpoint")->required();
  command->add_option("OUT", options->out, "GGUF file to write");
  command
      ->add_option("-f,--format", options->format,
                   "Format, see below; KEEP leaves the types of the input, for --tensor")
      ->capture_default_str();
  command->add_option(
      "--tensor", options->tensor_types,
      "PART=FORMAT: the format of matrices whose names contain PART, e.g. _exps=TQ1_0; may be repeated");
  command->add_option("--size", options->size,
                      "Most bytes of the file, e.g. 600M: each matrix gets the type that loses least together");
  command->add_option("--candidates", options->candidates,
                      "Formats that --size chooses from (default: BITMOD3,BITMOD4,Q5_K,Q6_K,Q8_0)");
  command
      ->add_option(
          "--sensitivity", options->sensitivity,
          "What --size takes for the harm of an error: measured (each matrix alone is rounded and the text read "
          "again; wants --calibrate, else as error), hessian (HAWQ: mean trace of its Hessian times the squared error; "
          "wants --calibrate, and a llama that can be trained) or error (of the matrix's outputs, all matrices alike)")
      ->check(CLI::IsMember({"measured", "hessian", "error"}))
      ->capture_default_str();
  command->add_flag("--pure", options->pure, "All matrices alike, the output matrix too (default: off)");
  command->add_flag("--lossy,--requantize", options->lossy,
                    "Allow input below 8 bits to lose a second time (default: off)");

  command->add_option(
      "--calibrate", options->calibrate,
      "Text whose inputs weigh the errors of the columns, or self: one that the model makes up, without "
      "any data of yours");
  command->add_option("--calibration-tokens", options->calibration_tokens, "Tokens of it that are read")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32))
      ->capture_default_str();
  command->add_option("--imatrix", options->imatrix, "Importance matrix (GGUF) in place of a text");
  command->add_option("--save-imatrix", options->save_imatrix, "Write the importance matrix of the text");
  command
      ->add_option("--method", options->method,
                   "rtn (each weight by itself) or gptq (errors feed on; wants --calibrate)")
      ->check(CLI::IsMember({"rtn", "gptq"}))
      ->capture_default_str();
  command->add_flag("--awq", options->awq, "Scale channels by their inputs first; wants --calibrate (default: off)");
  command->add_option("--clip", options->clip, "Limit values before: none, percentile, mse or kl")
      ->check(CLI::IsMember({"none", "percentile", "mse", "kl"}))
      ->capture_default_str();

  command
      ->add_option("--rounding", options->rounding,
                   "nearest, or stochastic: to a neighbouring level at random, right in the mean (Q4_0, Q5_0, Q8_0, "
                   "BIPOLAR2 to 8; without a calibration)")
      ->check(CLI::IsMember({"nearest", "stochastic"}))
      ->capture_default_str();
  command
      ->add_option("--seed", options->seed,
                   "Of --rounding stochastic and --calibrate self; the same gives the same file")
      ->capture_default_str();

  command
      ->add_option("--activation-bits", options->activation_bits,
                   "Bits that inputs of bipolar matrices may be rounded to, where that is faster; 8: as all formats do")
      ->check(CLI::Range(1, 8))
      ->capture_default_str();

  command
      ->add_option(
          "--activations", options->activations,
          "Scales of 8-bit inputs: dynamic (each 32 columns of a token) or static (one a matrix, for the largest "
          "input of the text; wants --calibrate)")
      ->check(CLI::IsMember({"dynamic", "static"}))
      ->capture_default_str();

  command
      ->add_option("--vectors", options->vectors,
                   "BITSTACK: vectors of the magnitudes of a block, 1 to 16 (default: by the size of the matrix)")
      ->check(CLI::Range(1u, 16u));
  command->add_option("--blocks", options->blocks, "BITSTACK: blocks of about one bit of each matrix")
      ->check(CLI::Range(1u, 64u))
      ->capture_default_str();
  command
      ->add_option("--order", options->order,
                   "BITSTACK: blocks level by level by what they gain (average), by gain a byte (greedy), or random")
      ->check(CLI::IsMember({"average", "greedy", "random"}))
      ->capture_default_str();
  command
      ->add_option("--order-by", options->order_by,
                   "BITSTACK: what a block gains: error (of the matrix's outputs) or perplexity (measured, slow)")
      ->check(CLI::IsMember({"error", "perplexity"}))
      ->capture_default_str();
  command->add_option("--order-text", options->order_text,
                      "Text for --order-by perplexity; not the one for calibration");
  command->add_option("--order-tokens", options->order_tokens, "Tokens of it that are read, again for each block")
      ->check(CLI::Range(uint64_t{512}, uint64_t{1} << 32))
      ->capture_default_str();

  command->add_option("--compare", options->compare,
                      "Formats or sizes, e.g. BITMOD4,Q4_0,600M: measure them side by side");
  command->add_option("--text", options->comparison.text, "Text to compare on");
  command->add_option("--window", options->comparison.window, "Tokens of one window of it")
      ->check(CLI::Range(8u, 1u << 20))
      ->capture_default_str();
  command->add_option("--max-windows", options->comparison.max_windows, "Windows of it that are read; 0: all")
      ->capture_default_str();
  command->add_option("--html", options->comparison.html, "Write the comparison as a page");
  command->add_option("--work", options->comparison.folder,
                      "Folder for the files it makes (default: that for temporary files)");
  command->footer(
      format_list() +
      "Vectors, norms, routers and position tables stay F32; the output matrix gets Q6_K or better.\n"
      "Example: mneme quantize model-f16.gguf model-q4.gguf --format Q4_K_M\n"
      "AQLM: M codebooks of 2^B vectors of g weights; codebooks and scales come on top, more for small matrices.\n"
      "Example: mneme quantize model.gguf vectors.gguf --format AQLM2x8g8 --calibrate text.txt\n"
      "Example: mneme quantize model.gguf stack.gguf --format BITSTACK --calibrate text.txt\n"
      "Example: mneme quantize model.gguf --compare BITMOD4,BITMOD3,Q4_0 --text wiki.txt --html formats.html");
  command->callback([options, &global] { quantize(*options, global); });
}

}  // namespace mneme::cli
