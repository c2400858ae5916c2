#include "context/remote_kv.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

constexpr size_t kCallTokens = 512;
/// A worker that computes for so long is taken to be gone.
constexpr int kTimeoutMs = 300'000;

class Bytes : public StateWriter {
 public:
  void write(std::span<const std::byte> bytes) override { data.insert(data.end(), bytes.begin(), bytes.end()); }
  std::vector<std::byte> data;
};

uint64_t message_bytes(const KvShape& shape, uint64_t n_tokens) {
  const KvShape whole = shape;
  const AttendBatch batch{static_cast<uint32_t>(std::min<uint64_t>(n_tokens, kCallTokens)),
                          std::max(shape.n_heads, shape.n_kv_heads),
                          0,
                          0,
                          0,
                          0};
  return attend_batch_bytes(whole, batch) + attend_output_bytes(whole, batch);
}

}  // namespace

uint64_t RemoteKv::working_bytes(const KvShape& shape, const KvChoices&, uint64_t max_tokens) {
  return message_bytes(shape, max_tokens);
}

uint64_t RemoteKv::call_bytes(const KvShape& shape, size_t n_heads, size_t n_tokens, size_t n_workers,
                              bool with_sinks) {
  const AttendBatch batch{
      static_cast<uint32_t>(n_tokens), static_cast<uint32_t>(n_heads), 0, 0, 0, with_sinks ? 1u : 0u};
  const uint64_t fixed = 2 * sizeof(AttendHeader) + sizeof(AttendBatch) + sizeof(AttendState);
  return attend_batch_bytes(shape, batch) + attend_output_bytes(shape, batch) + 2 * sizeof(AttendHeader) +
         (n_workers - 1) * fixed;
}

RemoteKv::RemoteKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger)
    : shape_(shape), choices_(choices), max_tokens_(max_tokens), ledger_(ledger) {
  const std::vector<std::string>& addresses = choices.storage->workers;
  if (shape.n_kv_heads % addresses.size() != 0) {
    fail(ErrorCode::kInvalidArgument, "[kv policy] expected a number of workers that divides {} kv heads, found {}",
         shape.n_kv_heads, addresses.size());
  }
  const auto n = static_cast<uint32_t>(addresses.size());
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t heads = shape.n_kv_heads / n;
    const KvShape part{heads, shape.key_dim, shape.value_dim, 0, std::max(shape.n_heads / n, heads)};
    workers_.push_back({addresses[i], part, size_t{i} * heads, {}, {}});
    connect(workers_.back());
  }
}

void RemoteKv::connect(Worker& worker) {
  worker.socket = Socket::connect(worker.address, kTimeoutMs);
  const AttendConfig config{AttendConfig::kVersion,     worker.shape.n_kv_heads, worker.shape.key_dim,
                            worker.shape.value_dim,     worker.shape.n_heads,    choices_.storage->density,
                            choices_.storage->channels, choices_.residual,       max_tokens_};
  ask(worker, AttendMessage::kConfig, std::as_bytes(std::span(&config, 1)));
}

void RemoteKv::send(const Worker& worker, AttendMessage message, std::span<const std::byte> payload) const {
  try {
    link_bytes_ += send_frame(worker.socket, message, payload);
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("[worker {}] {}", worker.address, e.what()));
  }
}

std::vector<std::byte> RemoteKv::receive(const Worker& worker, AttendMessage expected, uint64_t most) const {
  std::vector<std::byte> payload;
  AttendMessage message{};
  try {
    if (!receive_frame(worker.socket, std::max<uint64_t>(most, 4096), &message, &payload)) {
      fail(ErrorCode::kIo, "has closed the connection");
    }
    if (message == AttendMessage::kError) {
      StateReader in(payload, "message of a worker");
      const auto code = in.get<uint32_t>();
      const auto text = in.take(in.remaining());
      throw Error(code <= static_cast<uint32_t>(ErrorCode::kCancelled) ? static_cast<ErrorCode>(code) : ErrorCode::kIo,
                  std::string(reinterpret_cast<const char*>(text.data()), text.size()));
    }
    if (message != expected || payload.size() > most) {
      fail(ErrorCode::kCorruptData, "[attend] expected message {} of at most {} bytes, found message {} of {}",
           static_cast<uint32_t>(expected), most, static_cast<uint32_t>(message), payload.size());
    }
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("[worker {}] {}", worker.address, e.what()));
  }
  link_bytes_ += sizeof(AttendHeader) + payload.size();
  return payload;
}

