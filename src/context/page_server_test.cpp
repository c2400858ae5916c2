#include "context/page_server.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

#include "context/dense_kv.h"
#include "context/kv_example.h"
#include "context/prefix_cache.h"
#include "context/token_chain.h"

namespace mneme {
namespace {

/// A server of Debian's package on a socket of its own, without a port and without files.
class RedisServer {
 public:
  explicit RedisServer(const std::string& folder) : socket_(folder + "/redis.sock") { start(); }
  ~RedisServer() { stop(); }

  const std::string& socket() const { return socket_; }
  void start() {
    pid_ = ::fork();
    if (pid_ == 0) {
      ::execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", socket_.c_str(), "--save", "",
               "--appendonly", "no", "--loglevel", "warning", "--logfile", "/dev/null", nullptr);
      ::_exit(127);
    }
    for (int i = 0; i < 500 && !std::filesystem::exists(socket_); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  void stop() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
    std::filesystem::remove(socket_);
  }
  bool running() const { return std::filesystem::exists(socket_); }

 private:
  std::string socket_;
  pid_t pid_ = -1;
};

class PageServerTest : public testing::Test {
 protected:
  PageServerTest() {
    std::string name = (std::filesystem::temp_directory_path() / "mneme-redis-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    server_ = std::make_unique<RedisServer>(folder_);
    for (size_t i = 0; i < tokens_.size(); ++i) tokens_[i] = static_cast<int32_t>(i);
  }
  ~PageServerTest() override {
    server_.reset();
    std::filesystem::remove_all(folder_);
  }
  void SetUp() override {
    if (!server_->running()) GTEST_SKIP() << "redis-server is missing";
  }
  PageServer::Options at_socket() const {
    PageServer::Options out;
    out.socket = server_->socket();
    out.retry_ms = 0;
    return out;
  }
  static PrefixCache::Options with(PageTier& tier) {
    PrefixCache::Options out;
    out.tiers = {&tier};
    return out;
  }

  static constexpr KvShape kShape{1, 16, 16, 0};
  Ledger ledger_;
  std::string folder_;
  std::unique_ptr<RedisServer> server_;
  std::vector<int32_t> tokens_ = std::vector<int32_t>(1024);
};

// What one machine computed another finds; a server that goes away in the middle costs time, never an answer.
TEST_F(PageServerTest, MachinesShareAndDoWithout) {
  const KvExample example(kShape, 2, 1100);
  DenseKv original(kShape, DType::kF16, 2048, 1024, ledger_);
  example.feed(original, 0, 1024);
  LayerState* layers[] = {&original};
  PageServer here(ledger_, at_socket()), there(ledger_, at_socket());
  PrefixCache cache(ledger_, "model/f16", with(here)), other(ledger_, "model/f16", with(there));
  cache.keep("", tokens_, layers, {}, 1000);
  here.flush();
  EXPECT_EQ(here.trouble(), "");
  const PrefixMatch match = other.match("", tokens_, 1024);
  ASSERT_EQ(match.n_tokens, 1024u);
  DenseKv loaded(kShape, DType::kF16, 2048, 1024, ledger_);
  LayerState* into[] = {&loaded};
  match.load(into);
  EXPECT_EQ(example.feed(loaded, 1024, 70), example.feed(original, 1024, 70));
  PrefixCache foreign(ledger_, "model/f32", with(there));
  EXPECT_EQ(foreign.match("", tokens_, 1024).n_tokens, 0u);

  /// A tier whose server dies between the question and the answer.
  class DiesBetween : public PageServer {
   public:
    DiesBetween(Ledger& ledger, Options options, RedisServer& server)
        : PageServer(ledger, std::move(options)), server_(server) {}
    std::vector<bool> has(std::span<const uint64_t> hashes) override {
      auto out = PageServer::has(hashes);
      server_.stop();
      return out;
    }

   private:
    RedisServer& server_;
  };
  DiesBetween dying(ledger_, at_socket(), *server_);
  PrefixCache unlucky(ledger_, "model/f16", with(dying));
  const PrefixMatch gone = unlucky.match("", tokens_, 1024);
  EXPECT_EQ(gone.n_tokens, 0u);
  EXPECT_EQ(gone.stop, MatchStop::kUnreadable);
  EXPECT_NE(dying.trouble(), "");
  cache.keep("", std::vector<int32_t>(256, 7), layers, {}, 1000);
  here.flush();
  EXPECT_EQ(cache.match("", tokens_, 1024).n_tokens, 1024u) << "RAM is still there";
  EXPECT_EQ(unlucky.match("", tokens_, 1024).n_tokens, 0u);

  server_->start();
  cache.keep("", std::vector<int32_t>(256, 8), layers, {}, 1000);
  here.flush();
  PrefixCache back(ledger_, "model/f16", with(there));
  EXPECT_EQ(back.match("", std::vector<int32_t>(256, 8), 256).n_tokens, 256u) << "and used again when it is back";
}

TEST_F(PageServerTest, WhatTheServerChangedIsNotUsed) {
  const KvExample example(kShape, 2, 300);
  DenseKv original(kShape, DType::kF16, 512, 512, ledger_);
  example.feed(original, 0, 256);
  LayerState* layers[] = {&original};
  PageServer server(ledger_, at_socket());
  {
    PrefixCache cache(ledger_, "model/f16", with(server));
    cache.keep("", std::span(tokens_).first(256), layers, {}, 1000);
  }
  server.flush();
  const uint64_t hash = token_chain("model/f16/", std::span(tokens_).first(256))[1];
  auto changed = std::make_shared<GrowingBuffer>(ledger_, Tag::kCache, 8192, "test");
  changed->grow_to(8192);
  const auto good = server.get({&hash, 1})[0];
  ASSERT_NE(good, nullptr);
  std::memcpy(changed->data(), good->data(), 8192);
  changed->data()[5000] ^= std::byte{1};
  server.put(hash, changed);
  server.flush();
  PrefixCache cache(ledger_, "model/f16", with(server));
  EXPECT_EQ(cache.match("", tokens_, 256).stop, MatchStop::kUnreadable);
  EXPECT_FALSE(server.has({&hash, 1})[0]) << "a bad page goes";
}

}  // namespace
}  // namespace mneme
