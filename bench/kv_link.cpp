// InstInfer over a slow link: attention of one generated token of one layer (kv_text.h) with keys and values at a
// worker in another process, behind a link of given bytes a second, against the same store in this process, and against
// fetching all keys and values over the link for each token, as offloading without a worker must.
//   kv_link_bench [TOKENS] [STEPS] [BYTES_A_SECOND ...]

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/byte_size.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/socket.h"
#include "context/attend_link.h"
#include "context/attend_worker.h"
#include "context/kv_policy.h"
#include "kv_text.h"

namespace {

using namespace mneme;
using bench::kKeys;
using bench::kShape;
using bench::ms_of;
using Clock = std::chrono::steady_clock;

constexpr int kTimeoutMs = 300'000;
constexpr size_t kPieceBytes = 16384;  ///< Of what a link passes on at once.

std::string address_of(const std::string& name) {
  return fmt::format("/tmp/mneme-link-{}-{}", ::getpid(), name);
}

/// One direction of a link, as a token bucket: bytes leave when as many have had the time to cross. Time that a link
/// was idle counts for up to kBurst, so that who is late by a little catches up.
class Rate {
 public:
  static constexpr std::chrono::microseconds kBurst{200};

  explicit Rate(double bytes_per_second) : seconds_a_byte_(1 / bytes_per_second) {}

  /// Returns when `n` more bytes have crossed.
  void cross(size_t n) {
    const std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    free_ = std::max(free_, now - kBurst) + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
                                                static_cast<double>(n) * seconds_a_byte_));
    // Sleeping ends late, so the last part is waited for.
    if (free_ - now > std::chrono::microseconds(200))
      std::this_thread::sleep_until(free_ - std::chrono::microseconds(100));
    while (Clock::now() < free_) std::this_thread::yield();
  }

 private:
  std::mutex mutex_;
  double seconds_a_byte_;
  Clock::time_point free_;  ///< When the bytes before have crossed.
};

