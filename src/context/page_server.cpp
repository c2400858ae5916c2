#include "context/page_server.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <signal.h>

#include <cstring>
#include <functional>

#include "base/error.h"

namespace mneme {
namespace {

struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

/// Writing to a server that is gone raises SIGPIPE; in this scope it is swallowed for the calling thread.
class NoBrokenPipe {
 public:
  NoBrokenPipe() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  NoBrokenPipe(const NoBrokenPipe&) = delete;
  NoBrokenPipe& operator=(const NoBrokenPipe&) = delete;
  ~NoBrokenPipe() {
    const timespec at_once{};
    if (sigismember(&before_, SIGPIPE) == 0) sigtimedwait(&pipe_, nullptr, &at_once);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t pipe_, before_;
};

std::string key_of(uint64_t hash) {
  return fmt::format("mneme:page:{:016x}", hash);
}

}  // namespace

/// One connection, which is made when it is needed. After a failure nothing is sent for a while.
class PageServer::Connection {
 public:
  Connection(const Options& options, std::function<void(std::string)> report)
      : options_(options), report_(std::move(report)) {}

  /// Sends all commands at once and hands each answer to `take`, in order; commands may be repeated. A connection that was
  /// open already may be that of a server which is gone: then it is tried once more with a new one.
  void run(const std::vector<std::vector<std::string_view>>& commands,
           const std::function<void(size_t, const redisReply&)>& take) {
    const std::lock_guard lock(mutex_);
    const NoBrokenPipe quiet;
    const bool was_open = context_ != nullptr;
    if (!connect() || exchange(commands, take)) return;
    if (was_open) {
      context_.reset();
      if (!connect() || exchange(commands, take)) return;
    }
    give_up();
  }

 private:
  /// False when the connection failed on the way.
  bool exchange(const std::vector<std::vector<std::string_view>>& commands,
                const std::function<void(size_t, const redisReply&)>& take) {
    for (const auto& words : commands) {
      std::vector<const char*> texts;
      std::vector<size_t> sizes;
      for (const std::string_view word : words) {
        texts.push_back(word.data());
        sizes.push_back(word.size());
      }
      const int n = static_cast<int>(words.size());
      if (redisAppendCommandArgv(context_.get(), n, texts.data(), sizes.data()) != REDIS_OK) return false;
    }
    for (size_t i = 0; i < commands.size(); ++i) {
      void* answer = nullptr;
      if (redisGetReply(context_.get(), &answer) != REDIS_OK) return false;
      const Reply reply(static_cast<redisReply*>(answer));
      if (reply->type == REDIS_REPLY_ERROR) {
        report_(fmt::format("[redis] {}", std::string_view(reply->str, reply->len)));
      } else {
        take(i, *reply);
      }
    }
    return true;
  }

  struct Free {
    void operator()(redisContext* context) const { redisFree(context); }
  };
  using Clock = std::chrono::steady_clock;

  bool connect() {
    if (context_) return true;
    if (Clock::now() < retry_at_) return false;
    const timeval timeout{options_.timeout_ms / 1000, options_.timeout_ms % 1000 * 1000};
    context_.reset(options_.socket.empty() ? redisConnectWithTimeout(options_.host.c_str(), options_.port, timeout)
                                           : redisConnectUnixWithTimeout(options_.socket.c_str(), timeout));
    if (context_ == nullptr || context_->err != 0) {
      give_up();
      return false;
    }
    redisSetTimeout(context_.get(), timeout);
    return true;
  }

  void give_up() {
    report_(fmt::format("[redis] {}: {}", options_.socket.empty() ? options_.host : options_.socket,
                        context_ ? context_->errstr : "no connection"));
    context_.reset();
    retry_at_ = Clock::now() + std::chrono::milliseconds(options_.retry_ms);
  }

  const Options& options_;
  std::function<void(std::string)> report_;
  std::mutex mutex_;
  std::unique_ptr<redisContext, Free> context_;
  Clock::time_point retry_at_{};
};

PageServer::PageServer(Ledger& ledger, Options options)
    : ledger_(ledger), options_(std::move(options)), writer_([this](uint64_t hash, const PageWriter::Block& block) {
        const std::string key = key_of(hash);
        const std::string_view bytes(reinterpret_cast<const char*>(block->data()), block->committed());
        writing_->run({{"SET", key, bytes}}, [](size_t, const redisReply&) {});
      }) {
  const auto report = [this](std::string trouble) {
    const std::lock_guard lock(mutex_);
    trouble_ = std::move(trouble);
  };
  reading_ = std::make_unique<Connection>(options_, report);
  writing_ = std::make_unique<Connection>(options_, report);
}

PageServer::~PageServer() = default;

std::vector<bool> PageServer::has(std::span<const uint64_t> hashes) {
  std::vector<bool> out(hashes.size());
  std::vector<std::string> keys;
  for (const uint64_t hash : hashes) keys.push_back(key_of(hash));
  std::vector<std::vector<std::string_view>> commands;
  for (const std::string& key : keys) commands.push_back({"EXISTS", key});
  reading_->run(commands, [&](size_t i, const redisReply& reply) {
    out[i] = reply.type == REDIS_REPLY_INTEGER && reply.integer == 1;
  });
  return out;
}

void PageServer::put(uint64_t hash, std::shared_ptr<const GrowingBuffer> block) {
  if (block->committed() > options_.max_block_bytes || !writer_.put(hash, std::move(block))) {
    const std::lock_guard lock(mutex_);
    trouble_ = "[redis] pages are too large, or made faster than the server takes them; some were not written";
  }
}

std::vector<std::shared_ptr<const GrowingBuffer>> PageServer::get(std::span<const uint64_t> hashes) {
  std::vector<std::shared_ptr<const GrowingBuffer>> out(hashes.size());
  // One by one: an answer lies in the client's memory until it is taken.
  for (size_t i = 0; i < hashes.size(); ++i) {
    const std::string key = key_of(hashes[i]);
    reading_->run({{"GET", key}}, [&](size_t, const redisReply& reply) {
      if (reply.type != REDIS_REPLY_STRING || reply.len == 0 || reply.len > options_.max_block_bytes) return;
      try {
        auto block = std::make_shared<GrowingBuffer>(ledger_, Tag::kCache, reply.len, "cached page");
        block->grow_to(reply.len);
        std::memcpy(block->data(), reply.str, reply.len);
        out[i] = std::move(block);
      } catch (const Error&) {  // no room in the budget
      }
    });
    if (!out[i]) break;
  }
  return out;
}

void PageServer::remove(uint64_t hash) {
  const std::string key = key_of(hash);
  reading_->run({{"DEL", key}}, [](size_t, const redisReply&) {});
}

std::string PageServer::trouble() const {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

}  // namespace mneme
