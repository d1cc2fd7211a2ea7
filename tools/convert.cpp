// ckpt convert IN OUT: weights from any format into another, and training checkpoints from Python's into a run and
// back.
#include "core/weights/convert.h"

#include <chrono>
#include <cmath>
#include <memory>

#include "args.h"
#include "command.h"
#include "core/base/quote.h"
#include "core/weights/training_files.h"
#include "text.h"
#include "weights_flags.h"
#include "weights_output.h"

namespace ckpt::tool {
namespace {

struct Flags {
  std::string in, out;
  std::optional<std::string> to, dtype, key, max_shard_size;
  std::vector<std::string> rename, exclude;
  bool ema = false, force = false;

  /// Whether something is asked of the weights alone, so that a training state cannot be taken over as it is.
  bool of_weights() const { return dtype || key || max_shard_size || !rename.empty() || !exclude.empty() || ema; }
};

weights::ConvertOptions options_of(const Flags& flags, const OutputFormat& target) {
  weights::ConvertOptions options;
  options.to = target.format;
  if (flags.dtype) options.dtype = parse_floating(*flags.dtype);
  options.rename = parse_renames(flags.rename);
  options.exclude = flags.exclude;
  if (flags.max_shard_size) {
    if (target.format != Format::kSafetensors) {
      throw Error(ErrorCode::kUsage, "", "--max-shard-size: only safetensors files are sharded");
    }
    options.max_shard_bytes = parse_bytes("--max-shard-size", *flags.max_shard_size);
  }
  return options;
}

weights::Converted run_conversion(const Flags& flags, const OutputFormat& target, Output& output) {
  const std::string in = without_trailing_slash(flags.in), out = without_trailing_slash(flags.out);
  const weights::ConvertOptions options = options_of(flags, target);
  check_output(out, target, flags.force);
  if (!io::stat(in)) throw Error(ErrorCode::kIo, in, "does not exist");
  const auto refuse_weight_flags = [&](const char* what) {
    if (!flags.of_weights()) return;
    throw Error(
        ErrorCode::kUsage, "",
        std::string(what) + " takes a training state as it is, without --dtype, --rename, --exclude, --key or --ema");
  };
  output.progress("converting " + printable(in));
  if (target.format == Format::kCheckpoint) {
    refuse_weight_flags("--to checkpoint");
    return weights::convert_to_run(in, out);
  }
  if (target.format == Format::kTorch && !flags.of_weights() && weights::holds_training_state(in)) {
    return weights::convert_to_python(in, out);
  }
  const weights::Weights weights = open_weights(in, {.key = flags.key.value_or(""), .ema = flags.ema}, output);
  return weights::convert(weights, out, options);
}

int convert(const Flags& flags, Output& output) {
  using std::chrono::steady_clock;
  const steady_clock::time_point begin = steady_clock::now();
  const OutputFormat& target = output_format(flags.to, flags.out);
  const weights::Converted converted = run_conversion(flags, target, output);
  output.progress("");
  for (const std::string& warning : converted.warnings) output.warn(printable(flags.in) + ": " + warning);
  nlohmann::json skipped = nlohmann::json::array();
  for (const auto& [name, reason] : converted.skipped) skipped.push_back({{"name", name}, {"reason", reason}});
  output.object({{"outputs", converted.outputs},
                 {"format", target.name},
                 {"tensors", converted.tensors},
                 {"bytes", converted.bytes},
                 {"skipped", skipped}});
  for (const std::string& path : converted.outputs) output.line(path);
  const double seconds = std::chrono::duration<double>(steady_clock::now() - begin).count();
  output.note("wrote " + counted(converted.tensors, "tensor") + ", " + human_bytes(converted.bytes) + " in " +
              human_number(std::max(0.01, std::round(seconds * 100) / 100)) + " s" +
              (converted.skipped.empty() ? "" : "; left out " + std::to_string(converted.skipped.size())));
  return 0;
}

}  // namespace

Action declare_convert(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.description(
      "Writes the weights in a file, checkpoint or run of any format (torch.save old and new, TorchScript, .pt2,\n"
      "safetensors and its shards, archives of torch::serialize) in another one. No code of the file is ever run.\n"
      "A training checkpoint of Python becomes a checkpoint of a run with --to checkpoint, and the other way with "
      "torch.");
  app.add_option("IN", flags->in, "file, checkpoint or run")->required();
  app.add_option("OUT", flags->out, "file, or with --to checkpoint a run")->required();
  app.add_option("--to", flags->to, "format; without it told from OUT (.safetensors; .pt .pth .bin: torch)")
      ->type_name("safetensors|torch|archive|checkpoint");
  app.add_option("--dtype", flags->dtype, "convert all floating tensors")->type_name("f16|bf16|f32|f64");
  app.add_option("--rename", flags->rename, "every match of RE in a name becomes TO; in order, as often as needed")
      ->type_name("RE=TO")
      ->allow_extra_args(false);
  app.add_option("--exclude", flags->exclude, "leave out the names that RE matches; as often as needed")
      ->type_name("RE")
      ->allow_extra_args(false);
  app.add_option("--key", flags->key, "dotted path to the weights in IN")->type_name("K");
  app.add_flag("--ema", flags->ema, "take the averaged weights of IN");
  app.add_option("--max-shard-size", flags->max_shard_size, "split safetensors into files of at most this size")
      ->type_name("5GB");
  app.add_flag("--force", flags->force, "replace an OUT of another kind");
  app.footer(
      "Regular expressions are RE2, matched anywhere in a name unless anchored; \\1 to \\9 in TO stand for groups.\n"
      "OUT appears whole or not at all. A run becomes a file that Python's trainer resumes from with OUT.pt --to "
      "torch.\n"
      "\n"
      "Examples:\n"
      "  ckpt convert resnet50.pth resnet50.safetensors\n"
      "  ckpt convert train.pt ema.safetensors --ema --dtype f16 --exclude '^head\\.'\n"
      "  ckpt convert llm.bin llm.safetensors --max-shard-size 5GB --rename '^transformer\\.=model.'\n"
      "  ckpt convert python-run.pt runs/digits --to checkpoint\n"
      "  ckpt convert runs/digits resume.pt --to torch\n"
      "\n"
      "Exit codes:\n"
      "  0  written\n"
      "  1  OUT is of another kind (--force), or a pattern is no regular expression\n"
      "  2  usage\n"
      "  3  IN does not exist, or something cannot be read or written\n"
      "  4  IN is damaged\n"
      "  5  two names meet; the optimizer does not fit the model\n"
      "  6  no such key, or no tensors\n"
      "  7  tensors that the format cannot hold (all are named), or a file that cannot be read");
  return [flags](Output& output) { return convert(*flags, output); };
}

}  // namespace ckpt::tool
