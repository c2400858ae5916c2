#include "weights/gguf_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/log.h"
#include "tensor/weight_format.h"
#include "weights/stack_file.h"

namespace mneme {
namespace {

constexpr uint64_t kHeaderBytes = 24;
constexpr uint64_t kLeastEntryBytes = 13;   // Length of the key, one byte of key or value each, type.
constexpr uint64_t kLeastTensorBytes = 25;  // Length of the name, one byte of it, n_dims, type, offset.
constexpr uint64_t kMaxCount = uint64_t{1} << 30;
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxNameBytes = 63;
constexpr uint32_t kDefaultAlignment = 32;
constexpr uint32_t kLeastAlignment = 8;
constexpr std::string_view kAlignmentKey = "general.alignment";

/// Reads little-endian fields one after the other; each read is checked against the end of the bytes.
class FieldReader {
 public:
  FieldReader(std::span<const std::byte> bytes, const std::string& source) : bytes_(bytes), source_(source) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }

  template <typename T>
  T number(std::string_view what) {
    T value{};
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::span<const std::byte> take(uint64_t n, std::string_view what) {
    if (n > remaining()) {
      fail(ErrorCode::kCorruptData, "[read GGUF] {}: expected {} more bytes, found {}, at offset {} of {}", what, n,
           remaining(), position_, source_);
    }
    const auto part = bytes_.subspan(position_, n);
    position_ += n;
    return part;
  }

  std::span<const std::byte> string(std::string_view what) {
    const auto length = number<uint64_t>(what);
    if (length > remaining() || length > kMaxCount) {
      fail(ErrorCode::kCorruptData, "[read GGUF] {}: expected a string of at most {} bytes, found length {}, in {}",
           what, std::min(remaining(), kMaxCount), length, source_);
    }
    return take(length, what);
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& source_;
  uint64_t position_ = 0;
};

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Text from a file made fit for a one-line message.
std::string printable(std::string_view text) {
  std::string out;
  for (char c : text.substr(0, 80)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
  }
  return text.size() > 80 ? out + "..." : out;
}

class GgufParser {
 public:
  GgufParser(std::span<const std::byte> bytes, const std::string& source)
      : bytes_(bytes), source_(source), reader_(bytes, source) {
    contents_.metadata = Metadata(source);
  }

  GgufContents parse() {
    read_header();
    for (uint64_t i = 0; i < n_entries_; ++i) read_entry(i);
    read_alignment();
    for (uint64_t i = 0; i < n_tensors_; ++i) read_tensor_info(i);
    place_tensors();
    return std::move(contents_);
  }

 private:
  void read_header() {
    if (bytes_.size() < kHeaderBytes) {
      fail(ErrorCode::kCorruptData, "[read GGUF] expected at least {} bytes of header, found {}, in {}", kHeaderBytes,
           bytes_.size(), source_);
    }
    const std::string_view magic = text_of(reader_.take(4, "magic"));
    if (magic != "GGUF") {
      fail(ErrorCode::kCorruptData, "[read GGUF] expected the magic 'GGUF', found '{}', in {}", printable(magic),
           source_);
    }
    const auto version = reader_.number<uint32_t>("version");
    if (version != 0 && (version & 0xffffu) == 0) {
      fail(ErrorCode::kUnsupported,
           "[read GGUF] expected version 2 or 3, found {:#x}: the file has the other endianness, in {}", version,
           source_);
    }
    if (version != 2 && version != 3) {
      fail(ErrorCode::kUnsupported, "[read GGUF] expected version 2 or 3, found {}, in {}", version, source_);
    }
    n_tensors_ = reader_.number<uint64_t>("tensor count");
    n_entries_ = reader_.number<uint64_t>("metadata count");
    check_count("tensors", n_tensors_, kLeastTensorBytes);
    check_count("metadata entries", n_entries_, kLeastEntryBytes);
  }

  void check_count(std::string_view what, uint64_t count, uint64_t least_bytes) {
    const uint64_t most = reader_.remaining() / least_bytes;
    if (count > most) {
      fail(ErrorCode::kCorruptData, "[read GGUF] expected at most {} {} in {} bytes, found a count of {}, in {}", most,
           what, bytes_.size(), count, source_);
    }
  }

  void read_entry(uint64_t i) {
    const std::string_view key = text_of(reader_.string(fmt::format("key of metadata entry {}", i)));
    if (key.empty() || key.size() > kMaxKeyBytes) {
      fail(ErrorCode::kCorruptData,
           "[read GGUF] metadata entry {}: expected a key of 1 to {} bytes, found {} bytes, in {}", i, kMaxKeyBytes,
           key.size(), source_);
    }
    const std::string what = fmt::format("key '{}'", printable(key));
    if (contents_.metadata.has(key)) {
      fail(ErrorCode::kCorruptData, "[read GGUF] {}: expected it once, found it again, in {}", what, source_);
    }
    const bool usual = std::all_of(key.begin(), key.end(), [](unsigned char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
    });
    if (!usual) log().info("{} in {} is not lower_snake_case", what, source_);
    contents_.metadata.set(key, read_value(what));
  }

  ValueType read_type(const std::string& what) {
    const auto id = reader_.number<uint32_t>(what);
    if (id > static_cast<uint32_t>(ValueType::kF64)) {
      fail(ErrorCode::kCorruptData, "[read GGUF] {}: expected a value type of 0 to 12, found {}, in {}", what, id,
           source_);
    }
    return static_cast<ValueType>(id);
  }

  MetadataValue read_value(const std::string& what) {
    MetadataValue value;
    value.type = read_type(what);
    if (value.type == ValueType::kString) {
      value.bytes = reader_.string(what);
    } else if (value.type == ValueType::kArray) {
      read_array(what, value);
    } else {
      value.bytes = reader_.take(value_type_bytes(value.type), what);
      if (value.type == ValueType::kBool) check_bools(what, value.bytes);
    }
    return value;
  }

  void read_array(const std::string& what, MetadataValue& value) {
    value.element_type = read_type(what);
    if (value.element_type == ValueType::kArray) {
      fail(ErrorCode::kCorruptData, "[read GGUF] {}: expected an array of plain values, found nested arrays, in {}",
           what, source_);
    }
    value.count = reader_.number<uint64_t>(what);
    const bool of_strings = value.element_type == ValueType::kString;
    const uint64_t least_bytes = of_strings ? sizeof(uint64_t) : value_type_bytes(value.element_type);
    const uint64_t most = std::min(kMaxCount, reader_.remaining() / least_bytes);
    if (value.count > most) {
      fail(ErrorCode::kCorruptData,
           "[read GGUF] {}: expected an array of at most {} elements, found a count of {}, in {}", what, most,
           value.count, source_);
    }
    if (of_strings) {
      value.strings.reserve(value.count);
      for (uint64_t i = 0; i < value.count; ++i) value.strings.push_back(text_of(reader_.string(what)));
      return;
    }
    value.bytes = reader_.take(value.count * least_bytes, what);
    if (value.element_type == ValueType::kBool) check_bools(what, value.bytes);
  }

  void check_bools(const std::string& what, std::span<const std::byte> bytes) {
    for (std::byte byte : bytes) {
      if (byte > std::byte{1}) {
        fail(ErrorCode::kCorruptData, "[read GGUF] {}: expected a bool of 0 or 1, found {}, in {}", what,
             static_cast<int>(byte), source_);
      }
    }
  }

  void read_alignment() {
    const MetadataValue* value = contents_.metadata.find(kAlignmentKey);
    if (value == nullptr) return;
    if (value->type != ValueType::kU32) {
      fail(ErrorCode::kCorruptData, "[read GGUF] key '{}': expected u32, found {}, in {}", kAlignmentKey,
           value->type_text(), source_);
    }
    const uint64_t alignment = contents_.metadata.get_u64(kAlignmentKey);
    if (!std::has_single_bit(alignment) || alignment < kLeastAlignment) {
      fail(ErrorCode::kCorruptData,
           "[read GGUF] key '{}': expected a power of two that is at least {}, found {}, in {}", kAlignmentKey,
           kLeastAlignment, alignment, source_);
    }
    alignment_ = alignment;
  }

  void read_tensor_info(uint64_t i) {
    const std::string_view name = text_of(reader_.string(fmt::format("name of tensor {}", i)));
    if (name.empty() || name.size() > kMaxNameBytes) {
      fail(ErrorCode::kCorruptData, "[read GGUF] tensor {}: expected a name of 1 to {} bytes, found {} bytes, in {}", i,
           kMaxNameBytes, name.size(), source_);
    }
    const std::string what = fmt::format("tensor '{}'", printable(name));
    if (!names_.insert(std::string(name)).second) {
      fail(ErrorCode::kCorruptData, "[read GGUF] {}: expected it once, found it again, in {}", what, source_);
    }
    NamedTensor tensor;
    tensor.name = name;
    tensor.view.shape = read_shape(what);
    const auto id = reader_.number<uint32_t>(what);
    const DTypeInfo* info = find_dtype(id);
    if (info == nullptr) {
      fail(ErrorCode::kUnsupported, "[read GGUF] {}: expected a known tensor type, found type id {}, in {}", what, id,
           source_);
    }
    tensor.view.dtype = info->dtype;
    may_be_cut_ = name == bitstack::kBlocksName && info->dtype == DType::kI8 && tensor.view.shape.rank() == 1;
    check_size(what, tensor.view.shape, *info);
    offsets_.push_back(reader_.number<uint64_t>(what));
    contents_.tensors.push_back(std::move(tensor));
  }

  Shape read_shape(const std::string& what) {
    const auto n_dims = reader_.number<uint32_t>(what);
    if (n_dims > Shape::kMaxRank) {
      fail(ErrorCode::kCorruptData, "[read GGUF] {}: expected at most {} dimensions, found {}, in {}", what,
           Shape::kMaxRank, n_dims, source_);
    }
    if (n_dims == 0) return Shape{1};
    Shape shape;
    uint64_t elements = 1;
    for (uint32_t i = 0; i < n_dims; ++i) {
      const auto extent = reader_.number<uint64_t>(what);
      const auto product = checked_mul(elements, extent);
      if (extent == 0 || !product || *product > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        fail(ErrorCode::kCorruptData,
             "[read GGUF] {}: expected dimensions from 1 whose product is below 2^63, found {} as dimension {}, in {}",
             what, extent, i, source_);
      }
      elements = *product;
      shape.push_outer(extent);
    }
    return shape;
  }

  void check_size(const std::string& what, const Shape& shape, const DTypeInfo& info) {
    if (is_stream(info.dtype)) {
      if (const std::string misfit = weight_format(info.dtype).misfit(shape); !misfit.empty()) {
        fail(ErrorCode::kCorruptData, "[read GGUF] {}: expected {} for type {}, found shape {}, in {}", what, misfit,
             info.name, shape.to_string(), source_);
      }
    }
    if (shape.from_last(0) % info.block_elements != 0) {
      fail(ErrorCode::kCorruptData,
           "[read GGUF] {}: expected rows of a multiple of {} elements for type {}, found shape {}, in {}", what,
           info.block_elements, info.name, shape.to_string(), source_);
    }
    const auto bytes = checked_mul(shape.elements() / info.block_elements, uint64_t{info.block_bytes});
    if ((!bytes || *bytes > bytes_.size()) && !may_be_cut_) {
      fail(ErrorCode::kCorruptData, "[read GGUF] {}: file truncated: {} of type {} is larger than the {} bytes of {}",
           what, shape.to_string(), info.name, bytes_.size(), source_);
    }
  }

  void place_tensors() {
    if (contents_.tensors.empty()) return;
    const auto start = checked_round_up(reader_.position(), alignment_);
    std::vector<size_t> order(contents_.tensors.size());
    for (size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
      place(contents_.tensors[i], offsets_[i], start);
    }
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return offsets_[a] < offsets_[b]; });
    for (size_t i = 1; i < order.size(); ++i) {
      const NamedTensor& before = contents_.tensors[order[i - 1]];
      const uint64_t end = offsets_[order[i - 1]] + before.view.bytes();
      if (end > offsets_[order[i]]) {
        fail(ErrorCode::kCorruptData,
             "[read GGUF] tensor '{}': expected offset {} or more, after tensor '{}', found {}, in {}",
             printable(contents_.tensors[order[i]].name), end, printable(before.name), offsets_[order[i]], source_);
      }
    }
  }

