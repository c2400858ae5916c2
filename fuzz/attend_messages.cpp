// Any bytes as the messages of a client of `mneme attend-worker`: of each the kind (one byte), the length (three bytes) and
// the payload. The first is a good config, so that what needs a store is reached. Whatever comes, nothing but an Error may
// come of it.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "context/served_kv.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mneme;
  Ledger ledger(uint64_t{64} << 20);
  ServedKv served(ledger);
  std::vector<std::byte> out;
  const AttendConfig good{AttendConfig::kVersion, 1, 8, 8, 2, 0.5f, 32, 16, 512};
  if (size > 0 && (data[0] & 1) == 0) served.answer(AttendMessage::kConfig, std::as_bytes(std::span(&good, 1)), out);
  size_t at = 1;
  while (at + 4 <= size) {
    uint32_t head = 0;
    std::memcpy(&head, data + at, sizeof head);
    at += sizeof head;
    const size_t n = std::min<size_t>({head >> 8, size - at, served.most_bytes()});
    try {
      served.answer(static_cast<AttendMessage>(head & 15), std::as_bytes(std::span(data + at, n)), out);
    } catch (const Error& e) {
      ServedKv::refuse(e, out);
    }
    at += n;
  }
  return 0;
}
