#pragma once

#include <condition_variable>
#include <exception>
#include <list>
#include <mutex>
#include <string>
#include <thread>

#include "base/function_ref.h"
#include "base/socket.h"
#include "budget/ledger.h"

namespace mneme {

/// The executor beside the data (InstInfer, arXiv 2409.04992) as a server: it keeps keys and values of RemoteKvs in its
/// own files (instinfer_kv.h) and sends back finished outputs, never keys or values unless a sequence is saved. SparF
/// corrects its output by the mean of all values, so it cannot be merged with that of other tokens: a worker has whole
/// histories of its heads, with the tail.
///
/// One thread a connection, which only reads and writes; all computing is done by one more, which is parallel inside.
/// Whatever a client sends is checked; it knows no passwords, so it should listen where only its own can reach it.
class AttendWorker {
 public:
  /// Listens from now on. Throws Error(kIo).
  AttendWorker(const std::string& address, Ledger& ledger);
  /// As stop().
  ~AttendWorker();

  const std::string& address() const { return listener_.address(); }
  /// Takes connections until stop(). Throws Error(kIo).
  void run();
  /// Ends all connections and run(); their stores are gone.
  void stop();

 private:
  struct Connection {
    Socket socket;
    std::thread thread;
    bool ended = false;
  };
  void serve(Connection& connection);
  void drop_ended();
  /// Runs `work` on the computing thread. What it throws is thrown on.
  void compute(FunctionRef<void()> work);
  void compute_all();

  Ledger& ledger_;
  Listener listener_;
  std::mutex mutex_;  ///< Guards the connections and stopping_.
  std::list<Connection> connections_;
  bool stopping_ = false;
  std::mutex turn_;  ///< Of who computes next.
  std::mutex work_mutex_;
  std::condition_variable work_changed_;
  FunctionRef<void()>* work_ = nullptr;
  std::exception_ptr thrown_;
  bool ending_ = false;
  std::thread computing_;
};

}  // namespace mneme