  void place(NamedTensor& tensor, uint64_t offset, std::optional<uint64_t> start) {
    if (offset % alignment_ != 0) {
      fail(ErrorCode::kCorruptData,
           "[read GGUF] tensor '{}': expected an offset that is a multiple of {}, found {}, in {}",
           printable(tensor.name), alignment_, offset, source_);
    }
    const auto begin = start ? checked_add(*start, offset) : std::nullopt;
    if (is_stream(tensor.view.dtype)) {
      const size_t at = begin ? std::min<uint64_t>(*begin, bytes_.size()) : bytes_.size();
      tensor.view.stream_bytes = stream_size(tensor.view.dtype, bytes_.subspan(at), printable(tensor.name));
    }
    if (tensor.name == bitstack::kBlocksName && tensor.view.dtype == DType::kI8 && begin && *begin < bytes_.size()) {
      // A file that ends inside the blocks of BitStack matrices is a smaller model.
      tensor.view.shape = {std::min<uint64_t>(tensor.view.shape.elements(), bytes_.size() - *begin)};
    }
    const auto end = begin ? checked_add<uint64_t>(*begin, tensor.view.bytes()) : std::nullopt;
    if (!end || *end > bytes_.size()) {
      fail(ErrorCode::kCorruptData, "[read GGUF] tensor '{}': file truncated: need {} bytes, have {}, in {}",
           printable(tensor.name), end ? fmt::to_string(*end) : "2^64 or more", bytes_.size(), source_);
    }
    tensor.view.data = bytes_.data() + *begin;
  }

