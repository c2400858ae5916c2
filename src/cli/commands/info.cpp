#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <string>

#include "base/byte_size.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/escaped.h"
#include "weights/model_summary.h"

namespace mneme::cli {
namespace {

struct InfoOptions {
  std::string model;
  bool tensors = false, metadata = false, check = false;
};

/// Elements of an array that are shown without --metadata.
constexpr uint64_t kFewElements = 8;

template <typename T>
Json first_of(const T& values, uint64_t most) {
  Json out = Json::array();
  for (const auto& value : values) {
    if (out.size() >= most) break;
    out.push_back(value);
  }
  return out;
}

/// The double with the shortest digits that round to `value`: 1e-05 instead of 9.999999747378752e-06.
Json shortest(float value) { return std::isfinite(value) ? Json(std::stod(fmt::format("{}", value))) : Json(value); }

/// A metadata value; of an array the first `most` elements.
Json to_json(const Metadata& metadata, const std::string& key, const MetadataValue& value, uint64_t most) {
  const bool is_array = value.type == ValueType::kArray;
  switch (is_array ? value.element_type : value.type) {
    case ValueType::kString:
      return is_array ? first_of(value.strings, most) : Json(value.text());
    case ValueType::kBool:
      return is_array ? first_of(*metadata.find_array_bool(key), most) : Json(metadata.get_bool(key));
    case ValueType::kF32:
      if (!is_array) return shortest(static_cast<float>(metadata.get_f64(key)));
      [[fallthrough]];
    case ValueType::kF64:
      return is_array ? first_of(*metadata.find_array_f64(key), most) : Json(metadata.get_f64(key));
    case ValueType::kI64:
      return is_array ? first_of(*metadata.find_array_f64(key), most) : Json(metadata.get_i64(key));
    case ValueType::kI8:
    case ValueType::kI16:
    case ValueType::kI32:
      return is_array ? first_of(*metadata.find_array_i32(key), most) : Json(metadata.get_i64(key));
    default:
      return is_array ? first_of(*metadata.find_array_u64(key), most) : Json(metadata.get_u64(key));
  }
}

Json metadata_json(const Metadata& metadata, bool all) {
  Json out = Json::object();
  for (const auto& [key, value] : metadata.entries()) {
    if (value.type == ValueType::kArray && value.count > kFewElements && !all) {
      out[key] = {{"type", value.type_text()}, {"first", to_json(metadata, key, value, kFewElements)}};
    } else {
      out[key] = to_json(metadata, key, value, ~uint64_t{0});
    }
  }
  return out;
}

/// JSON text of file content, which need not be valid UTF-8.
std::string dump(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

void print_json(const ModelFile& model, const ModelSummary& s, const InfoOptions& options) {
  Json out = {{"path", model.path()},
              {"architecture", s.architecture},
              {"name", s.name},
              {"parameters", s.parameters},
              {"tensors", s.n_tensors},
              {"files", s.n_files},
              {"file_bytes", s.file_bytes},
              {"tensor_bytes", s.tensor_bytes},
              {"bits_per_weight", s.bits_per_weight()},
              {"tokenizer", s.tokenizer},
              {"chat_template", s.has_chat_template}};
  const auto put = [&](const char* key, const std::optional<uint64_t>& value) {
    if (value) out[key] = *value;
  };
  put("layers", s.n_layers);
  put("width", s.width);
  put("heads", s.n_heads);
  put("kv_heads", s.n_kv_heads);
  put("feed_forward", s.hidden);
  put("experts", s.n_experts);
  put("experts_used", s.n_experts_used);
  put("context", s.context);
  put("vocabulary", s.n_vocab);
  out["types"] = Json::array();
  for (const TypeSummary& type : s.types) {
    out["types"].push_back({{"type", dtype_info(type.dtype).name},
                            {"tensors", type.n_tensors},
                            {"elements", type.elements},
                            {"bytes", type.bytes}});
  }
  out["metadata"] = metadata_json(model.metadata(), options.metadata);
  if (options.tensors) {
    out["tensor_list"] = Json::array();
    for (const NamedTensor& tensor : model.tensors()) {
      Json shape = Json::array();
      for (size_t i = 0; i < tensor.view.shape.rank(); ++i) shape.push_back(tensor.view.shape[i]);
      out["tensor_list"].push_back({{"name", tensor.name},
                                    {"type", dtype_info(tensor.view.dtype).name},
                                    {"shape", std::move(shape)},
                                    {"bytes", tensor.view.bytes()}});
    }
  }
  if (options.check) out["values"] = "finite";
  fmt::print("{}\n", dump(out, 2));
}

std::string count_text(uint64_t n) {
  const auto value = static_cast<double>(n);
  if (n >= 1'000'000'000) return fmt::format("{:.2f} G", value / 1e9);
  if (n >= 1'000'000) return fmt::format("{:.1f} M", value / 1e6);
  return fmt::format("{}", n);
}

void print_line(std::string_view label, const std::string& text) {
  if (!text.empty()) fmt::print("{:<14}{}\n", label, text);
}

std::string shape_text(const ModelSummary& s) {
  std::string out;
  const auto add = [&](const char* label, const std::optional<uint64_t>& value) {
    if (value) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", label, *value);
  };
  add("layers", s.n_layers);
  add("width", s.width);
  add("heads", s.n_heads);
  add("kv heads", s.n_kv_heads);
  add("feed-forward", s.hidden);
  add("experts", s.n_experts);
  add("used", s.n_experts_used);
  add("context", s.context);
  return out;
}

void print_text(const ModelFile& model, const ModelSummary& s, const InfoOptions& options) {
  print_line("file", fmt::format("{} ({}{})", model.path(), format_byte_size(s.file_bytes),
                                 s.n_files > 1 ? fmt::format(" in {} files", s.n_files) : ""));
  print_line("name", escaped(s.name));
  print_line("architecture", escaped(s.architecture));
  print_line("shape", shape_text(s));
  print_line("parameters", fmt::format("{} in {} tensors, {}, {:.2f} bits each", count_text(s.parameters), s.n_tensors,
                                       format_byte_size(s.tensor_bytes), s.bits_per_weight()));
  for (const TypeSummary& type : s.types) {
    print_line(type.dtype == s.types.front().dtype ? "types" : "",
               fmt::format("{:<8}{:>6} tensors {:>10} elements {:>11}", dtype_info(type.dtype).name, type.n_tensors,
                           count_text(type.elements), format_byte_size(type.bytes)));
  }
  if (s.n_vocab) {
    print_line("vocabulary", fmt::format("{} tokens, {}{}", *s.n_vocab, escaped(s.tokenizer),
                                         s.has_chat_template ? ", with chat template" : ""));
  }
  if (options.check) print_line("values", "all finite");
  if (options.metadata) {
    fmt::print("\nmetadata\n");
    for (const auto& [key, value] : model.metadata().entries()) {
      const bool long_array = value.type == ValueType::kArray && value.count > kFewElements;
      fmt::print("  {} = {}{}\n", escaped(key), dump(to_json(model.metadata(), key, value, kFewElements), -1),
                 long_array ? fmt::format(" and more ({})", value.type_text()) : "");
    }
  }
  if (options.tensors) {
    fmt::print("\ntensors\n");
    for (const NamedTensor& tensor : model.tensors()) {
      fmt::print("  {:<40} {:<8}{:>24} {:>11}\n", escaped(tensor.name), dtype_info(tensor.view.dtype).name,
                 tensor.view.shape.to_string(), format_byte_size(tensor.view.bytes()));
    }
  }
}

void show(const InfoOptions& options, const GlobalOptions& global) {
  Ledger ledger;
  const ModelFile model = open_model(options.model, ledger);
  if (options.check) check_tensor_values(model);
  const ModelSummary summary = summarize(model);
  if (global.json) {
    print_json(model, summary, options);
  } else {
    print_text(model, summary, options);
  }
}

}  // namespace

void add_info(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<InfoOptions>();
  CLI::App* command = app.add_subcommand("info", "Show what a model file holds, from its headers");
  command->add_option("MODEL", options->model, "GGUF file, or folder of a Hugging Face checkpoint")->required();
  command->add_flag("--tensors", options->tensors, "List all tensors (default: off)");
  command->add_flag("--metadata", options->metadata, "List all metadata; with --json whole arrays (default: off)");
  command->add_flag("--check", options->check, "Read all tensors and look for NaN and infinity (default: off)");
  command->footer("Example: mneme info model.gguf --tensors");
  command->callback([options, &global] { show(*options, global); });
}

}  // namespace mneme::cli
