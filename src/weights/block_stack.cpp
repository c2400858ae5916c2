#include "weights/block_stack.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/log.h"

namespace mneme {

using bitstack::BlockLayout;
using bitstack::BlockList;
using bitstack::PlacedBlock;

/// The file that blocks are read from.
struct BlockStack::File {
  std::string path;
  uint64_t offset;  ///< Of the tensor of all blocks.
  int descriptor = -1;

  File(std::string p, uint64_t first)
      : path(std::move(p)), offset(first), descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor < 0) fail_errno("open", path);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(descriptor); }

  /// False when the file has become shorter.
  bool read(uint64_t place, std::span<std::byte> out) const {
    while (!out.empty()) {
      const ssize_t n = ::pread(descriptor, out.data(), out.size(), static_cast<off_t>(offset + place));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail_errno("read", path);
      if (n == 0) return false;
      out = out.subspan(static_cast<size_t>(n));
      place += static_cast<uint64_t>(n);
    }
    return true;
  }
};

/// The right to change the blocks, if no pass runs and nobody else has it. No lock is held meanwhile, so that the owner
/// may ask the ledger, which may ask this stack in turn.
class BlockStack::Change {
 public:
  explicit Change(BlockStack& stack) : stack_(stack) {
    const std::lock_guard lock(stack.mutex_);
    owned_ = stack.n_passes_ == 0 && !stack.changing_ && stack.ledger_ != nullptr;
    if (owned_) stack.changing_ = true;
  }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;
  ~Change() {
    if (!owned_) return;
    const std::lock_guard lock(stack_.mutex_);
    stack_.changing_ = false;
    stack_.settled_.notify_all();
  }
  explicit operator bool() const { return owned_; }

 private:
  BlockStack& stack_;
  bool owned_;
};

std::unique_ptr<BlockStack> BlockStack::of(const ModelFile& file) {
  std::unique_ptr<BlockStack> stack(new BlockStack());
  stack->blocks_ = bitstack::placed_blocks(file);
  for (const NamedTensor& tensor : file.tensors()) {
    if (tensor.view.dtype != DType::kBitStack) continue;
    BlockList& list = stack->lists_.emplace_back(*tensor.view.blocks);
    list.base = nullptr;
    list.n_blocks = 0;
    stack->names_.push_back(tensor.name);
    stack->n_weights_ += tensor.view.shape.elements();
  }
  if (stack->lists_.empty()) return nullptr;
  for (size_t i = 0; i < stack->blocks_.size(); ++i) {
    if (stack->blocks_[i].id.level == 0) stack->least_ = i + 1;
  }
  if (!stack->blocks_.empty()) {
    const std::byte* const first = file.find(bitstack::kBlocksName)->view.data;
    for (const MappedFile& mapped : file.files()) {
      const std::byte* const begin = mapped.bytes().data();
      if (first < begin || first >= begin + mapped.size()) continue;
      stack->file_ = std::make_unique<File>(mapped.path(), static_cast<uint64_t>(first - begin));
    }
  }
  stack->status_.usable = stack->blocks_.size();
  return stack;
}

BlockStack::~BlockStack() {
  if (ledger_ != nullptr) ledger_->remove_reclaimer(this);
}

uint64_t BlockStack::bytes(size_t n) const {
  if (n == 0) return 0;
  return round_up<uint64_t>(blocks_[n - 1].place + blocks_[n - 1].bytes, GrowingBuffer::kStepBytes);
}

