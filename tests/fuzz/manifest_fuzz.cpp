// Any bytes as a manifest, as they are and with a check that fits; what is one must be written as it was read.
#include "ckpt/error.h"
#include "core/base/json.h"
#include "core/run/manifest.h"
#include "core/run/manifest_samples.h"

namespace {

void parse(const std::string& text) {
  if (ckpt::run::to_text(ckpt::run::parse_manifest(text, "fuzz")) != text) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const nlohmann::json whole = ckpt::parse_json(text, "fuzz");
    if (whole.is_object()) parse(ckpt::test::rechecked(whole));
    parse(text);
  } catch (const ckpt::Error& error) {  // the one thing that may be thrown
    if (error.code() != ckpt::ErrorCode::kCorrupt) __builtin_trap();
  }
  return 0;
}
