#include "train/tape/storage_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/checked_math.h"
#include "base/philox.h"

namespace mneme::train {
namespace {

struct Placed {
  size_t offset, bytes;
};

bool alive_together(const StorageRequest& a, const StorageRequest& b) { return a.begin <= b.end && b.begin <= a.end; }

enum class Fit : uint8_t { kSmallestGap, kLowest };

/// A gap between `neighbours` (sorted by offset) that holds `bytes`: the smallest or the lowest one; the first free offset
/// above them when there is none.
size_t find_place(const std::vector<Placed>& neighbours, size_t bytes, Fit fit) {
  size_t free_from = 0, best = 0, best_gap = SIZE_MAX;
  for (const Placed& neighbour : neighbours) {
    if (neighbour.offset >= free_from + bytes && neighbour.offset - free_from < best_gap) {
      best_gap = neighbour.offset - free_from;
      best = free_from;
      if (fit == Fit::kLowest) break;
    }
    free_from = std::max(free_from, neighbour.offset + neighbour.bytes);
  }
  return best_gap == SIZE_MAX ? free_from : best;
}

using Order = std::vector<uint32_t>;

/// Places requests one by one in `order`; returns the peak, or SIZE_MAX as soon as it passes `give_up`.
size_t place_in_order(const std::vector<StorageRequest>& requests, const Order& order, Fit fit, size_t give_up,
                      std::vector<size_t>& offsets) {
  size_t peak = 0;
  std::vector<uint32_t> done;
  std::vector<Placed> neighbours;
  for (const uint32_t index : order) {
    neighbours.clear();
    for (const uint32_t other : done) {
      if (alive_together(requests[index], requests[other])) neighbours.push_back({offsets[other], requests[other].bytes});
    }
    std::sort(neighbours.begin(), neighbours.end(), [](const Placed& a, const Placed& b) { return a.offset < b.offset; });
    offsets[index] = find_place(neighbours, requests[index].bytes, fit);
    peak = std::max(peak, offsets[index] + requests[index].bytes);
    if (peak > give_up) return SIZE_MAX;
    done.push_back(index);
  }
  return peak;
}

/// How much a request is worth placing now, from its life in steps and its bytes.
using Worth = double (*)(double life, double bytes);

/// The order in which a skyline is filled (best fit of Sekiyama et al., arXiv 1804.10001): time is divided into
/// stretches of equal height; on the lowest stretch, the first among equals, goes the request of most worth whose life
/// lies inside it; where none does, the stretch is raised to its lower neighbour. O(n (n + steps)).
Order skyline_order(const std::vector<StorageRequest>& requests, Worth worth) {
  uint32_t n_steps = 0;
  for (const auto& request : requests) n_steps = std::max(n_steps, request.end + 1);
  std::vector<size_t> height(n_steps, 0);
  Order order, left(requests.size());
  std::iota(left.begin(), left.end(), 0);
  while (!left.empty()) {
    const auto lowest = std::min_element(height.begin(), height.end());
    const size_t base = *lowest;
    const auto begin = static_cast<uint32_t>(lowest - height.begin());
    uint32_t end = begin;
    while (end < n_steps && height[end] == base) ++end;
    auto best = left.end();
    double most = -1;
    for (auto it = left.begin(); it != left.end(); ++it) {
      const StorageRequest& request = requests[*it];
      if (request.begin < begin || request.end >= end) continue;
      const double value = worth(request.end - request.begin + 1, static_cast<double>(request.bytes));
      if (value > most) {
        most = value;
        best = it;
      }
    }
    if (best != left.end()) {
      const StorageRequest& request = requests[*best];
      std::fill(height.begin() + request.begin, height.begin() + request.end + 1, base + request.bytes);
      order.push_back(*best);
      left.erase(best);
      continue;
    }
    const size_t before = begin > 0 ? height[begin - 1] : SIZE_MAX, after = end < n_steps ? height[end] : SIZE_MAX;
    std::fill(height.begin() + begin, height.begin() + end, std::min(before, after));
  }
  return order;
}

/// The orders by falling size, area and life, by start, and of four skylines.
std::vector<Order> starting_orders(const std::vector<StorageRequest>& requests) {
  const auto life = [&](uint32_t i) { return uint64_t{requests[i].end} - requests[i].begin + 1; };
  const auto area = [&](uint32_t i) { return static_cast<double>(requests[i].bytes) * static_cast<double>(life(i)); };
  Order by_start(requests.size());
  std::iota(by_start.begin(), by_start.end(), 0);
  std::stable_sort(by_start.begin(), by_start.end(),
                   [&](uint32_t a, uint32_t b) { return requests[a].begin < requests[b].begin; });
  std::vector<Order> orders(4, by_start);
  std::stable_sort(orders[0].begin(), orders[0].end(),
                   [&](uint32_t a, uint32_t b) { return requests[a].bytes > requests[b].bytes; });
  std::stable_sort(orders[1].begin(), orders[1].end(), [&](uint32_t a, uint32_t b) { return area(a) > area(b); });
  std::stable_sort(orders[2].begin(), orders[2].end(), [&](uint32_t a, uint32_t b) { return life(a) > life(b); });
  const Worth worths[] = {[](double steps, double bytes) { return steps * bytes; },
                          [](double steps, double) { return steps; },
                          [](double steps, double bytes) { return steps * std::sqrt(bytes); },
                          [](double steps, double bytes) { return std::sqrt(steps) * bytes; }};
  for (const Worth worth : worths) orders.push_back(skyline_order(requests, worth));
  return orders;
}

size_t most_alive(const std::vector<StorageRequest>& requests) {
  std::vector<std::pair<uint32_t, int64_t>> changes;
  for (const auto& request : requests) {
    changes.emplace_back(request.begin, static_cast<int64_t>(request.bytes));
    changes.emplace_back(request.end + 1, -static_cast<int64_t>(request.bytes));
  }
  std::sort(changes.begin(), changes.end());
  int64_t alive = 0, most = 0;
  for (const auto& change : changes) {
    alive += change.second;
    most = std::max(most, alive);
  }
  return static_cast<size_t>(most);
}

}  // namespace

StoragePlan plan_storage(const std::vector<StorageRequest>& given, size_t search_moves, size_t alignment) {
  std::vector<StorageRequest> requests = given;
  for (auto& request : requests) request.bytes = round_up(request.bytes, alignment);

  StoragePlan plan;
  plan.lower_bound = most_alive(requests);
  plan.peak = SIZE_MAX;
  std::vector<size_t> offsets(requests.size());
  Order best_order;
  Fit best_fit = Fit::kSmallestGap;
  const auto attempt = [&](const Order& order, Fit fit) {
    const size_t peak = place_in_order(requests, order, fit, plan.peak, offsets);
    if (peak > plan.peak || peak == SIZE_MAX) return false;
    plan.peak = peak;
    plan.offsets = offsets;
    best_fit = fit;
    return true;
  };
  for (const Order& order : starting_orders(requests)) {
    for (const Fit fit : {Fit::kSmallestGap, Fit::kLowest}) {
      if (plan.peak > plan.lower_bound && attempt(order, fit)) best_order = order;
    }
  }
  // Move one request to another place in the order; keep the change when the peak is not higher.
  PhiloxStream random(requests.size());
  for (size_t move = 0; move < search_moves && plan.peak > plan.lower_bound; ++move) {
    Order order = best_order;
    const size_t from = random.next_below(order.size()), to = random.next_below(order.size());
    const uint32_t index = order[from];
    order.erase(order.begin() + static_cast<std::ptrdiff_t>(from));
    order.insert(order.begin() + static_cast<std::ptrdiff_t>(to), index);
    if (attempt(order, best_fit)) best_order = std::move(order);
  }
  return plan;
}

}  // namespace mneme::train
