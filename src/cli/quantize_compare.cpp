#include "cli/quantize_compare.h"

#include <unistd.h>

#include <filesystem>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/html_report.h"
#include "base/json.h"
#include "base/progress.h"
#include "eval/divergence.h"
#include "eval/speed.h"

namespace mneme::cli {
namespace {

struct Row {
  std::string format, error;
  uint64_t tensor_bytes = 0;
  double bits_per_weight = 0;
  Divergence quality;
  double decode = 0, prefill = 0, bytes_per_second = 0;
};

/// A file that goes when the measurement is over, also when it fails.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string path) : path_(std::move(path)) {}
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

PlanRequest request_for(const CompareCommand& command) {
  PlanRequest request;
  request.context = command.window;
  return request;
}

void measure_speed(Engine& engine, uint32_t window, Row& row) {
  SpeedOptions options;
  options.repetitions = 3;
  options.n_tokens = std::min<uint32_t>(32, window / 2);
  const SpeedResult decode = decode_speed(engine, options);
  row.decode = decode.tokens_per_second.median;
  row.bytes_per_second = decode.bytes_per_token * row.decode;
  options.n_tokens = window / 2;
  row.prefill = prefill_speed(engine, options).tokens_per_second.median;
}

Row measure(const CompareCommand& command, const std::string& format, Engine& reference,
            std::span<const TokenId> tokens) {
  Row row;
  row.format = format;
  const std::string folder = command.folder.empty() ? std::filesystem::temp_directory_path().string() : command.folder;
  const TemporaryFile file(fmt::format("{}/mneme-compare-{}-{}.gguf", folder, getpid(), format));
  try {
    Ledger ledger;
    const auto source = open_source(command.in, ledger);
    QuantizeOptions how = command.how;
    how.recipe = find_quant_recipe(format);
    if (how.recipe == nullptr) {
      how.size = parse_byte_size(format);
      how.recipe = find_quant_recipe("Q4_K");
    }
    const TranscodeReport report = quantize_model(*source, file.path(), how, ledger);
    row.tensor_bytes = report.bytes_after();
    row.bits_per_weight = report.bits_per_weight();
    Ledger run;
    const auto engine = Engine::load(file.path(), request_for(command), run);
    row.quality =
        divergence(reference, *engine, tokens, {command.window, command.max_windows}, [](uint64_t, uint64_t) {});
    measure_speed(*engine, command.window, row);
  } catch (const Error& error) {
    row.error = error.what();
  }
  return row;
}

const std::vector<std::string> kHeader = {"format",           "tensors",      "bits a weight",
                                          "perplexity",       "KL, nats",     "same top",
                                          "decode, tokens/s", "decode, GB/s", "prefill, tokens/s"};

std::vector<std::string> cells(const Row& row) {
  if (!row.error.empty()) return {row.format, row.error, "", "", "", "", "", "", ""};
  return {row.format,
          format_byte_size(row.tensor_bytes),
          fmt::format("{:.3f}", row.bits_per_weight),
          fmt::format("{:.4f}", row.quality.perplexity),
          row.quality.identical ? "identical" : fmt::format("{:.6f}", row.quality.kl),
          fmt::format("{:.2f} %", 100 * row.quality.same_top),
          fmt::format("{:.1f}", row.decode),
          fmt::format("{:.2f}", row.bytes_per_second / 1e9),
          fmt::format("{:.0f}", row.prefill)};
}

void write_report(const CompareCommand& command, const std::vector<Row>& rows) {
  HtmlReport report("Formats compared");
  report.paragraph(fmt::format("{} on {} in windows of {} tokens, the second half of each scored.", command.in,
                               command.text, command.window));
  std::vector<std::vector<std::string>> table;
  ChartSeries series{"formats", {}, {}};
  std::vector<std::pair<double, double>> points;
  for (const Row& row : rows) {
    table.push_back(cells(row));
    if (row.error.empty()) points.emplace_back(row.bits_per_weight, row.quality.perplexity);
  }
  std::sort(points.begin(), points.end());
  for (const auto& [x, y] : points) {
    series.x.push_back(x);
    series.y.push_back(y);
  }
  report.table(kHeader, table);
  report.chart({"Perplexity against size", "bits a weight", "perplexity", true, false, {series}});
  AtomicFile file(command.html);
  file.write(report.page());
  file.commit();
}

}  // namespace

void compare_formats(const CompareCommand& command, const GlobalOptions& global) {
  const std::string text = read_text_file(command.text);
  Ledger ledger;
  const auto reference = Engine::load(command.in, request_for(command), ledger);
  const std::vector<TokenId> tokens = reference->tokenizer().encode(text, {false, false});
  std::vector<Row> rows(1);
  rows[0].format = "original";
  rows[0].tensor_bytes = reference->file().tensor_bytes();
  uint64_t elements = 0;
  for (const NamedTensor& tensor : reference->file().tensors()) elements += tensor.view.shape.elements();
  rows[0].bits_per_weight = 8.0 * static_cast<double>(rows[0].tensor_bytes) / static_cast<double>(elements);
  Progress progress("compare", command.formats.size() + 1, "formats");
  rows[0].quality =
      divergence(*reference, *reference, tokens, {command.window, command.max_windows}, [](uint64_t, uint64_t) {});
  measure_speed(*reference, command.window, rows[0]);
  for (const std::string& format : command.formats) {
    progress.update(rows.size(), format);
    rows.push_back(measure(command, format, *reference, tokens));
  }
  progress.update(rows.size());
  if (!command.html.empty()) write_report(command, rows);
  if (global.json) {
    Json out = Json::array();
    for (const Row& row : rows) {
      out.push_back(row.error.empty() ? Json{{"format", row.format},
                                             {"tensor_bytes", row.tensor_bytes},
                                             {"bits_per_weight", row.bits_per_weight},
                                             {"perplexity", row.quality.perplexity},
                                             {"kl", row.quality.kl},
                                             {"same_top", row.quality.same_top},
                                             {"identical", row.quality.identical},
                                             {"tokens_scored", row.quality.n_scored},
                                             {"decode_tokens_per_second", row.decode},
                                             {"decode_bytes_per_second", row.bytes_per_second},
                                             {"prefill_tokens_per_second", row.prefill}}
                                      : Json{{"format", row.format}, {"error", row.error}});
    }
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("{:<10} {:>10} {:>7} {:>11} {:>10} {:>9} {:>10} {:>7} {:>9}\n", "format", "tensors", "bits", "perplexity",
             "KL", "same top", "decode/s", "GB/s", "prefill/s");
  for (const Row& row : rows) {
    const std::vector<std::string> c = cells(row);
    if (row.error.empty()) {
      fmt::print("{:<10} {:>10} {:>7} {:>11} {:>10} {:>9} {:>10} {:>7} {:>9}\n", c[0], c[1], c[2], c[3], c[4], c[5],
                 c[6], c[7], c[8]);
    } else {
      fmt::print("{:<10} {}\n", c[0], c[1]);
    }
  }
}

}  // namespace mneme::cli
