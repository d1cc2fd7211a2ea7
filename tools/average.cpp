// ckpt average IN... -o OUT: the exact mean of files, checkpoints and chosen checkpoints of runs.
#include "core/average/average.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <memory>
#include <utility>

#include "args.h"
#include "command.h"
#include "core/average/soup.h"
#include "core/base/json.h"
#include "core/base/quote.h"
#include "core/io/block_writer.h"
#include "evaluator.h"
#include "text.h"
#include "weights_output.h"

namespace ckpt::tool {
namespace {

struct Flags {
  std::vector<std::string> in;
  std::string out;
  std::optional<std::string> weights, ema, best, monitor, mode, last, iterations, part, key, keys, ints, dtype, to,
      threads, greedy, report;
  bool allow_nonfinite = false, dry_run = false, force = false;
};

template <class T, size_t N>
T one_of(std::string_view flag, const std::string& text, const std::array<std::pair<std::string_view, T>, N>& choices) {
  std::string expected;
  for (const auto& [name, value] : choices) {
    if (name == text) return value;
    expected += (expected.empty() ? "" : ", ") + std::string(name);
  }
  throw Error(ErrorCode::kUsage, "", std::string(flag) + ": expected one of " + expected + ", found " + quote(text));
}

constexpr std::array<std::pair<std::string_view, AverageKeys>, 3> kKeys{
    {{"strict", AverageKeys::kStrict}, {"intersect", AverageKeys::kIntersect}, {"union", AverageKeys::kUnion}}};
constexpr std::array<std::pair<std::string_view, AverageIntegers>, 5> kIntegers{{{"newest", AverageIntegers::kNewest},
                                                                                 {"max", AverageIntegers::kMax},
                                                                                 {"sum", AverageIntegers::kSum},
                                                                                 {"mean", AverageIntegers::kMean},
                                                                                 {"error", AverageIntegers::kError}}};
constexpr std::array<std::pair<std::string_view, bool>, 2> kParts{{{"model", false}, {"ema", true}}};
constexpr std::array<std::pair<std::string_view, Mode>, 2> kModes{{{"max", Mode::kMax}, {"min", Mode::kMin}}};

/// The parts between commas; an empty one is a part, too.
std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == ',') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::vector<double> parse_weights(const std::string& text) {
  std::vector<double> weights;
  for (const std::string& part : split_at_commas(text)) {
    const std::optional<double> weight = number_in(part);
    if (!weight || !std::isfinite(*weight)) {
      throw Error(ErrorCode::kUsage, "", "--weights: expected numbers with commas between, found " + quote(text));
    }
    weights.push_back(*weight);
  }
  double sum = 0;
  for (const double weight : weights) sum += weight;
  if (!(sum > 0)) throw Error(ErrorCode::kUsage, "", "--weights: expected a sum above 0, found " + human_number(sum));
  return weights;
}

double parse_decay(const std::string& text) {
  const double decay = parse_number("--ema", text, 0);
  if (decay >= 1) throw Error(ErrorCode::kUsage, "", "--ema: expected a decay below 1, found " + quote(text));
  return decay;
}

/// A-B or A,B,C.
void parse_iterations(const std::string& text, AverageSelection& select) {
  if (const size_t middle = text.find('-'); middle != std::string::npos) {
    const uint64_t first = parse_count("--iterations", text.substr(0, middle), 0);
    const uint64_t second = parse_count("--iterations", text.substr(middle + 1), 0);
    if (second < first) {
      throw Error(ErrorCode::kUsage, "", "--iterations: expected A-B with A up to B, found " + quote(text));
    }
    select.range = {first, second};
    return;
  }
  for (const std::string& part : split_at_commas(text)) {
    select.iterations.push_back(parse_count("--iterations", part, 0));
  }
}

void refuse_together(std::initializer_list<std::pair<const char*, bool>> flags) {
  const char* first = nullptr;
  for (const auto& [name, given] : flags) {
    if (!given) continue;
    if (first) throw Error(ErrorCode::kUsage, "", std::string(first) + " and " + name + " exclude each other");
    first = name;
  }
}

AverageSelection selection_of(const Flags& flags) {
  refuse_together({{"--best", flags.best.has_value()},
                   {"--last", flags.last.has_value()},
                   {"--iterations", flags.iterations.has_value()}});
  AverageSelection select;
  if (flags.best) select.best = parse_count("--best", *flags.best, 1);
  if (flags.last) select.last = parse_count("--last", *flags.last, 1);
  if (flags.iterations) parse_iterations(*flags.iterations, select);
  if (flags.monitor) {
    if (!flags.best || !flags.mode) {
      throw Error(ErrorCode::kUsage, "", "--monitor goes with --best and --mode");
    }
    select.metric = *flags.monitor;
    select.mode = one_of("--mode", *flags.mode, kModes);
  } else if (flags.mode && !flags.greedy) {
    throw Error(ErrorCode::kUsage, "", "--mode goes with --monitor or --greedy");
  }
  return select;
}

AverageOptions options_of(const Flags& flags, const OutputFormat& target) {
  refuse_together({{"--greedy", flags.greedy.has_value()},
                   {"--weights", flags.weights.has_value()},
                   {"--ema", flags.ema.has_value()}});
  AverageOptions options;
  options.select = selection_of(flags);
  if (flags.weights) options.weights = parse_weights(*flags.weights);
  if (flags.ema) options.ema_decay = parse_decay(*flags.ema);
  if (flags.part) options.ema = one_of("--part", *flags.part, kParts);
  options.key = flags.key.value_or("");
  if (flags.keys) options.keys = one_of("--keys", *flags.keys, kKeys);
  if (flags.ints) options.integers = one_of("--ints", *flags.ints, kIntegers);
  if (flags.dtype) options.dtype = name(parse_floating(*flags.dtype));
  options.format = target.format;
  options.allow_nonfinite = flags.allow_nonfinite;
  options.dry_run = flags.dry_run;
  if (flags.threads) {
    options.threads = static_cast<unsigned>(std::min<uint64_t>(parse_count("--threads", *flags.threads, 1), 1024));
  }
  return options;
}

nlohmann::json to_json(const AverageReport& report) {
  nlohmann::json inputs = nlohmann::json::array(), decisions = nlohmann::json::array();
  for (const AverageInput& input : report.inputs) {
    inputs.push_back({{"path", input.path},
                      {"iteration", input.iteration ? nlohmann::json(*input.iteration) : nlohmann::json()},
                      {"weight", json_number(input.weight)},
                      {"hash", input.hash.empty() ? nlohmann::json() : nlohmann::json(input.hash)}});
  }
  for (const AverageDecision& decision : report.decisions) {
    decisions.push_back({{"name", decision.name}, {"what", decision.what}});
  }
  return {{"output", report.output},
          {"inputs", inputs},
          {"method", report.method},
          {"tensors", report.tensors},
          {"decisions", decisions}};
}

nlohmann::json to_json(const SoupReport& soup) {
  nlohmann::json trials = nlohmann::json::array();
  for (const SoupTrial& trial : soup.trials) {
    trials.push_back({{"inputs", trial.inputs}, {"metric", json_number(trial.metric)}, {"kept", trial.kept}});
  }
  nlohmann::json json = to_json(soup.average);
  json["method"] = "greedy";
  json["metric"] = json_number(soup.metric);
  json["trials"] = trials;
  return json;
}

void print_plan(const AverageReport& report, Output& output) {
  Table inputs;
  inputs.add_column("weight", Table::Align::kRight);
  inputs.add_column("iteration", Table::Align::kRight);
  inputs.add_column("input", Table::Align::kLeft);
  for (const AverageInput& input : report.inputs) {
    inputs.add_row(
        {human_number(input.weight), input.iteration ? std::to_string(*input.iteration) : "-", printable(input.path)});
  }
  for (const std::string& line : inputs.lines()) output.line(line);
  if (report.decisions.empty()) return;
  output.line("");
  Table decisions;
  decisions.add_column("tensor", Table::Align::kLeft);
  decisions.add_column("what becomes of it", Table::Align::kLeft);
  for (const AverageDecision& decision : report.decisions) {
    decisions.add_row({printable(decision.name), printable(decision.what)});
  }
  for (const std::string& line : decisions.lines()) output.line(line);
}

SoupReport cook(const Flags& flags, const AverageOptions& options, Output& output) {
  const Evaluator evaluate(*flags.greedy);
  SoupOptions soup{.average = options, .mode = Mode::kMax};
  if (flags.mode) soup.mode = one_of("--mode", *flags.mode, kModes);
  return average::soup(flags.in, flags.out, soup, [&](const std::string& path) {
    const double metric = evaluate(path);
    output.progress("measured " + human_number(metric));
    return metric;
  });
}

void print_trials(const SoupReport& soup, Output& output) {
  for (const SoupTrial& trial : soup.trials) {
    std::string names;
    for (const std::string& input : trial.inputs) {
      names += (names.empty() ? "" : " + ") + printable(io::file_name(input));
    }
    output.note((trial.kept ? "kept      " : "left out  ") + human_number(trial.metric) + "  " + names);
  }
}

/// Each input stays open: as many files as the system lets a process have.
void allow_many_files() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);  // where that is refused it stays as it was
}

