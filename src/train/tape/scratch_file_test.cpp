#include "train/tape/scratch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "budget/buffer.h"

namespace mneme::train {
namespace {

std::string folder() {
  return std::filesystem::temp_directory_path().string();
}

/// Reads see what was written before them, whatever the order of waiting; the ledger shows the file.
TEST(ScratchFile, TransfersKeepTheirOrder) {
  Ledger ledger;
  constexpr size_t kBlocks = 16;
  {
    ScratchFile file(ledger, folder(), kBlocks * kTransferAlign, 3);
    EXPECT_EQ(ledger.used(Tier::kDisk, Tag::kActivation), kBlocks * kTransferAlign);
    Buffer memory(ledger, Tag::kScratch, 3 * kTransferAlign, "test");
    std::byte* first = memory.data();
    std::byte* second = first + kTransferAlign;
    std::byte* back = second + kTransferAlign;
    for (size_t i = 0; i < kBlocks; ++i) {
      std::memset(first, static_cast<int>(i), kTransferAlign);
      std::memset(second, static_cast<int>(100 + i), kTransferAlign);
      file.write(first, kTransferAlign, i * kTransferAlign);
      file.write(second, kTransferAlign, i * kTransferAlign);
      file.wait(file.read(back, kTransferAlign, i * kTransferAlign));
      EXPECT_EQ(back[0], std::byte(100 + i));
      EXPECT_EQ(back[kTransferAlign - 1], std::byte(100 + i));
    }
    EXPECT_THROW(file.write(first, 2 * kTransferAlign, (kBlocks - 1) * kTransferAlign), Error);
    EXPECT_THROW(file.read(first, kTransferAlign, SIZE_MAX - 4095), Error);
  }
  EXPECT_EQ(ledger.used(Tier::kDisk), 0u);
}

TEST(ScratchFile, NoRoomIsRefused) {
  Ledger ledger;
  ledger.set_limit(Tier::kDisk, 2 * kTransferAlign);
  EXPECT_THROW(ScratchFile(ledger, folder(), 3 * kTransferAlign, 1), Error);
  EXPECT_THROW(ScratchFile(ledger, "/nowhere/at/all", kTransferAlign, 1), Error);
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{kTransferAlign, old_limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THROW(ScratchFile(ledger, folder(), 2 * kTransferAlign, 1), Error);
  // The first failure is told to whoever waits for it or for anything after it.
  {
    ScratchFile file(ledger, folder(), kTransferAlign, 4);
    Buffer memory(ledger, Tag::kScratch, kTransferAlign, "test");
    const rlimit none{0, old_limit.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
    file.write(memory.data(), kTransferAlign, 0);
    const uint64_t later = file.read(memory.data(), kTransferAlign, 0);
    try {
      file.wait(later);
      ADD_FAILURE() << "the failure was not told";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kIo);
      EXPECT_THAT(e.what(), testing::HasSubstr("the scratch file in"));
    }
    file.drain();
  }
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
}

}  // namespace
}  // namespace mneme::train
