#include "weights/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <unordered_set>
#include <utility>

#include "base/atomic_file.h"
#include "base/checked_math.h"
#include "base/error.h"
#include "base/json.h"

namespace mneme {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct SafeType {
  std::string_view name;
  uint64_t bits;
  std::optional<DType> dtype;
};
constexpr std::array<SafeType, 22> kTypes = {{{"BOOL", 8, {}},
                                              {"U8", 8, {}},
                                              {"I8", 8, DType::kI8},
                                              {"I16", 16, DType::kI16},
                                              {"U16", 16, {}},
                                              {"I32", 32, DType::kI32},
                                              {"U32", 32, {}},
                                              {"I64", 64, DType::kI64},
                                              {"U64", 64, {}},
                                              {"F16", 16, DType::kF16},
                                              {"BF16", 16, DType::kBF16},
                                              {"F32", 32, DType::kF32},
                                              {"F64", 64, DType::kF64},
                                              {"C64", 64, {}},
                                              {"F8_E4M3", 8, {}},
                                              {"F8_E5M2", 8, {}},
                                              {"F8_E8M0", 8, {}},
                                              {"F8_E4M3FNUZ", 8, {}},
                                              {"F8_E5M2FNUZ", 8, {}},
                                              {"F6_E2M3", 6, {}},
                                              {"F6_E3M2", 6, {}},
                                              {"F4", 4, {}}}};

const SafeType* find_type(std::string_view name) {
  for (const SafeType& type : kTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

/// One tensor of the header before it is checked.
struct Entry {
  std::string name, dtype;
  std::vector<uint64_t> shape, offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

std::string printable(std::string_view text) {
  const std::string quoted = SortedJson(text.substr(0, 120)).dump(-1, ' ', true, SortedJson::error_handler_t::replace);
  return quoted.substr(1, quoted.size() - 2);
}

/// Takes the events of the JSON parser and builds the entries. Structure that the format does not have ends the parse
/// at once, so nothing deep or large is ever stored.
class HeaderHandler : public nlohmann::json_sax<SortedJson> {
 public:
  HeaderHandler(std::vector<Entry>& entries, const std::string& source) : entries_(entries), source_(source) {}

  bool null() override { reject("null"); }
  bool boolean(bool) override { reject("a bool"); }
  bool number_integer(number_integer_t) override { reject("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { reject("a fraction"); }
  bool binary(binary_t&) override { reject("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kShape && place_ != Place::kOffsets) reject("a number");
    std::vector<uint64_t>& list = place_ == Place::kShape ? entries_.back().shape : entries_.back().offsets;
    list.push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kEntry || key_ != "dtype") reject("a string");
    entries_.back().dtype = std::move(value);
    entries_.back().has_dtype = true;
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop && key_ == "__metadata__") {
      place_ = Place::kMetadata;
      metadata_keys_.clear();
    } else if (place_ == Place::kTop) {
      place_ = Place::kEntry;
      entries_.emplace_back();
      entries_.back().name = key_;
    } else {
      reject("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    bool fresh = true;
    if (place_ == Place::kTop) {
      fresh = names_.insert(name).second;
    } else if (place_ == Place::kMetadata) {
      fresh = metadata_keys_.insert(name).second;
    } else {
      const Entry& entry = entries_.back();
      if (name == "dtype") {
        fresh = !entry.has_dtype;
      } else if (name == "shape") {
        fresh = !entry.has_shape;
      } else if (name == "data_offsets") {
        fresh = !entry.has_offsets;
      } else {
        reject(fmt::format("key '{}'", printable(name)));
      }
    }
    if (!fresh) {
      fail(ErrorCode::kCorruptData, "[read safetensors] expected keys once, found '{}' again, in {}", printable(name),
           source_);
    }
    key_ = std::move(name);
    return true;
  }

  bool end_object() override {
    place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kEntry || (key_ != "shape" && key_ != "data_offsets")) reject("an array");
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    (place_ == Place::kShape ? entries_.back().has_shape : entries_.back().has_offsets) = true;
    return true;
  }

  bool end_array() override {
    place_ = Place::kEntry;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail(ErrorCode::kCorruptData, "[read safetensors] expected a JSON header, found bad syntax at byte {} of it, in {}",
         position, source_);
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kEntry, kShape, kOffsets, kEnd };

  [[noreturn]] void reject(std::string_view found) const {
    const bool in_tensor = place_ == Place::kEntry || place_ == Place::kShape || place_ == Place::kOffsets;
    const std::string where = in_tensor                    ? fmt::format("tensor '{}'", printable(entries_.back().name))
                              : place_ == Place::kMetadata ? std::string("'__metadata__'")
                                                           : fmt::format("key '{}'", printable(key_));
    const std::string_view expected = in_tensor                    ? "dtype, shape and data_offsets"
                                      : place_ == Place::kMetadata ? "strings"
                                                                   : "an object";
    fail(ErrorCode::kCorruptData, "[read safetensors] {}: expected {}, found {}, in {}", where, expected, found,
         source_);
  }

  std::vector<Entry>& entries_;
  const std::string& source_;
  Place place_ = Place::kStart;
  std::string key_;
  std::unordered_set<std::string> names_, metadata_keys_;
};

/// Checks an entry on its own and gives the size that dtype and shape make, bytes.
uint64_t entry_bytes(const Entry& entry, const std::string& source) {
  const std::string name = printable(entry.name);
  if (!entry.has_dtype || !entry.has_shape || entry.offsets.size() != 2) {
    fail(ErrorCode::kCorruptData,
         "[read safetensors] tensor '{}': expected dtype, shape and two data_offsets, found less, in {}", name, source);
  }
  const SafeType* type = find_type(entry.dtype);
  if (type == nullptr) {
    fail(ErrorCode::kUnsupported, "[read safetensors] tensor '{}': expected a known dtype, found '{}', in {}", name,
         printable(entry.dtype), source);
  }
  std::optional<uint64_t> bits = type->bits;
  for (uint64_t extent : entry.shape) {
    if (bits) bits = checked_mul(*bits, extent);
  }
  if (!bits || *bits % 8 != 0) {
    fail(ErrorCode::kCorruptData,
         "[read safetensors] tensor '{}': expected a shape of whole bytes below 2^61, found [{}] of {}, in {}", name,
         fmt::join(entry.shape, ", "), type->name, source);
  }
  return *bits / 8;
}

}  // namespace

std::vector<SafeTensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& source) {
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes) {
    fail(ErrorCode::kCorruptData, "[read safetensors] expected at least 8 bytes, found {}, in {}", bytes.size(),
         source);
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  const uint64_t most = std::min<uint64_t>(kMaxHeaderBytes, bytes.size() - sizeof header_bytes);
  if (header_bytes > most) {
    fail(ErrorCode::kCorruptData, "[read safetensors] expected a header of at most {} bytes, found a size of {}, in {}",
         most, header_bytes, source);
  }
  const char* header = reinterpret_cast<const char*>(bytes.data()) + sizeof header_bytes;
  if (header_bytes == 0 || *header != '{') {
    fail(ErrorCode::kCorruptData, "[read safetensors] expected a header that begins with '{{', found none, in {}",
         source);
  }
  std::vector<Entry> entries;
  HeaderHandler handler(entries, source);
  SortedJson::sax_parse(header, header + header_bytes, &handler);

  const std::span<const std::byte> data = bytes.subspan(sizeof header_bytes + header_bytes);
  for (const Entry& entry : entries) {
    const uint64_t expected = entry_bytes(entry, source);
    if (entry.offsets[1] < entry.offsets[0] || entry.offsets[1] - entry.offsets[0] != expected) {
      fail(ErrorCode::kCorruptData,
           "[read safetensors] tensor '{}': expected {} bytes, found data_offsets [{}, {}], in {}",
           printable(entry.name), expected, entry.offsets[0], entry.offsets[1], source);
    }
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.offsets < b.offsets; });
  std::vector<SafeTensor> tensors;
  uint64_t end = 0;
  for (Entry& entry : entries) {
    if (entry.offsets[0] != end) {
      fail(ErrorCode::kCorruptData,
           "[read safetensors] tensor '{}': expected data from {} on, without hole or overlap, found {}, in {}",
           printable(entry.name), end, entry.offsets[0], source);
    }
    end = entry.offsets[1];
    if (end > data.size()) {
      fail(ErrorCode::kCorruptData, "[read safetensors] tensor '{}': file truncated: need {} bytes, have {}, in {}",
           printable(entry.name), sizeof header_bytes + header_bytes + end, bytes.size(), source);
    }
    const SafeType* type = find_type(entry.dtype);
    tensors.push_back({std::move(entry.name), type->name, type->dtype, std::move(entry.shape),
                       data.subspan(entry.offsets[0], entry.offsets[1] - entry.offsets[0])});
  }
  if (end != data.size()) {
    fail(ErrorCode::kCorruptData, "[read safetensors] expected tensors to fill {} bytes of data, found {}, in {}",
         data.size(), end, source);
  }
  return tensors;
}

const SafeTensor* SafetensorsSet::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

void SafetensorsSet::add_file(const std::string& path) {
  files_.emplace_back(path);
  for (SafeTensor& tensor : parse_safetensors(files_.back().bytes(), path)) {
    if (!by_name_.emplace(tensor.name, tensors_.size()).second) {
      fail(ErrorCode::kCorruptData, "[read safetensors] tensor '{}': expected it in one file, found it again, in {}",
           printable(tensor.name), path);
    }
    tensors_.push_back(std::move(tensor));
  }
}

SafetensorsSet SafetensorsSet::open(const std::string& path) {
  namespace fs = std::filesystem;
  SafetensorsSet set;
  fs::path file = path;
  if (fs::is_directory(file)) {
    file = fs::exists(file / "model.safetensors.index.json") ? file / "model.safetensors.index.json"
                                                             : file / "model.safetensors";
  }
  if (!file.string().ends_with(".index.json")) {
    set.add_file(file.string());
    return set;
  }
  const std::string source = file.string();
  const SortedJson index = parse_sorted_json(read_text_file(source, kMaxHeaderBytes), source);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object() || map->empty()) {
    fail(ErrorCode::kCorruptData, "[read index] expected an object 'weight_map' with tensors, found none, in {}",
         source);
  }
  std::map<std::string, std::vector<std::string>> by_file;
  for (const auto& [tensor, name] : map->items()) {
    if (!name.is_string()) {
      fail(ErrorCode::kCorruptData, "[read index] tensor '{}': expected a file name, found {}, in {}",
           printable(tensor), name.type_name(), source);
    }
    by_file[name.get<std::string>()].push_back(tensor);
  }
  for (const auto& [name, tensors] : by_file) {
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
        name.find('\\') != std::string::npos || name.find('\0') != std::string::npos) {
      fail(ErrorCode::kCorruptData, "[read index] tensor '{}': expected a plain file name, found '{}', in {}",
           printable(tensors.front()), printable(name), source);
    }
    set.add_file((file.parent_path() / name).string());
    const MappedFile& mapped = set.files_.back();
    for (const std::string& tensor : tensors) {
      const SafeTensor* found = set.find(tensor);
      // Data of another file would lie outside this mapping; tensors without data are in any.
      const bool here = found != nullptr && found->bytes.data() >= mapped.bytes().data() &&
                        found->bytes.data() <= mapped.bytes().data() + mapped.size();
      if (!here) {
        fail(ErrorCode::kCorruptData, "[read index] tensor '{}': expected it in {}, found it not there, in {}",
             printable(tensor), printable(name), source);
      }
    }
  }
  return set;
}

}  // namespace mneme