  std::span<const std::byte> bytes_;
  const std::string& source_;
  FieldReader reader_;
  GgufContents contents_;
  std::unordered_set<std::string> names_;
  std::vector<uint64_t> offsets_;
  uint64_t n_tensors_ = 0, n_entries_ = 0, alignment_ = kDefaultAlignment;
  bool may_be_cut_ = false;  ///< Of the tensor being read.
};

/// Reads shards 2 to `count` and adds their tensors to `parts`, which holds those of the first.
void add_shards(ModelFile::Parts& parts, uint64_t count) {
  std::unordered_set<std::string> names;
  for (const NamedTensor& tensor : parts.tensors) names.insert(tensor.name);
  for (uint64_t number = 2; number <= count; ++number) {
    const std::string path = gguf_shard_path(parts.path, number, count);
    parts.files.emplace_back(path);
    GgufContents shard = parse_gguf(parts.files.back().bytes(), path);
    for (const auto& [key, expected] : {std::pair{"split.no", number - 1}, std::pair{"split.count", count}}) {
      if (const uint64_t found = shard.metadata.get_u64(key); found != expected) {
        fail(ErrorCode::kCorruptData, "[read GGUF] key '{}': expected {}, found {}, in {}", key, expected, found, path);
      }
    }
    for (NamedTensor& tensor : shard.tensors) {
      if (!names.insert(tensor.name).second) {
        fail(ErrorCode::kCorruptData, "[read GGUF] tensor '{}': expected it in one shard, found it again, in {}",
             printable(tensor.name), path);
      }
      parts.tensors.push_back(std::move(tensor));
    }
  }
}

}  // namespace

