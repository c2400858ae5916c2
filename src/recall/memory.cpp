#include "mneme/memory.h"

#include "recall/erase.h"
#include "recall/search/search.h"
#include "recall/store.h"

namespace mneme {
namespace {

recall::Scope scope_of(const Memory::Owner& owner) { return {owner.tenant, owner.user, {}, {}}; }

}  // namespace

struct Memory::Impl {
  std::unique_ptr<recall::Store> store;
};

Memory::Memory(const std::string& location) : impl_(std::make_unique<Impl>(Impl{recall::Store::open(location)})) {}
Memory::Memory(Memory&&) noexcept = default;
Memory& Memory::operator=(Memory&&) noexcept = default;
Memory::~Memory() = default;

std::string Memory::remember(const Owner& owner, std::string_view text, const std::vector<std::string>& tags) {
  recall::Record record;
  record.kind = recall::Kind::kFact;
  record.scope = scope_of(owner);
  record.text = text;
  record.tags = tags;
  return impl_->store->add(record).id;
}

std::vector<Memory::Found> Memory::recall(const Owner& owner, std::string_view query, size_t k,
                                          std::optional<uint64_t> token_budget) {
  recall::Query asked;
  asked.text = query;
  asked.scope = scope_of(owner);
  asked.k = k;
  asked.token_budget = token_budget;
  std::vector<Found> found;
  for (const recall::Hit& hit : recall::search(*impl_->store, asked).hits) {
    found.push_back({hit.record.id, hit.record.text, hit.score, hit.record.event_time, hit.record.tags});
  }
  return found;
}

void Memory::forget(const Owner& owner, const std::vector<std::string>& ids) {
  recall::erase(*impl_->store, scope_of(owner), ids, {.verify = true});
}

}  // namespace mneme
