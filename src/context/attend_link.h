#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/socket.h"
#include "context/kv_layer.h"

namespace mneme {

/// What a RemoteKv and an AttendWorker say to each other: frames of a header and a payload, numbers little-endian, one
/// connection a layer, sequence and worker. The client asks, the worker answers each frame with one.
///
///   kConfig     AttendConfig                                        -> kState
///   kExtend     AttendBatch, sinks f32 [n_heads] if there are any, q f32 [n, n_heads * key_dim] after RoPE,
///               k f16 [n, n_kv_heads * key_dim] after RoPE, v f16 [n, n_kv_heads * value_dim]
///                                                                   -> kOutput: AttendState, out f32 [n, n_heads *
///                                                                   value_dim]
///   kTruncate   i64 tokens                                          -> kState
///   kSave       i64 page, or -1 and the rest                        -> kBytes
///   kLoad       i64 page, or -1 and the rest, and the bytes         -> kState
/// Anything may be answered by kError: u32 code, text. The end of the connection drops the store.
enum class AttendMessage : uint32_t {
  kConfig = 1,
  kExtend,
  kTruncate,
  kSave,
  kLoad,
  kState,
  kOutput,
  kBytes,
  kError,
};

struct AttendHeader {
  static constexpr uint32_t kMagic = 0x7461'6e6d;  // "mnat"
  uint32_t magic = kMagic;
  AttendMessage message;
  uint64_t bytes;  ///< Of the payload.
};

struct AttendConfig {
  static constexpr uint32_t kVersion = 1;
  uint32_t version = kVersion;
  uint32_t n_kv_heads, key_dim, value_dim, n_heads;
  float density;
  uint32_t channels, residual;
  uint64_t max_tokens;
};

struct AttendBatch {
  uint32_t n_tokens, n_heads;
  float scale, softcap;
  uint32_t generated;   ///< 1: TokenRole::kGenerated.
  uint32_t with_sinks;  ///< 1: there are some.
};

struct AttendState {
  int64_t n_tokens;
  int64_t n_pages;  ///< End of sealed_pages().
  uint32_t done;    ///< Answer to kTruncate.
  uint32_t unused = 0;
  uint64_t wanted, bytes, passed;  ///< FetchCounts since the store was made.
};

/// Most bytes of a payload that either side takes.
constexpr uint64_t kMostAttendBytes = uint64_t{256} << 20;

/// Payload of a batch, and of its answer. Nothing that overflows.
uint64_t attend_batch_bytes(const KvShape& shape, const AttendBatch& batch);
uint64_t attend_output_bytes(const KvShape& shape, const AttendBatch& batch);

/// Sends one frame; returns its bytes. Throws Error(kIo).
uint64_t send_frame(Socket& socket, AttendMessage message, std::span<const std::byte> payload);
/// Receives one into `payload`, of at most `most` bytes. False: the other end has closed the connection. Throws
/// Error(kIo, kCorruptData).
bool receive_frame(Socket& socket, uint64_t most, AttendMessage* message, std::vector<std::byte>* payload);

}  // namespace mneme
