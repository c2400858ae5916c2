#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/coded_matrix.h"
#include "tensor/dtype.h"

namespace mneme {

/// How keys and values are kept, as independent choices that the user joins with '+': "think:0.5+kivi:4".
///
///   f16 | bf16 | f32                     plain (default f16)
///   kivi:B[,group=32,residual=64,keys=channel,values=token]    B bits, groups per channel (keys) and per token (values)
///   token:B[,group,residual]             B bits per token, the uniform baseline
///   bfp:B[,block=32,sort=on,residual]    block floating point with B-bit mantissas, channels sorted by size
///   think:F                              a fraction F of the key channels is dropped
///   mikv[:keep=0.2,hi=16,lo=2,balance=on,residual]    a fraction of the tokens in hi bits, the others in lo
///   h2o[:keep=0.2,residual]              the same with the others dropped: the baseline
///   minicache[:start=0.5,t=0.6,gamma=0.05]    layers from `start` of the depth on share directions in pairs
///   window[:sink=8,recent=2048]          only the first `sink` and the last `recent` tokens
///   shadowkv[:rank=160,budget=1.5%,values=ram|disk,outliers=24,fit=1024,residual]
///       keys of rank `rank`, values in a slower tier, generated tokens see `budget` tokens that are chosen for each
///   cskv[:r=0.25,keys=,values=,ranks=equal|measured,residual]
///       r features a channel of keys and values, in bases fitted to the model; as many in every layer, or the same bytes
///       shared out by what each layer's keys and values were measured to need
///   instinfer[:disk|HOST:PORT|/SOCKET,at=,density=1/8,channels=8|16|32,residual]
///       keys and values in a file, here or where a worker runs, and attention beside it over a share of the tokens
struct KvChoices {
  /// Codec of sealed blocks of keys or values.
  struct Codec {
    bool coded = false;               ///< False: f16.
    kernels::CodedFormat format;
    bool operator==(const Codec&) const = default;
  };
  struct Window {
    uint32_t sink = 8, recent = 2048;
    bool operator==(const Window&) const = default;
  };

  struct Importance {
    float keep = 0.2f;
    uint8_t high_bits = 16, low_bits = 2;   ///< 16: f16; low 0: dropped.
    bool balance = true;
    bool operator==(const Importance&) const = default;
  };

  struct Sharing {
    float start = 0.5f;               ///< Depth of the first merged layer, as a fraction of the layers.
    float t = 0.6f, gamma = 0.05f;    ///< Weight of the upper layer; share of the range of angles that keeps both.
    bool operator==(const Sharing&) const = default;
  };

  struct Shadow {
    uint32_t rank = 160;
    float share = 0.015f;             ///< Of the sealed tokens that a generated one sees, but 256 at least; 0: see `tokens`.
    uint32_t tokens = 0;              ///< The same as a number.
    uint32_t outliers = 24;           ///< Chunks a kv head that stay exact, for 1024 tokens of the budget.
    uint32_t fit = 1024;              ///< Tokens that the basis is fitted to.
    bool on_disk = false;             ///< Values in a file.
    bool operator==(const Shadow&) const = default;
  };

  struct Features {
    float keys = 0.25f, values = 0.25f;  ///< Features a channel, of all layers together when ranks are measured.
    bool measured = false;               ///< Each layer has ranks of its own, by the divergence they cause.
    bool operator==(const Features&) const = default;
  };

  struct InStorage {
    float density = 0.125f;             ///< Share of channels and of sealed tokens that a generated token looks at.
    uint32_t channels = 8;              ///< Of a page of the copy by channels.
    std::vector<std::string> workers;   ///< Where they listen, HOST:PORT or a path; none: a file of this process.
    bool operator==(const InStorage&) const = default;
  };

  DType plain = DType::kF16;          ///< Of plain stores, when nothing below is chosen.
  std::optional<Window> window;       ///< Token policy.
  std::optional<Importance> importance;  ///< Token policy.
  std::optional<Sharing> sharing;     ///< Layer sharing.
  std::optional<Features> features;   ///< Channel map: features in bases that were fitted to the model.
  std::optional<Shadow> shadow;       ///< Placement, and a channel map of its own.
  std::optional<InStorage> storage;   ///< Placement, of keys and values and of attention.
  float prune = 0;                    ///< Channel map: fraction of the key channels that are dropped, 0: none.
  bool sort = false;                  ///< Channel map: key channels in order of size.
  Codec keys, values;                 ///< Element codec.
  uint32_t residual = 64;            ///< The newest tokens that stay in full precision at least.

  /// True when blocks of codes are sealed, of all channels or some.
  bool seals() const { return keys.coded || values.coded || prune > 0; }

  /// Throws Error(kInvalidArgument) that says what is wrong, with the nearest known name, or why choices do not go together.
  static KvChoices parse(std::string_view text);
};

}  // namespace mneme
