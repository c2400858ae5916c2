#include "weights/sentencepiece_model.h"

#include <bit>
#include <cstring>

#include "base/error.h"

namespace mneme {
namespace {

/// One field of a protocol buffer message: its number and a value of one of the two kinds used here.
struct Field {
  uint64_t number = 0;
  uint64_t integer = 0;    ///< Of varint and fixed-size fields.
  std::string_view bytes;  ///< Of length-delimited fields.
  bool is_bytes = false;
};

/// Reads the fields of one message in order.
class MessageReader {
 public:
  MessageReader(std::string_view bytes, const std::string& source) : rest_(bytes), source_(source) {}

  bool next(Field& field) {
    if (rest_.empty()) return false;
    const uint64_t tag = varint();
    field = Field{};
    field.number = tag >> 3;
    switch (tag & 7) {
      case 0:
        field.integer = varint();
        return true;
      case 1:
        field.integer = fixed<uint64_t>();
        return true;
      case 2: {
        const uint64_t length = varint();
        if (length > rest_.size()) bad("a field that ends inside its message");
        field.bytes = rest_.substr(0, length);
        field.is_bytes = true;
        rest_.remove_prefix(length);
        return true;
      }
      case 5:
        field.integer = fixed<uint32_t>();
        return true;
      default:
        bad("a known wire type");
    }
  }

 private:
  [[noreturn]] void bad(std::string_view expected) const {
    fail(ErrorCode::kCorruptData, "[read SentencePiece model] expected {}, found none, in {}", expected, source_);
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) bad("a number that ends");
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 127u) << shift;
      if (byte < 128) return value;
    }
    bad("a number of at most ten bytes");
  }

  template <typename T>
  T fixed() {
    if (rest_.size() < sizeof(T)) bad("a number that ends");
    T value{};
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_.remove_prefix(sizeof value);
    return value;
  }

  std::string_view rest_;
  const std::string& source_;
};

SentencePieceModel::Piece parse_piece(std::string_view bytes, const std::string& source) {
  SentencePieceModel::Piece piece;
  MessageReader reader(bytes, source);
  Field field;
  while (reader.next(field)) {
    if (field.number == 1 && field.is_bytes) piece.text = field.bytes;
    if (field.number == 2) piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.integer));
    if (field.number == 3) piece.kind = static_cast<uint32_t>(field.integer);
  }
  if (piece.kind < 1 || piece.kind > 6) {
    fail(ErrorCode::kCorruptData, "[read SentencePiece model] expected a kind of piece of 1 to 6, found {}, in {}",
         piece.kind, source);
  }
  return piece;
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& source) {
  SentencePieceModel model;
  MessageReader reader(bytes, source);
  Field field;
  while (reader.next(field)) {
    if (!field.is_bytes) continue;
    if (field.number == 1) {
      model.pieces.push_back(parse_piece(field.bytes, source));
      continue;
    }
    if (field.number != 2 && field.number != 3) continue;
    MessageReader settings(field.bytes, source);
    Field setting;
    while (settings.next(setting)) {
      if (field.number == 2) {  // Trainer: the model type.
        if (setting.number == 3 && !setting.is_bytes) model.is_unigram = setting.integer == 1;
      } else if (setting.number == 2 && setting.is_bytes) {
        model.precompiled_charsmap = setting.bytes;
      } else if (setting.number == 3) {
        model.add_dummy_prefix = setting.integer != 0;
      } else if (setting.number == 4) {
        model.remove_extra_whitespaces = setting.integer != 0;
      }
    }
  }
  if (model.pieces.empty()) {
    fail(ErrorCode::kCorruptData, "[read SentencePiece model] expected pieces, found none, in {}", source);
  }
  return model;
}

}  // namespace mneme
