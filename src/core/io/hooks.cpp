#include "core/io/hooks.h"

#include "core/io/syscalls.h"

namespace ckpt::io {

const char* to_string(Op op) {
  switch (op) {
    case Op::kCreate:
      return "create";
    case Op::kWrite:
      return "write";
    case Op::kAllocate:
      return "allocate";
    case Op::kTruncate:
      return "truncate";
    case Op::kSync:
      return "sync";
    case Op::kClose:
      return "close";
    case Op::kMkdir:
      return "mkdir";
    case Op::kRename:
      return "rename";
    case Op::kExchange:
      return "exchange";
    case Op::kLink:
      return "link";
    case Op::kUnlink:
      return "unlink";
    case Op::kRmdir:
      return "rmdir";
    case Op::kChmod:
      return "chmod";
    case Op::kOpen:
      return "open";
    case Op::kRead:
      return "read";
    case Op::kStat:
      return "stat";
    case Op::kList:
      return "list";
    case Op::kReadLink:
      return "readlink";
    case Op::kLock:
      return "lock";
    case Op::kStatFs:
      return "statfs";
    case Op::kMap:
      return "map";
  }
  return "call";
}

Hook* set_hook(Hook* hook) { return sys::hook_of_process.exchange(hook, std::memory_order_acq_rel); }

}  // namespace ckpt::io
