#include "context/attend_worker.h"

#include <exception>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "context/served_kv.h"

namespace mneme {

AttendWorker::AttendWorker(const std::string& address, Ledger& ledger)
    : ledger_(ledger), listener_(address), computing_([this] { compute_all(); }) {}

AttendWorker::~AttendWorker() {
  stop();
  for (;;) {
    std::thread one;
    {
      const std::lock_guard lock(mutex_);
      if (connections_.empty()) break;
      one = std::move(connections_.front().thread);
    }
    one.join();
    const std::lock_guard lock(mutex_);
    connections_.pop_front();
  }
  {
    const std::lock_guard lock(work_mutex_);
    ending_ = true;
  }
  work_changed_.notify_all();
  computing_.join();
}

void AttendWorker::stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  listener_.shut_down();
  for (Connection& connection : connections_) connection.socket.shut_down();
}

void AttendWorker::run() {
  for (bool ended = false;;) {
    Socket socket = listener_.accept(&ended);
    if (ended) return;
    drop_ended();
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    Connection& connection = connections_.emplace_back();
    connection.socket = std::move(socket);
    connection.thread = std::thread([this, &connection] { serve(connection); });
  }
}

void AttendWorker::drop_ended() {
  const std::lock_guard lock(mutex_);
  for (auto it = connections_.begin(); it != connections_.end();) {
    if (!it->ended) {
      ++it;
      continue;
    }
    it->thread.join();
    it = connections_.erase(it);
  }
}

void AttendWorker::serve(Connection& connection) {
  try {
    ServedKv served(ledger_);
    std::vector<std::byte> payload, out;
    AttendMessage message{};
    while (receive_frame(connection.socket, served.most_bytes(), &message, &payload)) {
      AttendMessage answer = AttendMessage::kError;
      try {
        compute([&] { answer = served.answer(message, payload, out); });
      } catch (const Error& e) {
        answer = ServedKv::refuse(e, out);
      }
      send_frame(connection.socket, answer, out);
    }
  } catch (const std::exception& e) {  // this connection ends, the others go on
    log().info("attend-worker: {}", e.what());
  }
  connection.socket.shut_down();
  const std::lock_guard lock(mutex_);
  connection.ended = true;
}

void AttendWorker::compute(FunctionRef<void()> work) {
  const std::lock_guard turn(turn_);
  std::unique_lock lock(work_mutex_);
  work_ = &work;
  thrown_ = nullptr;
  work_changed_.notify_all();
  work_changed_.wait(lock, [&] { return work_ == nullptr; });
  if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
}

void AttendWorker::compute_all() {
  std::unique_lock lock(work_mutex_);
  for (;;) {
    work_changed_.wait(lock, [&] { return work_ != nullptr || ending_; });
    if (work_ == nullptr) return;
    lock.unlock();
    try {
      (*work_)();
    } catch (...) {
      thrown_ = std::current_exception();
    }
    lock.lock();
    work_ = nullptr;
    work_changed_.notify_all();
  }
}

}  // namespace mneme