GgufContents parse_gguf(std::span<const std::byte> bytes, const std::string& source) {
  return GgufParser(bytes, source).parse();
}

std::string gguf_shard_path(const std::string& first, size_t number, size_t count) {
  const std::string suffix = fmt::format("-00001-of-{:05}.gguf", count);
  if (!first.ends_with(suffix)) {
    fail(ErrorCode::kInvalidArgument,
         "[open GGUF] expected the name of the first of {} shards to end in '{}', found {}", count, suffix, first);
  }
  return fmt::format("{}-{:05}-of-{:05}.gguf", first.substr(0, first.size() - suffix.size()), number, count);
}

ModelFile open_gguf(const std::string& path) {
  ModelFile::Parts parts;
  parts.path = path;
  parts.files.emplace_back(path);
  GgufContents first = parse_gguf(parts.files[0].bytes(), path);
  parts.metadata = std::move(first.metadata);
  parts.tensors = std::move(first.tensors);
  const uint64_t count = parts.metadata.find_u64("split.count").value_or(1);
  if (const uint64_t number = parts.metadata.find_u64("split.no").value_or(0); number != 0) {
    fail(ErrorCode::kInvalidArgument, "[open GGUF] expected the first of {} shards, found shard {}, in {}", count,
         number + 1, path);
  }
  if (count > 1) {
    add_shards(parts, count);
    const uint64_t total = parts.metadata.get_u64("split.tensors.count");
    if (total != parts.tensors.size()) {
      fail(ErrorCode::kCorruptData,
           "[read GGUF] key 'split.tensors.count': expected {} tensors, found {} in {} shards of {}", total,
           parts.tensors.size(), count, path);
    }
  }
  // The merged model is one file from here on: what is written from it must not claim to be a shard.
  for (const char* key : {"split.no", "split.count", "split.tensors.count"}) parts.metadata.erase(key);
  bitstack::bind_blocks(parts);
  return ModelFile(std::move(parts));
}

}  // namespace mneme
