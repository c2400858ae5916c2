#include "eval/limited_memory_claims.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/philox.h"
#include "base/unnamed_file.h"
#include "context/async_reader.h"
#include "eval/large_matrix.h"

namespace mneme {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMatrices = 16, kRows = 4096, kColumns = 4096, kPasses = 5;
constexpr size_t kBytes = kRows * kColumns * 2;  ///< Of a matrix in BF16, a multiple of the page size.

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

/// Activations of a pass, which every matrix of the model multiplies.
class Pass {
 public:
  explicit Pass(size_t n_tokens) : n_tokens_(n_tokens), x_(n_tokens * kColumns), y_(n_tokens * kRows), input_(ledger_) {
    PhiloxStream random(7);
    for (float& v : x_) v = random.next_normal();
  }
  void multiply(const kernels::Matrix& matrix) {
    input_.set(x_.data(), n_tokens_, kColumns);
    kernels::matmul(matrix, input_, nullptr, y_.data(), kRows);
  }

 private:
  Ledger ledger_;
  size_t n_tokens_;
  std::vector<float> x_, y_;
  kernels::MatmulInput input_;
};

/// Seconds of a pass over a model that is in memory as a whole.
double pass_in_memory(DType dtype, size_t n_tokens) {
  std::vector<std::unique_ptr<LargeMatrix>> model;
  for (size_t i = 0; i < kMatrices; ++i) model.push_back(std::make_unique<LargeMatrix>(dtype, kRows, kColumns));
  Pass pass(n_tokens);
  std::vector<double> times;
  for (size_t i = 0; i <= kPasses; ++i) {
    const auto start = Clock::now();
    for (const auto& matrix : model) pass.multiply(matrix->matrix());
    if (i > 0) times.push_back(seconds_since(start));  // the first one warms up
  }
  return median(times);
}

/// A model in BF16 of which the first matrices are in memory and the others in a file. Each of those is read in every
/// pass, past the page cache, while the one before it is multiplied.
class PartlyInFile {
 public:
  explicit PartlyInFile(size_t n_resident) : n_resident_(n_resident) {
    for (size_t i = 0; i < n_resident; ++i) {
      resident_.push_back(std::make_unique<LargeMatrix>(DType::kBF16, kRows, kColumns));
    }
    const LargeMatrix one(DType::kBF16, kRows, kColumns);
    form_ = one.matrix();
    if (one.bytes() != kBytes) {
      fail(ErrorCode::kUnsupported, "[eval claims] expected matrices of {} bytes in BF16, found {}", kBytes,
           one.bytes());
    }
    for (Buffer& buffer : buffers_) buffer = Buffer(ledger_, Tag::kWeights, kBytes, "matrix from a file");
    std::copy_n(one.matrix().data, kBytes, buffers_[0].data());
    file_ = open_unnamed(std::filesystem::temp_directory_path().string());
    for (size_t i = n_resident; i < kMatrices; ++i) write(buffers_[0].data(), (i - n_resident) * kBytes);
    ::fsync(file_);
  }
  PartlyInFile(const PartlyInFile&) = delete;
  PartlyInFile& operator=(const PartlyInFile&) = delete;
  ~PartlyInFile() { ::close(file_); }

  struct Time {
    double seconds = 0, bytes_per_second = 0;  ///< Of a pass; of the file, while it was read.
  };
  /// The median pass. With a `limit` in bytes a second, reads take as long as with a disk of that rate.
  Time pass(size_t n_tokens, double limit) {
    Pass work(n_tokens);
    std::vector<double> times;
    double reading = 0;
    size_t n_read = 0;
    for (size_t i = 0; i <= kPasses; ++i) {
      const auto start = Clock::now();
      std::jthread ahead = read_ahead(0, limit, reading);
      for (const auto& matrix : resident_) work.multiply(matrix->matrix());
      for (size_t j = 0; j < kMatrices - n_resident_; ++j) {
        ahead.join();
        ++n_read;
        if (j + 1 < kMatrices - n_resident_) ahead = read_ahead(j + 1, limit, reading);
        kernels::Matrix matrix = form_;
        matrix.data = buffers_[j % 2].data();
        work.multiply(matrix);
      }
      if (!trouble_.empty()) fail(ErrorCode::kIo, "[eval claims] {}", trouble_);
      if (i > 0) times.push_back(seconds_since(start));
    }
    return {median(times), static_cast<double>(n_read * kBytes) / reading};
  }

