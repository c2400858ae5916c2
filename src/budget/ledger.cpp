#include "budget/ledger.h"

#include <algorithm>
#include <utility>

#include "base/byte_size.h"
#include "base/error.h"
#include "budget/page_pool.h"

namespace mneme {
namespace {

size_t index_of(Tag tag) {
  return static_cast<size_t>(tag);
}
size_t index_of(Tier tier) {
  return static_cast<size_t>(tier);
}

}  // namespace

std::string_view tag_name(Tag tag) {
  static constexpr std::string_view kNames[kTags] = {"weights",   "kv",    "state", "activation", "gradient",
                                                     "optimizer", "index", "cache", "scratch",    "runtime"};
  return kNames[index_of(tag)];
}

std::string_view tier_name(Tier tier) {
  static constexpr std::string_view kNames[kTiers] = {"ram", "disk", "server", "device"};
  return kNames[index_of(tier)];
}

// Reservation ---------------------------------------------------------------------------------------------------------

Reservation::Reservation(Ledger* ledger, Tag tag, Tier tier, uint64_t bytes, std::string what)
    : ledger_(ledger), tag_(tag), tier_(tier), bytes_(bytes), what_(std::move(what)) {}

Reservation::Reservation(Reservation&& other) noexcept {
  *this = std::move(other);
}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this == &other) return *this;
  release();
  ledger_ = std::exchange(other.ledger_, nullptr);
  tag_ = other.tag_;
  tier_ = other.tier_;
  bytes_ = std::exchange(other.bytes_, 0);
  what_ = std::move(other.what_);
  return *this;
}

void Reservation::resize(uint64_t bytes) {
  if (ledger_ == nullptr || bytes == bytes_) return;
  if (bytes > bytes_) {
    if (!ledger_->take(tag_, tier_, bytes - bytes_, what_)) ledger_->refuse(tag_, tier_, bytes - bytes_, what_);
  } else {
    ledger_->give_back(tag_, tier_, bytes_ - bytes, what_);
  }
  bytes_ = bytes;
}

void Reservation::release() {
  if (ledger_ == nullptr) return;
  Ledger* ledger = std::exchange(ledger_, nullptr);
  ledger->give_back(tag_, tier_, std::exchange(bytes_, 0), what_);
}

void Reservation::move_to(Tag tag) {
  if (ledger_ == nullptr || tag == tag_) return;
  const std::lock_guard lock(ledger_->mutex_);
  auto& accounts = ledger_->by_tag_[index_of(tier_)];
  accounts[index_of(tag_)].used -= bytes_;
  accounts[index_of(tag)].add(bytes_);
  tag_ = tag;
}

// Ledger --------------------------------------------------------------------------------------------------------------

void Ledger::Account::add(uint64_t bytes) {
  used += bytes;
  peak = std::max(peak, used);
}

Ledger::Ledger(uint64_t ram_limit) {
  limit_.fill(kUnlimited);
  limit_[index_of(Tier::kRam)] = ram_limit;
}

Reservation Ledger::reserve(Tag tag, uint64_t bytes, std::string what, Tier tier) {
  if (!take(tag, tier, bytes, what)) refuse(tag, tier, bytes, what);
  return Reservation(this, tag, tier, bytes, std::move(what));
}

std::optional<Reservation> Ledger::try_reserve(Tag tag, uint64_t bytes, std::string what, Tier tier) {
  if (!take(tag, tier, bytes, what)) return std::nullopt;
  return Reservation(this, tag, tier, bytes, std::move(what));
}

bool Ledger::take_if_room(Tag tag, Tier tier, uint64_t bytes, uint64_t* missing) {
  const std::lock_guard lock(mutex_);
  const uint64_t used = total_[index_of(tier)].used;
  const uint64_t limit = limit_[index_of(tier)];
  const uint64_t room = limit > used ? limit - used : 0;
  if (bytes > room) {
    *missing = bytes - room;
    return false;
  }
  total_[index_of(tier)].add(bytes);
  by_tag_[index_of(tier)][index_of(tag)].add(bytes);
  return true;
}

bool Ledger::take(Tag tag, Tier tier, uint64_t bytes, const std::string& what) {
  uint64_t missing = 0;
  if (!take_if_room(tag, tier, bytes, &missing)) {
    reclaim(tier, missing);
    if (!take_if_room(tag, tier, bytes, &missing)) {
      publish({BudgetEvent::Kind::kRefuse, tier, tag, bytes, used(tier), what});
      return false;
    }
  }
  publish({BudgetEvent::Kind::kReserve, tier, tag, bytes, used(tier), what});
  return true;
}

