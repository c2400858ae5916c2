#include "recall/index/index_file.h"

#include <xxhash.h>

#include "base/error.h"
#include "recall/index/byte_reader.h"

namespace mneme::ann {
namespace {

constexpr uint64_t kMagic = 0x5844494D454E4Du;  // "MNEMIDX" and a zero byte
constexpr uint32_t kVersion = 1;

struct Head {
  uint64_t magic;
  uint32_t version, kind, metric, reserved;
  uint64_t dimension, reserved2[3];
  uint64_t checksum;  ///< Of the 56 bytes before.
};
static_assert(sizeof(Head) == 64);

struct Tail {
  uint64_t payload_bytes, payload_checksum;
};

uint64_t checksum_of(const Head& head) {
  return XXH3_64bits(&head, sizeof head - sizeof head.checksum);
}

template <typename T>
std::string bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

}  // namespace

std::string index_file_head(const IndexFileHeader& header) {
  Head head{kMagic,
            kVersion,
            static_cast<uint32_t>(header.kind),
            static_cast<uint32_t>(header.metric),
            0,
            header.dimension,
            {0, 0, 0},
            0};
  head.checksum = checksum_of(head);
  return bytes_of(head);
}

std::string index_file_tail(uint64_t payload_bytes, uint64_t payload_checksum) {
  return bytes_of(Tail{payload_bytes, payload_checksum});
}

struct IndexFileWriter::Checksum {
  XXH3_state_t* state = XXH3_createState();
  Checksum() { XXH3_64bits_reset(state); }
  Checksum(const Checksum&) = delete;
  Checksum& operator=(const Checksum&) = delete;
  ~Checksum() { XXH3_freeState(state); }
};

IndexFileWriter::IndexFileWriter(const std::string& path, const IndexFileHeader& header)
    : file_(path), checksum_(std::make_unique<Checksum>()) {
  file_.write(index_file_head(header));
}

IndexFileWriter::~IndexFileWriter() = default;

void IndexFileWriter::write(std::span<const std::byte> bytes) {
  XXH3_64bits_update(checksum_->state, bytes.data(), bytes.size());
  payload_bytes_ += bytes.size();
  file_.write(bytes);
}

void IndexFileWriter::commit() {
  file_.write(index_file_tail(payload_bytes_, XXH3_64bits_digest(checksum_->state)));
  file_.commit();
}

IndexFile parse_index_file(std::span<const std::byte> bytes, IndexFileKind kind, std::string_view what) {
  ByteReader reader(bytes, what);
  const auto head = reader.get<Head>();
  if (head.magic != kMagic)
    fail(ErrorCode::kCorruptData, "[read index] {}: expected a vector index, found other bytes", what);
  if (head.version > kVersion) {
    fail(ErrorCode::kUnsupported, "[read index] {}: expected version {} or older, found {}", what, kVersion,
         head.version);
  }
  if (head.checksum != checksum_of(head)) {
    fail(ErrorCode::kCorruptData, "[read index] {}: expected the header's checksum, found damage", what);
  }
  if (head.kind != static_cast<uint32_t>(kind)) {
    fail(ErrorCode::kCorruptData, "[read index] {}: expected an index of kind {}, found {}", what,
         static_cast<uint32_t>(kind), head.kind);
  }
  if (head.version == 0 || head.metric > 2 || head.dimension == 0 || head.dimension > kMaxDimension) {
    fail(ErrorCode::kCorruptData, "[read index] {}: expected a known metric and dimension, found {} and {}", what,
         head.metric, head.dimension);
  }
  reader.expect_left(1, sizeof(Tail));
  const auto payload = reader.take(reader.left() - sizeof(Tail));
  const auto tail = reader.get<Tail>();
  if (tail.payload_bytes != payload.size()) {
    fail(ErrorCode::kCorruptData, "[read index] {}: expected {} bytes behind the header, found {}", what,
         tail.payload_bytes, payload.size());
  }
  if (tail.payload_checksum != XXH3_64bits(payload.data(), payload.size())) {
    fail(ErrorCode::kCorruptData, "[read index] {}: expected the content's checksum, found damage", what);
  }
  return {{kind, static_cast<Metric>(head.metric), head.dimension}, payload};
}

}  // namespace mneme::ann
