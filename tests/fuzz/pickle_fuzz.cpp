// Any bytes as a pickle: parsed, then every value that can be reached is looked at.
#include <unordered_set>
#include <vector>

#include "core/format/pickle.h"

namespace {

using ckpt::format::Pickle;
using ckpt::format::PickleKind;
using ckpt::format::PickleNode;

void walk(const Pickle& pickle) {
  std::unordered_set<PickleNode> seen;
  std::vector<PickleNode> left = {pickle.root()};
  size_t bytes = 0;
  while (!left.empty()) {
    const PickleNode node = left.back();
    left.pop_back();
    if (node == ckpt::format::kNoNode || !seen.insert(node).second) continue;
    switch (pickle.kind(node)) {
      case PickleKind::kNone:
      case PickleKind::kBool:
      case PickleKind::kInt:
      case PickleKind::kFloat:
        break;
      case PickleKind::kText:
      case PickleKind::kBytes:
      case PickleKind::kBigInt:
        bytes += pickle.text(node).size();
        break;
      case PickleKind::kGlobal:
        bytes += pickle.module(node).size() + pickle.text(node).size();
        break;
      case PickleKind::kObject: {
        const auto& object = pickle.object(node);
        left.insert(left.end(),
                    {object.callable, object.arguments, object.keywords, object.state, object.list, object.dict});
        break;
      }
      default:
        for (PickleNode item : pickle.items(node)) left.push_back(item);
    }
  }
  if (bytes == SIZE_MAX) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    walk(Pickle::parse({bytes.begin(), bytes.end()}, "fuzz", 0, 64 << 20));
  } catch (const ckpt::Error&) {  // the one thing that may be thrown
  }
  return 0;
}