AttendState RemoteKv::ask(Worker& worker, AttendMessage message, std::span<const std::byte> payload) {
  send(worker, message, payload);
  const std::vector<std::byte> answer = receive(worker, AttendMessage::kState, sizeof(AttendState));
  StateReader in(answer, "message of a worker");
  const auto state = in.get<AttendState>();
  take_state(worker, state);
  return state;
}

void RemoteKv::take_state(Worker& worker, const AttendState& state) {
  if (state.n_tokens < 0 || static_cast<uint64_t>(state.n_tokens) > max_tokens_ || state.n_pages < 0 ||
      state.n_pages > state.n_tokens / kPageTokens) {
    fail(ErrorCode::kCorruptData, "[worker {}] expected at most {} tokens and their pages, found {} and {}",
         worker.address, max_tokens_, state.n_tokens, state.n_pages);
  }
  n_pages_ = state.n_pages;
  worker.fetches = {state.wanted, 0, state.bytes, state.passed, 0};
}

FetchCounts RemoteKv::fetches() const {
  FetchCounts sum;
  for (const Worker& worker : workers_) sum += worker.fetches;
  sum.link = link_bytes_;
  return sum;
}

void RemoteKv::reserve(size_t n_tokens) {
  const uint64_t end = static_cast<uint64_t>(n_tokens_) + n_tokens;
  if (end > max_tokens_) {
    fail(ErrorCode::kContextOverflow, "[append] expected at most {} tokens of context, found {}", max_tokens_, end);
  }
  messages_ = ledger_.reserve(Tag::kScratch, message_bytes(shape_, n_tokens), "messages to workers");
}

void RemoteKv::extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) {
  try {
    for (size_t first = 0; first < rows.n_tokens && trouble_.empty(); first += kCallTokens) {
      extend_some(rows, queries, first, std::min(kCallTokens, rows.n_tokens - first), out + first * out_stride,
                  out_stride);
    }
  } catch (const Error& e) {
    trouble_ = e.what();
  }
  messages_.release();
  n_tokens_ += static_cast<int64_t>(rows.n_tokens);
  if (trouble_.empty()) return;
  for (size_t t = 0; t < rows.n_tokens; ++t) {
    std::fill_n(out + t * out_stride, queries.n_heads * shape_.value_dim, 0.0f);
  }
}

/// Tokens [first, first + n) of a call.
void RemoteKv::extend_some(const KvRows& rows, const KvQueries& queries, size_t first, size_t n, float* out,
                           size_t out_stride) {
  const size_t key_dim = shape_.key_dim, value_dim = shape_.value_dim, group = queries.n_heads / shape_.n_kv_heads;
  const kernels::VectorOps& ops = kernels::vector_ops();
  const auto batch_of = [&](const Worker& worker) {
    return AttendBatch{static_cast<uint32_t>(n),
                       static_cast<uint32_t>(worker.shape.n_kv_heads * group),
                       queries.scale,
                       queries.softcap,
                       queries.role == TokenRole::kGenerated ? 1u : 0u,
                       queries.sinks != nullptr ? 1u : 0u};
  };
  for (const Worker& worker : workers_) {
    const AttendBatch batch = batch_of(worker);
    const size_t heads = worker.shape.n_kv_heads, q_row = heads * group * key_dim * sizeof(float);
    const size_t k_row = heads * key_dim * 2, v_row = heads * value_dim * 2;
    const size_t sinks = batch.with_sinks != 0 ? heads * group * sizeof(float) : 0;
    std::vector<std::byte> payload(attend_batch_bytes(worker.shape, batch));
    std::memcpy(payload.data(), &batch, sizeof batch);
    if (sinks > 0) std::memcpy(payload.data() + sizeof batch, queries.sinks + worker.first_head * group, sinks);
    std::byte* const q = payload.data() + sizeof batch + sinks;
    std::byte* const k = q + n * q_row;
    std::byte* const v = k + n * k_row;
    parallel_for(n, 16, [&](size_t begin, size_t end) {
      std::vector<float> key(heads * key_dim);
      for (size_t t = begin; t < end; ++t) {
        const size_t row = first + t;
        std::memcpy(q + t * q_row, queries.q + row * queries.q_stride + worker.first_head * group * key_dim, q_row);
        std::copy_n(rows.k + row * rows.k_stride + worker.first_head * key_dim, key.size(), key.data());
        if (rows.angles != nullptr) rows.angles->rotate(key.data(), heads, key_dim, rows.first_angle + row);
        ops.f32_to_f16(key.data(), key.size(), k + t * k_row);
        ops.f32_to_f16(rows.v + row * rows.v_stride + worker.first_head * value_dim, heads * value_dim, v + t * v_row);
      }
    });
    send(worker, AttendMessage::kExtend, payload);
  }
  for (Worker& worker : workers_) {
    const AttendBatch batch = batch_of(worker);
    const uint64_t bytes = attend_output_bytes(worker.shape, batch);
    const std::vector<std::byte> answer = receive(worker, AttendMessage::kOutput, bytes);
    StateReader in(answer, "message of a worker");
    take_state(worker, in.get<AttendState>());
    const size_t row = size_t{batch.n_heads} * value_dim;
    for (size_t t = 0; t < n; ++t) {
      in.copy_to(reinterpret_cast<std::byte*>(out + t * out_stride + worker.first_head * group * value_dim),
                 row * sizeof(float));
    }
    in.finish();
  }
}

