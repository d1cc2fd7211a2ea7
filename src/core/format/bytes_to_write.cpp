#include "core/format/bytes_to_write.h"

namespace ckpt::format {

void append(io::BlockWriter& writer, const BytesToWrite& data, const ByteSink& seen) {
  if (!writer.append({})) return;
  if (!data.produce) {
    if (seen) seen(data.memory);
    writer.append_stable(data.memory);
    return;
  }
  uint64_t given = 0;
  data.produce([&](ByteView piece) {
    given += piece.size();
    if (given > data.bytes) return;
    if (seen) seen(piece);
    writer.append(piece);
  });
  if (given != data.bytes) {
    throw Error(ErrorCode::kInternal, "",
                "expected " + std::to_string(data.bytes) + " bytes of a tensor, got " + std::to_string(given));
  }
}

}  // namespace ckpt::format
