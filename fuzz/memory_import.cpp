// Any text as an import of each format. What is read must be records that a store takes, and their JSON must read back
// as the same. The first byte chooses the format.
#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "recall/import/import_formats.h"
#include "recall/search/terms.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mneme;
  using namespace mneme::recall;
  if (size == 0) return 0;
  const auto format = static_cast<ImportFormat>(data[0] % 5);
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const TermHasher hasher(1);
  try {
    for (Record& record : parse_import(text, format, {"fuzz", {}, true, 1}).records) {
      try {
        normalise(record);
      } catch (const Error&) {
        continue;  // e.g. a name that is too long: refused by the store, with the number of the record
      }
      hasher.record_terms(record);
      const Json json = to_json(record);
      record.version = 1;
      const Record back = record_from_json(to_json(record), "record");
      if (to_json(back) != to_json(record)) {
        std::fprintf(stderr, "changed on its way through JSON: %s\n", json.dump().c_str());
        std::abort();
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
