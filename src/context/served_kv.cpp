#include "context/served_kv.h"

#include <cstring>
#include <string>

#include "base/error.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

/// Limits of what a client may ask for.
constexpr uint32_t kMostHeads = 1u << 12, kMostDim = 1u << 11, kMostBatch = 1u << 16, kMostResidual = 1u << 16;

class Bytes : public StateWriter {
 public:
  explicit Bytes(std::vector<std::byte>& to) : to_(to) {}
  void write(std::span<const std::byte> bytes) override {
    if (bytes.size() > kMostAttendBytes - to_.size()) {
      fail(ErrorCode::kUnsupported, "[attend] expected at most {} bytes to save at once, found more", kMostAttendBytes);
    }
    if (bytes.empty()) return;
    const size_t before = to_.size();
    to_.resize(before + bytes.size());
    std::memcpy(to_.data() + before, bytes.data(), bytes.size());
  }

 private:
  std::vector<std::byte>& to_;
};

}  // namespace

AttendMessage ServedKv::answer(AttendMessage message, std::span<const std::byte> payload, std::vector<std::byte>& out) {
  StateReader in(payload, "message of a client");
  out.clear();
  if (!store_ && message != AttendMessage::kConfig) {
    fail(ErrorCode::kInvalidArgument, "[attend] expected a config first, found message {}",
         static_cast<uint32_t>(message));
  }
  bool done = true;
  switch (message) {
    case AttendMessage::kConfig:
      configure(in.get<AttendConfig>());
      break;
    case AttendMessage::kExtend:
      extend(in, out);
      return AttendMessage::kOutput;
    case AttendMessage::kTruncate:
      done = store_->truncate(in.get<int64_t>());
      break;
    case AttendMessage::kSave:
      save(in.get<int64_t>(), out);
      return AttendMessage::kBytes;
    case AttendMessage::kLoad: {
      const auto page = in.get<int64_t>();
      StateReader rest(in.take(in.remaining()), "keys and values");
      try {
        page < 0 ? store_->load_rest(rest) : store_->load_page(page, rest);
      } catch (...) {
        store_.reset();  // a store that was loaded in part is of no use, and must not be asked
        throw;
      }
      break;
    }
    default:
      fail(ErrorCode::kInvalidArgument, "[attend] expected a request, found message {}",
           static_cast<uint32_t>(message));
  }
  in.finish();
  Bytes(out).put(state(done));
  return AttendMessage::kState;
}

AttendMessage ServedKv::refuse(const Error& error, std::vector<std::byte>& out) {
  out.clear();
  Bytes writer(out);
  writer.put(static_cast<uint32_t>(error.code()));
  writer.write(std::as_bytes(std::span(std::string_view(error.what()))));
  return AttendMessage::kError;
}

void ServedKv::configure(const AttendConfig& c) {
  const bool sane = !store_ && c.version == AttendConfig::kVersion && c.n_kv_heads >= 1 && c.n_heads <= kMostHeads &&
                    c.n_heads >= c.n_kv_heads && c.n_heads % c.n_kv_heads == 0 && c.key_dim >= 1 &&
                    c.key_dim <= kMostDim && c.value_dim >= 1 && c.value_dim <= kMostDim && c.density > 0 &&
                    c.density <= 1 && (c.channels == 8 || c.channels == 16 || c.channels == 32) &&
                    c.residual <= kMostResidual && c.max_tokens >= 1 && c.max_tokens <= uint64_t{1} << 40;
  if (!sane) {
    fail(ErrorCode::kInvalidArgument,
         "[attend] expected one config of version {} with possible sizes, found version {}, {} of {} heads of {} and "
         "{} channels, {} tokens",
         AttendConfig::kVersion, c.version, c.n_kv_heads, c.n_heads, c.key_dim, c.value_dim, c.max_tokens);
  }
  shape_ = {c.n_kv_heads, c.key_dim, c.value_dim, 0, c.n_heads};
  KvChoices choices;
  choices.storage = KvChoices::InStorage{c.density, c.channels, {}};
  choices.residual = c.residual;
  store_ = std::make_unique<InstInferKv>(shape_, choices, c.max_tokens, ledger_);
}

void ServedKv::extend(StateReader& in, std::vector<std::byte>& out) {
  const size_t size = in.remaining();
  const auto batch = in.get<AttendBatch>();
  const bool sane = batch.n_tokens >= 1 && batch.n_tokens <= kMostBatch && batch.n_heads >= shape_.n_kv_heads &&
                    batch.n_heads <= kMostHeads && batch.n_heads % shape_.n_kv_heads == 0 && batch.generated <= 1 &&
                    batch.with_sinks <= 1;
  if (!sane || size != attend_batch_bytes(shape_, batch) || attend_output_bytes(shape_, batch) > kMostAttendBytes) {
    fail(ErrorCode::kCorruptData,
         "[attend] expected a batch of query heads for {} kv heads in {} bytes, found {} tokens, {} heads, {} bytes",
         shape_.n_kv_heads, sane ? attend_batch_bytes(shape_, batch) : 0, batch.n_tokens, batch.n_heads, size);
  }
  const size_t n = batch.n_tokens, q_row = size_t{batch.n_heads} * shape_.key_dim;
  const size_t k_row = size_t{shape_.n_kv_heads} * shape_.key_dim, v_row = size_t{shape_.n_kv_heads} * shape_.value_dim;
  const size_t out_row = size_t{batch.n_heads} * shape_.value_dim;
  std::vector<float> sinks(batch.with_sinks * batch.n_heads), q(n * q_row), k(n * k_row), v(n * v_row),
      result(n * out_row);
  in.copy_to(reinterpret_cast<std::byte*>(sinks.data()), sinks.size() * sizeof(float));
  in.copy_to(reinterpret_cast<std::byte*>(q.data()), q.size() * sizeof(float));
  kernels::vector_ops().f16_to_f32(in.take(k.size() * 2).data(), k.size(), k.data());
  kernels::vector_ops().f16_to_f32(in.take(v.size() * 2).data(), v.size(), v.data());
  store_->reserve(n);
  store_->extend({k.data(), v.data(), k_row, v_row, n, nullptr, 0},
                 {q.data(), q_row, batch.n_heads, batch.scale, batch.softcap, sinks.empty() ? nullptr : sinks.data(),
                  batch.generated != 0 ? TokenRole::kGenerated : TokenRole::kGiven},
                 result.data(), out_row);
  if (!store_->trouble().empty()) throw Error(ErrorCode::kIo, std::string(store_->trouble()));
  Bytes writer(out);
  writer.put(state(true));
  writer.write(std::as_bytes(std::span(result)));
}

void ServedKv::save(int64_t page, std::vector<std::byte>& out) {
  Bytes writer(out);
  const PageRange pages = store_->sealed_pages();
  if (page < 0) {
    if (!store_->save_rest(store_->n_tokens(), writer)) throw Error(ErrorCode::kIo, std::string(store_->trouble()));
  } else if (page < pages.end) {
    store_->save_page(page, writer);
  } else {
    fail(ErrorCode::kInvalidArgument, "[attend] expected a page below {}, found {}", pages.end, page);
  }
}

AttendState ServedKv::state(bool done) const {
  const FetchCounts counts = store_->fetches();
  return {store_->n_tokens(), store_->sealed_pages().end, done ? 1u : 0u, 0, counts.wanted, counts.bytes,
          counts.passed};
}

}  // namespace mneme