void Ledger::give_back(Tag tag, Tier tier, uint64_t bytes, const std::string& what) {
  uint64_t after = 0;
  {
    const std::lock_guard lock(mutex_);
    total_[index_of(tier)].used -= bytes;
    by_tag_[index_of(tier)][index_of(tag)].used -= bytes;
    after = total_[index_of(tier)].used;
  }
  publish({BudgetEvent::Kind::kRelease, tier, tag, bytes, after, what});
}

void Ledger::reclaim(Tier tier, uint64_t bytes) {
  const std::lock_guard reclaiming(reclaiming_);
  std::vector<Reclaimer*> order;
  {
    const std::lock_guard lock(mutex_);
    order = reclaimers_;
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const Reclaimer* a, const Reclaimer* b) { return a->cost_per_byte() < b->cost_per_byte(); });
  for (Reclaimer* holder : order) {
    if (bytes == 0) return;
    if (holder->reclaimable(tier) == 0) continue;
    const uint64_t freed = holder->reclaim(tier, bytes);
    bytes -= std::min(bytes, freed);
    publish({BudgetEvent::Kind::kReclaim, tier, Tag::kCache, freed, used(tier), holder->name()});
  }
}

void Ledger::refuse(Tag tag, Tier tier, uint64_t bytes, const std::string& what) const {
  throw Error(ErrorCode::kOutOfBudget,
              fmt::format("[reserve {}] {} needs {}, but only {} of the {} limit of {} are free", tag_name(tag), what,
                          format_byte_size(bytes), format_byte_size(available(tier)), tier_name(tier),
                          format_byte_size(limit(tier))),
              "raise --memory, or lower --context or --batch");
}

uint64_t Ledger::set_limit(Tier tier, uint64_t bytes) {
  uint64_t in_use = 0;
  {
    const std::lock_guard lock(mutex_);
    limit_[index_of(tier)] = bytes;
    in_use = total_[index_of(tier)].used;
  }
  publish({BudgetEvent::Kind::kLimit, tier, Tag::kRuntime, bytes, in_use, "limit changed"});
  if (in_use > bytes) reclaim(tier, in_use - bytes);
  in_use = used(tier);
  return in_use > bytes ? in_use - bytes : 0;
}

uint64_t Ledger::limit(Tier tier) const {
  const std::lock_guard lock(mutex_);
  return limit_[index_of(tier)];
}

uint64_t Ledger::used(Tier tier) const {
  const std::lock_guard lock(mutex_);
  return total_[index_of(tier)].used;
}

uint64_t Ledger::used(Tier tier, Tag tag) const {
  const std::lock_guard lock(mutex_);
  return by_tag_[index_of(tier)][index_of(tag)].used;
}

uint64_t Ledger::peak(Tier tier) const {
  const std::lock_guard lock(mutex_);
  return total_[index_of(tier)].peak;
}

uint64_t Ledger::peak(Tier tier, Tag tag) const {
  const std::lock_guard lock(mutex_);
  return by_tag_[index_of(tier)][index_of(tag)].peak;
}

uint64_t Ledger::available(Tier tier) const {
  const std::lock_guard lock(mutex_);
  const uint64_t used = total_[index_of(tier)].used;
  const uint64_t limit = limit_[index_of(tier)];
  return limit > used ? limit - used : 0;
}

void Ledger::add_reclaimer(Reclaimer* reclaimer) {
  const std::lock_guard lock(mutex_);
  reclaimers_.push_back(reclaimer);
}

void Ledger::remove_reclaimer(Reclaimer* reclaimer) {
  const std::lock_guard reclaiming(reclaiming_);
  const std::lock_guard lock(mutex_);
  std::erase(reclaimers_, reclaimer);
}

int Ledger::add_listener(std::function<void(const BudgetEvent&)> listener) {
  const std::lock_guard lock(mutex_);
  listeners_.emplace_back(next_listener_, std::move(listener));
  return next_listener_++;
}

void Ledger::remove_listener(int handle) {
  const std::lock_guard lock(mutex_);
  std::erase_if(listeners_, [handle](const auto& entry) { return entry.first == handle; });
}

PagePool& Ledger::page_pool() {
  std::call_once(pool_made_, [this] { pool_ = std::make_shared<PagePool>(*this); });
  return *pool_;
}

void Ledger::publish(const BudgetEvent& event) {
  std::vector<std::pair<int, std::function<void(const BudgetEvent&)>>> listeners;
  {
    const std::lock_guard lock(mutex_);
    if (listeners_.empty()) return;
    listeners = listeners_;
  }
  for (const auto& [handle, listener] : listeners) listener(event);
}

}  // namespace mneme
