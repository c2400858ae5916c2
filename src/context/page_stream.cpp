#include "context/page_stream.h"

#include <algorithm>
#include <array>
#include <cassert>

#include "context/async_reader.h"
#include "context/kv_file.h"

namespace mneme {
namespace {

/// Larger runs are several reads, which a device serves side by side.
constexpr size_t kMostRead = size_t{256} << 10;

AsyncReader& reader_of_thread() {
  static thread_local AsyncReader reader;
  return reader;
}

struct Batch {
  size_t first = 0, n = 0;       ///< Items.
  std::vector<std::byte*> data;  ///< Of each.
  std::vector<ReadRequest> requests;
  std::vector<size_t> item_of;  ///< By request.
};

}  // namespace

void PageList::add(uint64_t offset, size_t bytes) {
  Item& item = items_.back();
  const bool goes_on = runs_.size() > item.first_run && runs_.back().offset + runs_.back().bytes == offset;
  if (goes_on) {
    runs_.back().bytes += bytes;
  } else {
    runs_.push_back({offset, bytes});
  }
  item.bytes += bytes;
  bytes_ += bytes;
}

std::span<const PageList::Run> PageList::runs(size_t i) const {
  const size_t end = i + 1 < items_.size() ? items_[i + 1].first_run : runs_.size();
  return std::span(runs_).subspan(items_[i].first_run, end - items_[i].first_run);
}

std::optional<PageFailure> stream_pages(int file, const PageList& list, std::span<std::byte> memory,
                                        FunctionRef<void(size_t, size_t, std::byte* const*)> use) {
  AsyncReader& reader = reader_of_thread();
  const size_t half = memory.size() / 2 / KvFile::kPage * KvFile::kPage;
  std::array<Batch, 2> batches;
  size_t next = 0;
  const auto start = [&](size_t which) {
    Batch& batch = batches[which];
    batch = Batch{next, 0, {}, {}, {}};
    std::byte* at = memory.data() + which * half;
    const std::byte* const end = at + half;
    for (; next < list.size() && list[next].bytes <= static_cast<size_t>(end - at); ++next, ++batch.n) {
      batch.data.push_back(at);
      for (const PageList::Run& run : list.runs(next)) {
        for (size_t done = 0; done < run.bytes;) {
          const size_t n = std::min(kMostRead, run.bytes - done);
          batch.requests.push_back({run.offset + done, static_cast<uint32_t>(n), at, file});
          batch.item_of.push_back(next);
          at += n;
          done += n;
        }
      }
    }
    assert(batch.n > 0 || next == list.size());
    if (batch.n > 0) reader.start(batch.requests);
  };
  start(0);
  for (size_t which = 0; batches[which].n > 0; which = 1 - which) {
    Batch& batch = batches[which];
    std::vector<size_t> failed;
    reader.finish([&](size_t i, int error) {
      if (error != 0) failed.push_back(i);
    });
    for (const size_t i : failed) {  // a second chance
      int again = 0;
      reader.start(std::span(batch.requests).subspan(i, 1));
      reader.finish([&](size_t, int error) { again = error; });
      if (again != 0) return PageFailure{batch.item_of[i], again};
    }
    start(1 - which);
    use(batch.first, batch.n, batch.data.data());
  }
  return std::nullopt;
}

}  // namespace mneme
