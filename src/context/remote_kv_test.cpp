#include "context/remote_kv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/test_error.h"
#include "context/attend_worker.h"
#include "context/kv_example.h"
#include "context/kv_policy.h"

namespace mneme {
namespace {

constexpr KvShape kShape{2, 64, 48, 0};
constexpr const char* kRest = "density=1/8,channels=32,residual=16";

/// A worker on a thread of its own.
class Running {
 public:
  explicit Running(const std::string& address, uint64_t memory = Ledger::kUnlimited)
      : ledger(memory), worker_(std::make_unique<AttendWorker>(address, ledger)), thread_([this] { worker_->run(); }) {}
  ~Running() { end(); }
  void end() {
    if (!worker_) return;
    worker_->stop();
    thread_.join();
    worker_.reset();
  }
  const std::string& address() const { return worker_->address(); }

  Ledger ledger;

 private:
  std::unique_ptr<AttendWorker> worker_;
  std::thread thread_;
};

std::string socket_path(const char* name) { return "/tmp/mneme-" + std::to_string(::getpid()) + "-" + name; }

std::unique_ptr<KvLayer> make(const std::string& policy, Ledger& ledger) {
  return KvPolicy::parse(policy).make_layer(kShape, 4096, 512, ledger);
}

/// 390 given tokens and 10 generated ones.
std::vector<float> answers(const KvExample& example, KvLayer& store) {
  std::vector<float> out;
  for (size_t first = 0; first < 390; first += 130) {
    const auto part = example.feed(store, first, 130);
    out.insert(out.end(), part.begin(), part.end());
  }
  const auto rest = generate(example, store, 390, 10);
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

TEST(RemoteKv, AnswersAreThoseOfTheStoreHereAndBytesThoseOfTheFormula) {
  const KvExample example = hidden_state_example(kShape, 4, 400, 1);
  Ledger ledger;
  const auto here = make(std::string("instinfer:") + kRest, ledger);
  const auto want = answers(example, *here);
  Running tcp("127.0.0.1:0"), local(socket_path("a"));
  for (const std::string& policy : {"instinfer:" + tcp.address() + "," + kRest,
                                    "instinfer:" + local.address() + ",at=" + tcp.address() + "," + kRest}) {
    SCOPED_TRACE(policy);
    const size_t n_workers = policy.find(",at=") == std::string::npos ? 1 : 2;
    const auto store = make(policy, ledger);
    EXPECT_EQ(answers(example, *store), want);
    EXPECT_EQ(store->trouble(), "");
    EXPECT_EQ(store->n_tokens(), 400);
    FetchCounts counts = store->fetches();
    EXPECT_EQ(counts.bytes, here->fetches().bytes);
    EXPECT_EQ(counts.passed, here->fetches().passed);
    ASSERT_TRUE(store->truncate(399));
    counts = store->fetches();
    generate(example, *store, 399, 1);
    EXPECT_EQ(store->fetches().link - counts.link, RemoteKv::call_bytes(kShape, 4, 1, n_workers, false));
    EXPECT_EQ(RemoteKv::call_bytes(kShape, 4, 1, n_workers, false),
              4 * 4 * (64 + 48) + 2 * 2 * (64 + 48) + n_workers * 104);
  }
  EXPECT_EQ(ledger.used(Tier::kRam), here->bytes());
}

TEST(RemoteKv, StatesAreSavedCopiedAndCutThroughTheLink) {
  const KvExample example = hidden_state_example(kShape, 4, 420, 1);
  Running a("127.0.0.1:0"), b("127.0.0.1:0");
  const std::string policy = "instinfer:" + a.address() + ",at=" + b.address() + "," + kRest;
  Ledger ledger;
  const auto store = make(policy, ledger);
  answers(example, *store);
  EXPECT_EQ(store->sealed_pages().end, 1);
  const auto copied = store->deep_copy();
  const auto want = generate(example, *store, 400, 20);
  EXPECT_EQ(generate(example, static_cast<KvLayer&>(*copied), 400, 20), want);
  EXPECT_FALSE(store->truncate(100));
  ASSERT_TRUE(store->truncate(400));
  EXPECT_EQ(generate(example, *store, 400, 20), want);
}

TEST(RemoteKv, AWorkerThatIsGoneIsNamedAndTheOthersGoOn) {
  const KvExample example = hidden_state_example(kShape, 4, 420, 1);
  Running gone("127.0.0.1:0"), stays("127.0.0.1:0");
  const std::string address = gone.address();
  Ledger ledger;
  const auto broken = make("instinfer:" + address + "," + kRest, ledger);
  const auto whole = make("instinfer:" + stays.address() + "," + kRest, ledger);
  const auto want = answers(example, *broken);
  gone.end();
  EXPECT_EQ(generate(example, *broken, 400, 1), std::vector<float>(example.width(), 0.0f));
  EXPECT_THAT(std::string(broken->trouble()), testing::HasSubstr("[worker " + address + "]"));
  EXPECT_FALSE(broken->truncate(400));
  EXPECT_EQ(answers(example, *whole), want);
  EXPECT_THAT(error_of([&] { make("instinfer:" + address + "," + kRest, ledger); }), testing::HasSubstr(address));
}

TEST(RemoteKv, AWorkerWithoutMemoryRefuses) {
  const KvExample example = hidden_state_example(kShape, 4, 420, 1);
  Running tiny("127.0.0.1:0", 100'000);
  Ledger ledger;
  const auto store = make("instinfer:" + tiny.address() + "," + kRest, ledger);
  answers(example, *store);
  EXPECT_THAT(std::string(store->trouble()), testing::HasSubstr("[worker " + tiny.address() + "]"));
  EXPECT_THAT(error_of([&] { make("instinfer:" + tiny.address() + ",at=/tmp/b,at=/tmp/c", ledger); }),
              testing::HasSubstr("divides 2 kv heads"));
}

// Whatever comes through the socket, the worker answers or ends that connection, and others go on.
TEST(AttendWorker, ChecksWhatClientsSend) {
  Running worker("127.0.0.1:0");
  const AttendConfig good{AttendConfig::kVersion, 2, 64, 48, 4, 0.125f, 32, 16, 4096};
  const auto bytes_of = [](const auto& value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  const auto ask = [&](Socket& socket, AttendMessage message, const std::vector<std::byte>& payload) {
    std::vector<std::byte> answer;
    AttendMessage kind{};
    send_frame(socket, message, payload);
    if (!receive_frame(socket, 1 << 20, &kind, &answer)) return std::string("closed");
    if (kind != AttendMessage::kError) return std::string("fine");
    return std::string(reinterpret_cast<const char*>(answer.data()) + 4, answer.size() - 4);
  };
  const auto connect = [&] { return Socket::connect(worker.address(), 10'000); };
  using testing::HasSubstr;
  {
    Socket socket = connect();
    EXPECT_THAT(ask(socket, AttendMessage::kExtend, {}), HasSubstr("a config first"));
    AttendConfig wrong = good;
    wrong.key_dim = 1 << 20;
    EXPECT_THAT(ask(socket, AttendMessage::kConfig, bytes_of(wrong)), HasSubstr("possible sizes"));
    wrong = good;
    wrong.n_heads = 3;
    EXPECT_THAT(ask(socket, AttendMessage::kConfig, bytes_of(wrong)), HasSubstr("possible sizes"));
    wrong = good;
    wrong.channels = 0;
    EXPECT_THAT(ask(socket, AttendMessage::kConfig, bytes_of(wrong)), HasSubstr("possible sizes"));
    EXPECT_EQ(ask(socket, AttendMessage::kConfig, bytes_of(good)), "fine");
    EXPECT_THAT(ask(socket, AttendMessage::kConfig, bytes_of(good)), HasSubstr("one config"));
    AttendBatch batch{1000, 4, 1, 0, 1, 0};
    EXPECT_THAT(ask(socket, AttendMessage::kExtend, bytes_of(batch)), HasSubstr("expected a batch"));
    batch.n_heads = 0;
    EXPECT_THAT(ask(socket, AttendMessage::kExtend, bytes_of(batch)), HasSubstr("expected a batch"));
    batch = {5000, 4, 1, 0, 1, 0};  // more than the context
    std::vector<std::byte> full = bytes_of(batch);
    full.resize(attend_batch_bytes(kShape, batch));
    EXPECT_THAT(ask(socket, AttendMessage::kExtend, full), HasSubstr("at most 4096 tokens"));
    EXPECT_THAT(ask(socket, AttendMessage::kSave, bytes_of(int64_t{7})), HasSubstr("page below 0"));
    EXPECT_THAT(ask(socket, AttendMessage::kTruncate, {}), HasSubstr("bytes more"));
    EXPECT_THAT(ask(socket, AttendMessage::kOutput, {}), HasSubstr("expected a request"));
    EXPECT_THAT(ask(socket, AttendMessage::kLoad, bytes_of(int64_t{0})), HasSubstr("[load"));
    // What was loaded in part is gone.
    EXPECT_THAT(ask(socket, AttendMessage::kTruncate, bytes_of(int64_t{0})), HasSubstr("a config first"));
  }
  {
    Socket socket = connect();  // a payload that is too long before there is a config
    const AttendHeader header{AttendHeader::kMagic, AttendMessage::kConfig, uint64_t{1} << 40};
    socket.send(std::as_bytes(std::span(&header, 1)));
    std::byte one{};
    EXPECT_FALSE(socket.receive_or_end({&one, 1}));
  }
  {
    Socket socket = connect();  // no frame at all
    const std::string text = "GET / HTTP/1.0\r\n\r\n";
    socket.send(std::as_bytes(std::span(text)));
    std::byte one{};
    bool ended = true;
    try {
      ended = !socket.receive_or_end({&one, 1});
    } catch (const Error&) {  // reset, since not everything was read
    }
    EXPECT_TRUE(ended);
  }
  Socket socket = connect();
  EXPECT_EQ(ask(socket, AttendMessage::kConfig, bytes_of(good)), "fine");
}

TEST(AttendWorker, APathIsTakenOnce) {
  const std::string path = socket_path("once");
  Running worker(path);
  EXPECT_THAT(error_of([&] { Running second(path); }), testing::HasSubstr("another process"));
}

}  // namespace
}  // namespace mneme