int run_average(const Flags& given, Output& output) {
  using std::chrono::steady_clock;
  const steady_clock::time_point begin = steady_clock::now();
  allow_many_files();
  Flags flags = given;
  for (std::string& in : flags.in) in = without_trailing_slash(in);
  flags.out = without_trailing_slash(flags.out);
  const OutputFormat& target = output_format(flags.to, flags.out);
  const AverageOptions options = options_of(flags, target);
  check_output(flags.out, target, flags.force);

  output.progress("averaging");
  SoupReport soup;
  if (flags.greedy) {
    soup = cook(flags, options, output);
  } else {
    soup.average = average::average(flags.in, flags.out, options);
  }
  output.progress("");
  const AverageReport& report = soup.average;
  for (const std::string& warning : report.warnings) output.warn(warning);
  nlohmann::json json = flags.greedy ? to_json(soup) : to_json(report);
  if (flags.report) {
    nlohmann::json file = json;
    file["schema"] = 1;
    const std::string text = file.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    io::replace_file(*flags.report, [&](io::BlockWriter& writer) { writer.append(as_bytes(text)); });
  }
  output.object(std::move(json));
  if (flags.dry_run) {
    print_plan(report, output);
    return 0;
  }
  output.line(report.output);
  print_trials(soup, output);
  const double seconds = std::chrono::duration<double>(steady_clock::now() - begin).count();
  output.note("averaged " + counted(report.inputs.size(), "input") + ", " + counted(report.tensors, "tensor") + ", " +
              human_bytes(report.bytes) + " in " + human_number(std::max(0.01, std::round(seconds * 100) / 100)) +
              " s");
  return 0;
}