/// Ends with its parent, at the latest.
class Child {
 public:
  explicit Child(const std::function<void()>& work) : id_(::fork()) {
    if (id_ < 0) fail_errno("start", "a process");
    if (id_ > 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
      work();
    } catch (const std::exception& e) {
      fmt::print(stderr, "error: {}\n", e.what());
    }
    ::_exit(0);
  }
  ~Child() {
    ::kill(id_, SIGKILL);
    ::waitpid(id_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

 private:
  pid_t id_;
};

Socket connect_when_there(const std::string& address) {
  for (int i = 0;; ++i) {
    try {
      return Socket::connect(address, kTimeoutMs);
    } catch (const Error&) {
      if (i == 100) throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
}

/// Passes frames of one direction on until the sender is gone.
void relay_frames(Socket& from, Socket& to, Rate& rate) {
  std::vector<std::byte> piece(kPieceBytes);
  AttendHeader header{};
  while (from.receive_or_end(std::as_writable_bytes(std::span(&header, 1)))) {
    rate.cross(sizeof header);
    to.send(std::as_bytes(std::span(&header, 1)));
    for (uint64_t rest = header.bytes; rest > 0;) {
      const auto some = std::span(piece).first(std::min<uint64_t>(rest, piece.size()));
      from.receive(some);
      rate.cross(some.size());
      to.send(some);
      rest -= some.size();
    }
  }
  to.shut_down();
}

/// A link to the worker: takes one connection after the other.
void run_link(const std::string& address, const std::string& worker, double bytes_per_second) {
  Listener listener(address);
  for (bool ended = false;;) {
    Socket client = listener.accept(&ended);
    if (ended) return;
    Socket server = connect_when_there(worker);
    Rate there(bytes_per_second), back(bytes_per_second);
    std::thread requests([&] {
      try {
        relay_frames(client, server, there);
      } catch (const Error&) {  // one side is gone
        server.shut_down();
      }
    });
    try {
      relay_frames(server, client, back);
    } catch (const Error&) {
      client.shut_down();
    }
    requests.join();
  }
}

/// Answers a number with as many bytes, over a link of its own.
void run_file_server(const std::string& address, double bytes_per_second) {
  Listener listener(address);
  bool ended = false;
  Socket client = listener.accept(&ended);
  Rate rate(bytes_per_second);
  const std::vector<std::byte> piece(kPieceBytes);
  uint64_t rest = 0;
  while (client.receive_or_end(std::as_writable_bytes(std::span(&rest, 1)))) {
    for (; rest > 0; rest -= std::min<uint64_t>(rest, piece.size())) {
      const auto some = std::span(piece).first(std::min<uint64_t>(rest, piece.size()));
      rate.cross(some.size());
      client.send(some);
    }
  }
}

class Bytes : public StateWriter {
 public:
  void write(std::span<const std::byte> bytes) override { data.insert(data.end(), bytes.begin(), bytes.end()); }
  std::vector<std::byte> data;
};

/// Gives a remote store what a local one holds. One worker: what it saves, with its length before.
void send_state(const KvLayer& from, KvLayer& to) {
  for (int64_t page = 0; page <= from.sealed_pages().end; ++page) {
    const bool rest = page == from.sealed_pages().end;
    Bytes saved, framed;
    if (rest) {
      from.save_rest(from.n_tokens(), saved);
    } else {
      from.save_page(page, saved);
    }
    framed.put(uint64_t{saved.data.size()});
    framed.write(saved.data);
    StateReader in(framed.data, "state");
    rest ? to.load_rest(in) : to.load_page(page, in);
  }
}

void print(const std::string& what, std::vector<double> ms, double link_bytes) {
  std::sort(ms.begin(), ms.end());
  fmt::print("{:<46} {:>10.3f} {:>22} {:>14}\n", what, ms[ms.size() / 2],
             fmt::format("({:.3f}-{:.3f})", ms.front(), ms.back()),
             link_bytes == 0 ? "" : format_byte_size(static_cast<uint64_t>(link_bytes)));
}

std::unique_ptr<KvLayer> make(const std::string& policy, size_t n_tokens, Ledger& ledger) {
  return KvPolicy::parse(policy).make_layer(kShape, n_tokens, bench::Feeder::kPiece, ledger);
}

struct Filled {
  std::unique_ptr<KvLayer> store;
  bench::Feeder feeder;
};

void measure(const std::string& density, size_t n_tokens, size_t n_steps, const std::vector<double>& rates,
             const std::vector<std::string>& links) {
  Ledger ledger;
  Filled here{make("instinfer:density=" + density, n_tokens + n_steps, ledger), {}};
  here.feeder.fill(*here.store, n_tokens);
  std::vector<std::unique_ptr<KvLayer>> remote;
  for (const std::string& link : links) {
    remote.push_back(make(fmt::format("instinfer:{},density={}", link, density), n_tokens + n_steps, ledger));
    send_state(*here.store, *remote.back());
  }
  std::vector<bench::Feeder> feeders(links.size(), here.feeder);
  std::vector<double> ms;
  for (size_t step = 0; step < n_steps; ++step) ms.push_back(here.feeder.step(*here.store));
  print("instinfer:density=" + density + ", in the process", ms, 0);
  for (size_t i = 0; i < links.size(); ++i) {
    ms.clear();
    const uint64_t before = remote[i]->fetches().link;
    for (size_t step = 0; step < n_steps; ++step) ms.push_back(feeders[i].step(*remote[i]));
    const auto bytes = static_cast<double>(remote[i]->fetches().link - before) / static_cast<double>(n_steps);
    print(fmt::format("  worker, {:.0f} MB/s", rates[i] / 1e6), ms, bytes);
    if (feeders[i].last_output() != here.feeder.last_output())
      fail(ErrorCode::kCorruptData, "[link] expected the outputs of the store in this process, found others");
  }
}

/// Without the attention over what was fetched.
std::vector<double> fetch_everything_ms(Socket& server, uint64_t bytes, size_t n_steps) {
  std::vector<std::byte> piece(kPieceBytes);
  std::vector<double> ms;
  for (size_t step = 0; step < n_steps; ++step) {
    ms.push_back(ms_of([&] {
      server.send(std::as_bytes(std::span(&bytes, 1)));
      for (uint64_t rest = bytes; rest > 0; rest -= std::min<uint64_t>(rest, piece.size()))
        server.receive(std::span(piece).first(std::min<uint64_t>(rest, piece.size())));
    }));
  }
  return ms;
}

}  // namespace

int main(int argc, char** argv) {
  const size_t n_tokens = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 65536;
  const size_t n_steps = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 50;
  std::vector<double> rates;
  for (int i = 3; i < argc; ++i) rates.push_back(std::strtod(argv[i], nullptr));
  if (rates.empty()) rates = {100e6, 1e9};
  if (n_tokens < 2048 || n_steps < 2 || *std::min_element(rates.begin(), rates.end()) < 1e6) {
    fmt::print(stderr, "usage: kv_link_bench [TOKENS >= 2048] [STEPS >= 2] [BYTES_A_SECOND >= 1e6 ...]\n");
    return 2;
  }
  try {
    // Processes first: this one has no threads yet.
    const std::string worker_address = address_of("worker");
    const Child worker([&] {
      Ledger ledger;
      AttendWorker(worker_address, ledger).run();
    });
    std::vector<std::unique_ptr<Child>> children;
    std::vector<std::string> links, servers;
    for (size_t i = 0; i < rates.size(); ++i) {
      links.push_back(address_of(fmt::format("link{}", i)));
      servers.push_back(address_of(fmt::format("files{}", i)));
      children.push_back(std::make_unique<Child>([&] { run_link(links.back(), worker_address, rates[i]); }));
      children.push_back(std::make_unique<Child>([&] { run_file_server(servers.back(), rates[i]); }));
    }
    for (const std::string& link : links) connect_when_there(link);
    fmt::print("{} tokens, {} steps, {} threads\n", n_tokens, n_steps, n_threads());
    fmt::print("{:<46} {:>10} {:>22} {:>14}\n", "form", "ms/token", "(min-max)", "link/token");
    measure("1/8", n_tokens, n_steps, rates, links);
    measure("1", n_tokens, n_steps, rates, links);
    const uint64_t all = uint64_t{n_tokens} * 2 * kKeys * 2;
    for (size_t i = 0; i < rates.size(); ++i) {
      Socket server = connect_when_there(servers[i]);
      print(fmt::format("fetching everything, {:.0f} MB/s, no attention", rates[i] / 1e6),
            fetch_everything_ms(server, all, std::min<size_t>(n_steps, 5)), static_cast<double>(all));
    }
    Ledger ledger;
    Filled plain{make("f16", n_tokens + n_steps, ledger), {}};
    plain.feeder.fill(*plain.store, n_tokens);
    std::vector<double> ms;
    for (size_t step = 0; step < n_steps; ++step) ms.push_back(plain.feeder.step(*plain.store));
    print("f16 in memory", ms, 0);
    for (const auto* addresses : {&links, &servers}) {
      for (const std::string& address : *addresses) ::unlink(address.c_str());
    }
    ::unlink(worker_address.c_str());
  } catch (const Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
