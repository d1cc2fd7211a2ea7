// A manifest with something of everything, and manifests that were changed by somebody who could compute the check.
#pragma once

#include <limits>

#include "core/base/checksum.h"
#include "core/io/block_writer.h"
#include "core/run/manifest.h"

namespace ckpt::test {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline run::Manifest sample() {
  run::Manifest manifest;
  manifest.save_id = "00112233445566778899aabbccddeeff";
  manifest.sequence = 12;
  manifest.time = 1'785'000'000.25;
  manifest.iteration = 1200;
  manifest.epoch = 3;
  manifest.metrics = {{"accuracy", 0.1}, {"loss \"x\" \\ \n ü 日本", -1e-300},
                      {"", 1.0},         {"nan", kNaN},
                      {"up", kInfinity}, {"down", -kInfinity}};
  manifest.monitor = run::Monitor{"accuracy", Mode::kMax};
  manifest.metadata = {{"note", "it's \"quoted\"\t\x01"}, {"größe", {1, 2.5, nullptr, true, {{"a b", -3}}}}, {"", ""}};
  manifest.files = {{"state.pt", io::kBlockBytes + 1, io::kBlockBytes, {1, UINT64_MAX}},
                    {"empty", 0, io::kBlockBytes, {}}};
  return manifest;
}

/// The text of a changed manifest with a check that fits, so that only the change can be what is refused.
inline std::string rechecked(nlohmann::json whole) {
  whole.erase("check");
  whole["check"] = xxh3_128_hex(as_bytes(whole.dump()));
  return whole.dump(2) + "\n";
}

}  // namespace ckpt::test
