#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>

#include "base/error.h"
#include "budget/ledger.h"
#include "recall/index/exact_index.h"
#include "recall/index/hnsw_index.h"
#include "recall/index/posting_list.h"
#include "recall/index/spann_index.h"
#include "recall/index/update_log.h"

namespace {

using namespace mneme;
using namespace mneme::ann;

/// The payload as an index file whose checksums are right, so that what lies behind them is reached.
std::string sealed(IndexFileKind kind, Metric metric, uint64_t dimension, std::span<const uint8_t> payload) {
  std::string file = index_file_head({kind, metric, dimension});
  file.append(reinterpret_cast<const char*>(payload.data()), payload.size());
  return file + index_file_tail(payload.size(), XXH3_64bits(payload.data(), payload.size()));
}

/// Whatever was accepted can be searched and changed.
void use(VectorIndex& index) {
  const std::vector<float> query(index.dimension(), 0.5f);
  (void)index.search(query, {});
  index.remove(std::vector<uint64_t>{0, 1});
  index.add(std::vector<uint64_t>{1}, query);
  (void)index.search(query, {});
}

}  // namespace

/// The first two bytes choose the file, its metric and dimension; the others are its content. Any content is refused
/// with an Error or gives an index that works.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto metric = static_cast<Metric>(data[0] / 8 % 3);
  const uint64_t dimension = 1 + data[1] % 32;
  const std::span<const uint8_t> rest(data + 2, size - 2);
  try {
    Ledger ledger(uint64_t{256} << 20);
    switch (data[0] % 8) {
      case 0: {
        const std::string file = sealed(IndexFileKind::kExact, metric, dimension, rest);
        use(*ExactIndex::parse(ledger, std::as_bytes(std::span(file)), "fuzz"));
        break;
      }
      case 1: {
        const std::string file = sealed(IndexFileKind::kHnsw, metric, dimension, rest);
        use(*HnswIndex::parse(ledger, std::as_bytes(std::span(file)), "fuzz"));
        break;
      }
      case 2: {
        const std::string file = sealed(IndexFileKind::kSpann, metric, dimension, rest);
        (void)parse_spann_checkpoint(ledger, std::as_bytes(std::span(file)), "fuzz");
        break;
      }
      case 3: {
        const LogContents log = parse_update_log(std::as_bytes(rest), dimension, "fuzz");
        for (const LogRecord& record : log.records) {
          if (record.is_add && record.rows.size() != record.ids.size() * dimension) std::abort();
        }
        break;
      }
      case 4: {
        std::vector<uint64_t> aligned((rest.size() + 7) / 8);
        if (!rest.empty()) std::memcpy(aligned.data(), rest.data(), rest.size());
        const PostingView list = parse_posting(std::as_bytes(std::span(aligned)), 1, data[1], 8);
        if (list.slots.size_bytes() + list.elements.size() > aligned.size() * 8) std::abort();
        break;
      }
      default:
        (void)parse_index_file(std::as_bytes(rest), IndexFileKind::kExact, "fuzz");
    }
  } catch (const Error&) {
  }
  return 0;
}