void declare_flags(CLI::App& app, Flags& flags) {
  app.add_option("IN", flags.in, "files of weights, checkpoints, runs")->required();
  app.add_option("-o,--output", flags.out, "file, or with --to checkpoint a run")->required()->type_name("OUT");
  app.add_option("--weights", flags.weights, "one number for each input; divided by their sum")->type_name("W1,W2,...");
  app.add_option("--ema", flags.ema, "exponential moving average over the inputs in their order")->type_name("DECAY");
  app.add_option("--best", flags.best, "of a run: the K best by its metric")->type_name("K");
  app.add_option("--monitor", flags.monitor, "with --best: this metric instead of the run's; needs --mode")
      ->type_name("NAME");
  app.add_option("--mode", flags.mode, "which is better, for --monitor and --greedy (there: max)")
      ->type_name("max|min");
  app.add_option("--last", flags.last, "of a run: the N newest")->type_name("N");
  app.add_option("--iterations", flags.iterations, "of a run: from A to B, or those listed")->type_name("A-B|A,B,C");
  app.add_option("--part", flags.part, "which weights of each input")->type_name("model|ema");
  app.add_option("--key", flags.key, "dotted path to the weights in each input")->type_name("K");
  app.add_option("--keys", flags.keys, "whose names the result has; strict: all must have the same")
      ->type_name("strict|intersect|union");
  app.add_option("--ints", flags.ints, "what becomes of integers")->type_name("newest|max|sum|mean|error");
  app.add_option("--dtype", flags.dtype, "of all floating tensors in OUT")->type_name("f16|bf16|f32|f64");
  app.add_option("--to", flags.to, "format; without it told from OUT (.safetensors; .pt .pth .bin: torch)")
      ->type_name("safetensors|torch|archive|checkpoint");
  app.add_flag("--allow-nonfinite", flags.allow_nonfinite, "average NaN and infinities, too");
  app.add_option("--threads", flags.threads, "at most; the result is the same for any number")->type_name("N");
  app.add_flag("--dry-run", flags.dry_run, "say what would be averaged and how, and write nothing");
  app.add_option("--greedy", flags.greedy, "keep what makes the last line of COMMAND's output better; {} is the file")
      ->type_name("'COMMAND {}'");
  app.add_option("--report", flags.report, "write what --json prints to this file, too")->type_name("FILE");
  app.add_flag("--force", flags.force, "replace an OUT of another kind");
}

}  // namespace

Action declare_average(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.description(
      "Averages weights: files of any format, checkpoints, and the chosen checkpoints of runs (without --best, --last\n"
      "or --iterations all of a run). Each element is the exact mean, rounded once; memory does not grow with the\n"
      "weights. The result says in its metadata what it was made of.");
  declare_flags(app, *flags);
  app.footer(
      "Integers (num_batches_tracked) are those of the newest input unless --ints says otherwise. BatchNorm's running\n"
      "statistics are averaged like the rest: re-estimate them by a pass over data (ckpt/averager.h: update_bn).\n"
      "--greedy: each input is measured alone; beginning with the best, each is kept where the mean is not the worse\n"
      "for it. COMMAND is run by sh.\n"
      "\n"
      "Examples:\n"
      "  ckpt average a.pth b.pth c.pth -o mean.safetensors\n"
      "  ckpt average runs/digits --best 3 --part ema -o best3.safetensors\n"
      "  ckpt average runs/digits --iterations 1000-5000 --ema 0.9 -o smooth.pt\n"
      "  ckpt average a.safetensors b.safetensors --weights 0.7,0.3 --dtype bf16 -o soup.safetensors --dry-run\n"
      "  ckpt average runs/*/latest --greedy './evaluate --weights {}' --report soup.json -o soup.safetensors\n"
      "\n"
      "Exit codes:\n"
      "  0  written\n"
      "  1  NaN or infinity in an input (--allow-nonfinite); OUT is of another kind (--force); COMMAND failed\n"
      "  2  usage\n"
      "  3  an input does not exist or changed meanwhile, or something cannot be read or written\n"
      "  4  an input is damaged\n"
      "  5  names, shapes, dtypes or counts do not fit (all are listed)\n"
      "  6  no such run, checkpoint, iteration or part, or no tensors\n"
      "  7  sparse or quantized tensors, or what the format cannot hold");
  return [flags](Output& output) { return run_average(*flags, output); };
}

}  // namespace ckpt::tool