 private:
  void write(const std::byte* data, size_t offset) {
    for (size_t done = 0; done < kBytes;) {
      const ssize_t n = ::pwrite(file_, data + done, kBytes - done, static_cast<off_t>(offset + done));
      if (n <= 0) fail_errno("eval claims", std::filesystem::temp_directory_path().string());
      done += static_cast<size_t>(n);
    }
  }
  /// A thread that reads matrix `index` of the file into its buffer and adds the seconds to `reading`, which nobody
  /// else touches until it is joined.
  std::jthread read_ahead(size_t index, double limit, double& reading) {
    return std::jthread([this, index, limit, &reading] {
      constexpr size_t kPiece = size_t{1} << 20;
      const auto start = Clock::now();
      std::vector<ReadRequest> pieces;
      for (size_t at = 0; at < kBytes; at += kPiece) {
        pieces.push_back({index * kBytes + at, kPiece, buffers_[index % 2].data() + at});
      }
      try {
        reader_.read(
            file_, pieces, [](size_t) {}, "temporary file");
      } catch (const Error& error) {
        trouble_ = error.what();
      }
      if (limit > 0) std::this_thread::sleep_until(start + std::chrono::duration<double>(kBytes / limit));
      reading += seconds_since(start);
    });
  }

  size_t n_resident_;
  Ledger ledger_;
  std::vector<std::unique_ptr<LargeMatrix>> resident_;
  kernels::Matrix form_;
  Buffer buffers_[2];
  AsyncReader reader_;
  std::string trouble_;
  int file_ = -1;
};

/// How many times as fast a lossless model that fits is, where `share` of the BF16 bytes are there for weights. The
/// buffers for what is read are not counted against BF16.
ClaimMeasurement against_reading(DType dtype, double share, size_t n_tokens, double limit) {
  const auto n_resident = static_cast<size_t>(share * kMatrices);
  const double taken = LargeMatrix(dtype, kRows, kColumns).bits_per_weight() / 16;
  if (taken > share) {
    fail(ErrorCode::kUnsupported, "[eval claims] expected {} to fit {} of BF16, found {:.4f}", dtype_info(dtype).name,
         share, taken);
  }
  const double whole = pass_in_memory(dtype, n_tokens);
  const PartlyInFile::Time partly = PartlyInFile(n_resident).pass(n_tokens, limit);
  return {partly.seconds / whole,
          fmt::format("{:.1f} ms a pass of {} tokens in {} ({:.1f} % of BF16) against {:.1f} ms with {} of {} matrices "
                      "of 32 MiB read from a file at {:.0f} MB/s{}, a matrix ahead",
                      1e3 * whole, n_tokens, dtype_info(dtype).name, 100 * taken, 1e3 * partly.seconds,
                      kMatrices - n_resident, kMatrices, partly.bytes_per_second / 1e6, limit > 0 ? " (limited)" : "")};
}

}  // namespace

std::vector<Claim> limited_memory_claims() {
  const char* const source = "arXiv 2504.11651";
  const char* const paper = "1.9-38.8";
  return {
      {"dfloat11", source, "Where 77 % of BF16 fits, DF12 is faster than reading the rest, one token", "times", paper,
       1.9, false, [] { return against_reading(DType::kDf12, 0.77, 1, 0); }},
      {"dfloat11", source, "Where 70 % fits, DF11 is faster than reading the rest, 8 tokens", "times", paper, 1.9,
       false, [] { return against_reading(DType::kDf11, 0.70, 8, 0); }},
      {"dfloat11", source, "The same for 8 tokens, from a disk of 500 MB/s", "times", paper, 1.9, false,
       [] { return against_reading(DType::kDf11, 0.70, 8, 500e6); }},
      {"dfloat11", source, "The same for one token, from a disk of 500 MB/s", "times", paper, 1.9, false,
       [] { return against_reading(DType::kDf11, 0.70, 1, 500e6); }},
  };
}

}  // namespace mneme
