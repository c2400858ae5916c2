#include "cli/transcode_report.h"

#include <fmt/format.h>

#include "base/byte_size.h"
#include "base/json.h"
#include "cli/escaped.h"

namespace mneme::cli {

void print_transcode_report(const TranscodeReport& report, const std::string& path, const GlobalOptions& global) {
  if (global.json) {
    Json tensors = Json::array();
    for (const TensorReport& tensor : report.tensors) {
      tensors.push_back({{"name", tensor.name},
                         {"from", dtype_info(tensor.from).name},
                         {"to", dtype_info(tensor.to).name},
                         {"bytes", tensor.bytes_after},
                         {"relative_error", tensor.relative_error()}});
    }
    const Json out = {{"path", path},
                      {"file_bytes", report.file_bytes},
                      {"tensor_bytes_before", report.bytes_before()},
                      {"tensor_bytes", report.bytes_after()},
                      {"parameters", report.elements()},
                      {"bits_per_weight", report.bits_per_weight()},
                      {"relative_error", report.relative_error()},
                      {"notes", report.notes},
                      {"tensors", std::move(tensors)}};
    fmt::print("{}\n", out.dump(2, ' ', false, Json::error_handler_t::replace));
    return;
  }
  for (const std::string& note : report.notes) fmt::print(stderr, "note: {}\n", escaped(note));
  if (global.verbose) {
    for (const TensorReport& tensor : report.tensors) {
      fmt::print("{:<40} {:<6} -> {:<6} {:>24} {:>11} -> {:>11}  error {:.5f}\n", escaped(tensor.name),
                 dtype_info(tensor.from).name, dtype_info(tensor.to).name, tensor.shape.to_string(),
                 format_byte_size(tensor.bytes_before), format_byte_size(tensor.bytes_after), tensor.relative_error());
    }
  }
  fmt::print("{}: {} (tensors {} -> {}), {:.2f} bits per weight, relative error {:.5f}\n", path,
             format_byte_size(report.file_bytes), format_byte_size(report.bytes_before()),
             format_byte_size(report.bytes_after()), report.bits_per_weight(), report.relative_error());
}

}  // namespace mneme::cli
