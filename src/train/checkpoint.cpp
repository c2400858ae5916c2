#include "train/checkpoint.h"

#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/checked_math.h"
#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"

namespace mneme::train {
namespace {

constexpr std::string_view kMagic = "MNEMECK1";
constexpr size_t kAlign = 64;
constexpr uint64_t kMostHeaderBytes = uint64_t{64} << 20;

struct Array {
  std::string name;
  std::span<std::byte> bytes;
};

std::vector<Array> arrays_of(const ParameterSet<float>& parameters, Optimizer* optimizer) {
  std::vector<Array> arrays;
  for (const auto& parameter : parameters.all()) {
    if (parameter.frozen) continue;
    const std::span<std::byte> bytes =
        parameter.stored != nullptr
            ? std::span(parameter.stored, parameter.packed.bytes())
            : std::span(reinterpret_cast<std::byte*>(parameter.value), parameter.size() * sizeof(float));
    arrays.push_back({"weight." + parameter.name, bytes});
  }
  if (optimizer != nullptr) {
    for (StateView& view : optimizer->state()) arrays.push_back({"state." + view.name, view.bytes});
  }
  return arrays;
}

/// Little-endian u64 at the start of the file after the magic: header length, then header checksum.
void append_u64(std::string& out, uint64_t value) {
  for (int i = 0; i < 8; ++i) out += static_cast<char>(value >> (8 * i));
}

uint64_t read_u64(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  return value;
}

}  // namespace

void write_checkpoint(const std::string& path, const Progression& progression, const ParameterSet<float>& parameters,
                      Optimizer& optimizer) {
  Json header = {{"step", progression.step},
                 {"tokens", progression.tokens},
                 {"seconds", progression.seconds},
                 {"loss_average", progression.loss_average},
                 {"optimizer", optimizer.name()}};
  const std::vector<Array> arrays = arrays_of(parameters, &optimizer);
  uint64_t offset = 0;
  for (const Array& array : arrays) {
    header["arrays"].push_back({{"name", array.name},
                                {"offset", offset},
                                {"bytes", array.bytes.size()},
                                {"xxh64", fmt::format("{:016x}", XXH64(array.bytes.data(), array.bytes.size(), 0))}});
    offset = round_up<uint64_t>(offset + array.bytes.size(), kAlign);
  }
  const std::string text = header.dump();
  std::string head(kMagic);
  append_u64(head, text.size());
  append_u64(head, XXH64(text.data(), text.size(), 0));
  head += text;
  head.resize(round_up(head.size(), kAlign), '\0');
  AtomicFile file(path);
  file.write(head);
  const std::string padding(kAlign, '\0');
  for (const Array& array : arrays) {
    file.write(array.bytes);
    file.write(std::string_view(padding).substr(0, round_up(array.bytes.size(), kAlign) - array.bytes.size()));
  }
  file.commit();
}

Progression read_checkpoint(const std::string& path, ParameterSet<float>& parameters, Optimizer* optimizer) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  constexpr size_t kFixed = 24;
  const auto corrupt = [&](const std::string& expected, const std::string& found) {
    fail(ErrorCode::kCorruptData, "[checkpoint] {}: expected {}, found {}", path, expected, found);
  };
  if (bytes.size() < kFixed || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    corrupt("a checkpoint", fmt::format("{} bytes without its mark", bytes.size()));
  }
  const uint64_t header_bytes = read_u64(bytes.subspan(8));
  if (header_bytes > kMostHeaderBytes || header_bytes > bytes.size() - kFixed) {
    corrupt("a header inside the file", fmt::format("a header of {} bytes", header_bytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kFixed, header_bytes);
  if (XXH64(text.data(), text.size(), 0) != read_u64(bytes.subspan(16))) corrupt("the header's checksum", "another");
  const Json header = parse_json(text, path);
  const auto data = bytes.subspan(std::min(bytes.size(), round_up<size_t>(kFixed + header_bytes, kAlign)));

  const std::vector<Array> arrays = arrays_of(parameters, optimizer);
  try {
    const Json& stored = header.at("arrays");
    for (const Array& array : arrays) {
      const auto found = std::find_if(stored.begin(), stored.end(), [&](const Json& a) { return a.at("name") == array.name; });
      if (found == stored.end()) corrupt(array.name, "no such array");
      const auto offset = found->at("offset").get<uint64_t>(), size = found->at("bytes").get<uint64_t>();
      if (size != array.bytes.size()) corrupt(fmt::format("{} of {} bytes", array.name, array.bytes.size()), fmt::format("{}", size));
      if (offset > data.size() || size > data.size() - offset) corrupt(array.name + " inside the file", "a shorter file");
      if (fmt::format("{:016x}", XXH64(data.data() + offset, size, 0)) != found->at("xxh64").get<std::string>()) {
        corrupt("the checksum of " + array.name, "another");
      }
      std::memcpy(array.bytes.data(), data.data() + offset, size);
    }
    return {header.at("step").get<uint64_t>(), header.at("tokens").get<uint64_t>(), header.at("seconds").get<double>(),
            header.at("loss_average").get<double>()};
  } catch (const Json::exception& e) {
    fail(ErrorCode::kCorruptData, "[checkpoint] {}: expected a header with its fields, found: {}", path, e.what());
  }
}

std::string checkpoint_name(uint64_t step) { return fmt::format("checkpoint-{:08}.bin", step); }

std::vector<std::string> list_checkpoints(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("checkpoint-") && name.ends_with(".bin")) paths.push_back(entry.path().string());
  }
  std::sort(paths.rbegin(), paths.rend());
  return paths;
}

}  // namespace mneme::train
