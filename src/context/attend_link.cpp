#include "context/attend_link.h"

#include <algorithm>

#include "base/error.h"

namespace mneme {

// Dimensions are below 2^16 and tokens and heads below 2^20 when these are called: sums stay below 2^63.

uint64_t attend_batch_bytes(const KvShape& shape, const AttendBatch& batch) {
  const uint64_t queries = uint64_t{batch.n_heads} * shape.key_dim * sizeof(float);
  const uint64_t rows = uint64_t{shape.n_kv_heads} * (uint64_t{shape.key_dim} + shape.value_dim) * 2;
  const uint64_t sinks = batch.with_sinks != 0 ? uint64_t{batch.n_heads} * sizeof(float) : 0;
  return sizeof batch + sinks + batch.n_tokens * (queries + rows);
}

uint64_t attend_output_bytes(const KvShape& shape, const AttendBatch& batch) {
  return sizeof(AttendState) + uint64_t{batch.n_tokens} * batch.n_heads * shape.value_dim * sizeof(float);
}

uint64_t send_frame(Socket& socket, AttendMessage message, std::span<const std::byte> payload) {
  const AttendHeader header{AttendHeader::kMagic, message, payload.size()};
  socket.send(std::as_bytes(std::span(&header, 1)));
  socket.send(payload);
  return sizeof header + payload.size();
}

bool receive_frame(Socket& socket, uint64_t most, AttendMessage* message, std::vector<std::byte>* payload) {
  AttendHeader header{};
  if (!socket.receive_or_end(std::as_writable_bytes(std::span(&header, 1)))) return false;
  if (header.magic != AttendHeader::kMagic || header.message < AttendMessage::kConfig ||
      header.message > AttendMessage::kError) {
    fail(ErrorCode::kCorruptData, "[attend] expected a frame, found {:08x} and message {}", header.magic,
         static_cast<uint32_t>(header.message));
  }
  if (header.bytes > most) {
    fail(ErrorCode::kCorruptData, "[attend] expected at most {} bytes, found {}", most, header.bytes);
  }
  *message = header.message;
  payload->clear();
  while (payload->size() < header.bytes) {  // memory grows with what comes, not with what was announced
    const size_t before = payload->size(), n = std::min<uint64_t>(header.bytes - before, uint64_t{4} << 20);
    payload->resize(before + n);
    socket.receive(std::span(*payload).subspan(before));
  }
  return true;
}

}  // namespace mneme