bool RemoteKv::truncate(int64_t n_tokens) {
  if (n_tokens < 0 || n_tokens > n_tokens_ || !trouble_.empty()) return false;
  try {
    for (Worker& worker : workers_) {
      if (ask(worker, AttendMessage::kTruncate, std::as_bytes(std::span(&n_tokens, 1))).done == 0) return false;
    }
  } catch (const Error& e) {
    trouble_ = e.what();
    return false;
  }
  n_tokens_ = n_tokens;
  return true;
}

void RemoteKv::save(int64_t page, StateWriter& out) const {
  for (const Worker& worker : workers_) {
    send(worker, AttendMessage::kSave, std::as_bytes(std::span(&page, 1)));
    const std::vector<std::byte> bytes = receive(worker, AttendMessage::kBytes, kMostAttendBytes);
    out.put(uint64_t{bytes.size()});
    out.write(bytes);
  }
}

bool RemoteKv::save_rest(int64_t n_tokens, StateWriter& out) const {
  if (n_tokens != n_tokens_ || !trouble_.empty()) return false;
  save(-1, out);
  return true;
}

void RemoteKv::load(int64_t page, StateReader& in) {
  int64_t n_tokens = 0;
  for (Worker& worker : workers_) {
    const auto size = in.get<uint64_t>();
    if (size > kMostAttendBytes - sizeof page) {
      fail(ErrorCode::kCorruptData, "[load keys and values] expected at most {} bytes of a worker, found {}",
           kMostAttendBytes - sizeof page, size);
    }
    const auto bytes = in.take(size);
    std::vector<std::byte> payload(sizeof page);
    std::memcpy(payload.data(), &page, sizeof page);
    payload.insert(payload.end(), bytes.begin(), bytes.end());
    const AttendState state = ask(worker, AttendMessage::kLoad, payload);
    if (worker.first_head > 0 && state.n_tokens != n_tokens) {
      fail(ErrorCode::kCorruptData, "[load keys and values] expected {} tokens of every worker, found {}", n_tokens,
           state.n_tokens);
    }
    n_tokens = state.n_tokens;
  }
  in.finish();
  n_tokens_ = n_tokens;
}

std::unique_ptr<LayerState> RemoteKv::copy(CopyScope&) const {
  auto copy = std::make_unique<RemoteKv>(shape_, choices_, max_tokens_, ledger_);
  if (!trouble_.empty()) {
    copy->trouble_ = trouble_;
    copy->n_tokens_ = n_tokens_;
    return copy;
  }
  for (int64_t page = 0; page <= n_pages_; ++page) {
    const int64_t what = page < n_pages_ ? page : -1;
    Bytes bytes;
    save(what, bytes);
    StateReader in(bytes.data, "copy of a state");
    copy->load(what, in);
  }
  return copy;
}

}  // namespace mneme