size_t BlockStack::fitting(uint64_t most) const {
  size_t low = 0, high = blocks_.size();  // `low` fits, more than `high` does not
  while (low < high) {
    const size_t middle = (low + high + 1) / 2;
    if (bytes(middle) <= most) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

double BlockStack::bits_per_weight(size_t n) const {
  const uint64_t end = n == 0 ? 0 : blocks_[n - 1].place + blocks_[n - 1].bytes;
  return 8.0 * static_cast<double>(end) / static_cast<double>(std::max<uint64_t>(1, n_weights_));
}

const BlockList* BlockStack::find(std::string_view name) const {
  const auto found = std::find(names_.begin(), names_.end(), name);
  return found == names_.end() ? nullptr : &lists_[static_cast<size_t>(found - names_.begin())];
}

void BlockStack::load(Ledger& ledger, size_t n) {
  memory_ =
      GrowingBuffer(ledger, Tag::kWeights, std::max<uint64_t>(1, bytes(blocks_.size())), "blocks of BitStack matrices");
  for (BlockList& list : lists_) list.base = memory_.data();
  ledger_ = &ledger;
  status_.target = n;
  grow_to(n);
  status_.n_grown = 0;
  ledger.add_reclaimer(this);
}

/// Needs the right to change. Reads blocks up to the n-th, or to a damaged one.
void BlockStack::grow_to(size_t n) {
  const size_t before = status_.loaded;
  n = std::min(n, status_.usable);
  if (n <= before) return;
  memory_.grow_to(bytes(n));
  size_t loaded = before;
  uint64_t read = 0;
  for (; loaded < n; ++loaded) {
    const PlacedBlock& block = blocks_[loaded];
    const std::span<std::byte> to(memory_.data() + block.place, block.bytes);
    if (!file_->read(block.place, to) || bitstack::block_checksum(to) != block.checksum) {
      const std::string what =
          fmt::format("[read weights] block {} of tensor '{}': expected its checksum, found another, in {}",
                      block.id.level, names_[block.id.matrix], file_->path);
      if (loaded < least_) throw Error(ErrorCode::kCorruptData, what);
      log().warn("{}; the model ends at {} of {} blocks", what, loaded, blocks_.size());
      memory_.shrink_to(bytes(loaded));
      break;
    }
    read += block.bytes;
  }
  const std::lock_guard lock(mutex_);
  if (loaded < n) status_.usable = loaded;
  status_.loaded = loaded;
  status_.bytes_read += read;
  ++status_.n_grown;
  count_levels();
}

/// Needs the right to change.
void BlockStack::shrink_to(size_t n) {
  n = std::max(n, least_);
  if (n >= status_.loaded) return;
  {
    const std::lock_guard lock(mutex_);
    status_.loaded = n;
    ++status_.n_shrunk;
    count_levels();
  }
  memory_.shrink_to(bytes(n));
}

void BlockStack::count_levels() {
  for (BlockList& list : lists_) list.n_blocks = 0;
  for (size_t i = 0; i < status_.loaded; ++i) ++lists_[blocks_[i].id.matrix].n_blocks;
}

void BlockStack::set_levels(std::span<const uint32_t> levels) {
  for (size_t m = 0; m < lists_.size(); ++m) {
    lists_[m].n_blocks = std::min(levels[m], static_cast<uint32_t>(lists_[m].offsets.size()));
  }
}

/// Needs the right to change: gives back what the ledger lacks, or goes on to the target if that fits: what is free, or
/// also what others can give back.
void BlockStack::settle(Growth growth) {
  const uint64_t used = ledger_->used(Tier::kRam), limit = ledger_->limit(Tier::kRam);
  const size_t loaded = status_.loaded;
  size_t target = 0;
  {
    const std::lock_guard lock(mutex_);
    target = std::min(status_.target, status_.usable);
  }
  if (used > limit) {
    const uint64_t missing = used - limit, held = bytes(loaded);
    shrink_to(std::min(target, held > missing ? fitting(held - missing) : 0));
  } else if (loaded > target) {
    shrink_to(target);
  } else if (growth != Growth::kNone && loaded < target &&
             (growth == Growth::kReclaiming || limit - used >= bytes(target) - bytes(loaded))) {
    try {
      grow_to(target);
    } catch (const Error& error) {  // somebody else was faster, or the file cannot be read: what is loaded goes on
      memory_.shrink_to(bytes(loaded));
      if (error.code() == ErrorCode::kOutOfBudget) return;
      log().warn("{}", error.what());
      const std::lock_guard lock(mutex_);
      status_.usable = loaded;
    }
  }
}

void BlockStack::set_target(size_t n) {
  {
    const std::lock_guard lock(mutex_);
    status_.target = std::clamp(n, least_, blocks_.size());
  }
  if (const Change change(*this); change) settle(Growth::kReclaiming);
}

void BlockStack::regrow() {
  if (const Change change(*this); change) settle(Growth::kIntoFree);
}

BlockStack::Status BlockStack::status() const {
  const std::lock_guard lock(mutex_);
  Status out = status_;
  out.bytes = bytes(out.loaded);
  return out;
}

BlockStack::Pass::Pass(BlockStack* stack) : stack_(stack) {
  if (stack_ == nullptr) return;
  if (const Change change(*stack_); change) stack_->settle(Growth::kNone);
  std::unique_lock lock(stack_->mutex_);
  stack_->settled_.wait(lock, [&] { return !stack_->changing_; });
  ++stack_->n_passes_;
}

BlockStack::Pass::~Pass() {
  if (stack_ == nullptr) return;
  {
    const std::lock_guard lock(stack_->mutex_);
    --stack_->n_passes_;
  }
  if (const Change change(*stack_); change) stack_->settle(Growth::kNone);
}

uint64_t BlockStack::reclaimable(Tier tier) const {
  if (tier != Tier::kRam) return 0;
  const std::lock_guard lock(mutex_);
  return n_passes_ > 0 || changing_ ? 0 : bytes(status_.loaded) - bytes(std::min(least_, status_.loaded));
}

/// Reading a byte back takes about a nanosecond, but without it every answer is worse: anything that time can bring
/// back goes first.
double BlockStack::cost_per_byte() const {
  return 1e6;
}

uint64_t BlockStack::reclaim(Tier tier, uint64_t missing) {
  const Change change(*this);
  if (tier != Tier::kRam || !change) return 0;
  const uint64_t held = bytes(status_.loaded);
  shrink_to(held > missing ? fitting(held - missing) : 0);
  return held - bytes(status_.loaded);
}

}  // namespace mneme
