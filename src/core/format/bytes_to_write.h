// Bytes that a writer of some format asks for when it comes to them.
#pragma once

#include <functional>

#include "core/base/bytes.h"
#include "core/io/block_writer.h"

namespace ckpt::format {

/// Takes the next piece; the view is valid during the call alone.
using ByteSink = std::function<void(ByteView)>;

/// Either memory that stays unchanged until the writer has finished, or a function that gives the bytes in order.
struct BytesToWrite {
  BytesToWrite() = default;
  BytesToWrite(ByteView memory_) : bytes(memory_.size()), memory(memory_) {}  // NOLINT: a view of bytes is one
  BytesToWrite(uint64_t bytes_, std::function<void(const ByteSink&)> produce_)
      : bytes(bytes_), produce(std::move(produce_)) {}

  uint64_t bytes = 0;
  ByteView memory = {};
  /// Where set: called once, gives exactly `bytes` bytes in pieces of a few MiB at most; what it throws ends the
  /// writing.
  std::function<void(const ByteSink&)> produce = {};
};

/// Appends `data` to `writer` and shows each piece to `seen` first, where that is set. kInternal where `data.produce`
/// gives another count of bytes than it said. Once the writer has failed (its finish() tells why) nothing is asked for.
void append(io::BlockWriter& writer, const BytesToWrite& data, const ByteSink& seen = {});

}  // namespace ckpt::format
