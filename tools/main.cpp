// The program `ckpt`: finds the command, parses its flags, maps errors to exit codes.
#include <algorithm>
#include <csignal>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "command.h"
#include "core/base/quote.h"
#include "text.h"

namespace ckpt::tool {

const std::vector<Command>& commands() {
  static const std::vector<Command> kCommands{
      {"save", "commit files that a trainer wrote as a checkpoint", declare_save},
      {"load", "find the checkpoint to resume from, or take a part out of it", declare_load},
      {"list", "list the checkpoints of a run", declare_list},
      {"verify", "read every byte and name what is damaged", declare_verify},
      {"prune", "delete the checkpoints that no rule keeps", declare_prune},
      {"inspect", "show what is in a run, checkpoint or file of weights", declare_inspect},
      {"diff", "compare the weights of two files of any formats", declare_diff},
      {"convert", "write weights in another format; take over Python's training checkpoints", declare_convert},
      {"average", "average files, checkpoints and the best of a run, exactly", declare_average},
  };
  return kCommands;
}

namespace {

[[noreturn]] void usage(const std::string& message, const std::string& help) {
  throw Error(ErrorCode::kUsage, "", message + " (see " + help + ")");
}

void print_help(Output& output) {
  output.line("Checkpoints for LibTorch training runs, and everybody's weights.\n");
  output.line("Usage: ckpt COMMAND [OPTIONS] ...\n");
  output.line("Commands:");
  for (const Command& command : commands()) {
    output.line("  " + std::string(command.name) + std::string(10 - command.name.size(), ' ') +
                std::string(command.summary));
  }
  output.line(
      "\n"
      "Options of all commands:\n"
      "  --json     print one JSON object on stdout\n"
      "  --quiet    print results, warnings and errors only\n"
      "  --help     flags, examples and exit codes of a command\n"
      "  --version  version, the LibTorch it was built with, formats\n"
      "\n"
      "Examples:\n"
      "  ckpt list runs/digits\n"
      "  ckpt verify runs/digits\n"
      "  DIR=$(ckpt load runs/digits)      # the newest checkpoint that is whole; exit code 6: nothing yet\n"
      "  ckpt prune runs/digits --keep-last 3 --keep-best 3 --monitor accuracy --mode max\n"
      "  ckpt convert resnet50.pth resnet50.safetensors\n"
      "  ckpt average runs/digits --best 3 -o best3.safetensors\n"
      "\n"
      "Exit codes:\n"
      "  0  ok\n"
      "  1  differs or invalid\n"
      "  2  usage\n"
      "  3  I/O; a writer holds the run; an input file does not exist\n"
      "  4  corrupt or unsafe file\n"
      "  5  names, shapes, dtypes or counts do not fit\n"
      "  6  nothing found\n"
      "  7  unsupported");
}

void print_version(Output& output) {
  output.line("ckpt " CKPT_VERSION);
  output.line("LibTorch " CKPT_LIBTORCH_VERSION);
  output.line("formats: checkpoint 1, torch::serialize archive, torch.save, TorchScript, .pt2, safetensors");
  output.object({{"ckpt", CKPT_VERSION},
                 {"libtorch", CKPT_LIBTORCH_VERSION},
                 {"formats", {"checkpoint", "archive", "torch", "torch-legacy", "torchscript", "pt2", "safetensors"}}});
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

const Command& find_command(const std::string& name) {
  const Command* nearest = nullptr;
  size_t distance = 4;  // farther ones are no help
  for (const Command& command : commands()) {
    if (command.name == name) return command;
    const size_t d = name.size() > 20 ? distance : edit_distance(name, command.name);
    if (d < distance) {
      nearest = &command;
      distance = d;
    }
  }
  std::string message = "unknown command " + quote(name);
  if (nearest) message += "; did you mean " + quote(nearest->name) + "?";
  usage(message, "ckpt --help");
}

/// CLI11 puts line breaks and paths of its own into some messages.
std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  const std::string safe = printable(text);
  return safe == text ? text : safe.substr(1, safe.size() - 2);
}

int run_command(const Command& command, std::vector<std::string> arguments, Output& output) {
  const std::string name = "ckpt " + std::string(command.name);
  CLI::App app("", name);
  app.get_formatter()->column_width(34);
  app.set_help_flag("-h,--help", "print this and exit");
  app.add_flag("--json", output.json, "print one JSON object on stdout");
  app.add_flag("--quiet", output.quiet, "print results, warnings and errors only");
  const Action action = command.declare(app);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    output.json = false;
    output.line(app.help());
    return 0;
  } catch (const CLI::ParseError& error) {
    usage(one_line(error.what()), name + " --help");
  }
  return action(output);
}

int run(const std::vector<std::string>& arguments, Output& output) {
  std::vector<std::string> rest;
  size_t i = 0;
  for (; i < arguments.size() && arguments[i].starts_with('-'); ++i) {
    const std::string& flag = arguments[i];
    if (flag == "--help" || flag == "-h") {
      output.json = false;
      print_help(output);
      return 0;
    }
    if (flag == "--version") {
      print_version(output);
      return 0;
    }
    if (flag != "--json" && flag != "--quiet") usage("unknown option " + quote(flag), "ckpt --help");
    rest.push_back(flag);
  }
  if (i == arguments.size()) {
    if (!rest.empty()) usage("a command is missing", "ckpt --help");
    print_help(output);
    return 0;
  }
  const Command& command = find_command(arguments[i]);
  rest.insert(rest.end(), arguments.begin() + static_cast<std::ptrdiff_t>(i) + 1, arguments.end());
  return run_command(command, std::move(rest), output);
}

}  // namespace
}  // namespace ckpt::tool

int main(int argc, char** argv) {
  using ckpt::Error;
  using ckpt::ErrorCode;
  std::signal(SIGPIPE, SIG_IGN);  // a reader that has seen enough is no failure: write() says EPIPE
  std::signal(SIGXFSZ, SIG_IGN);  // a file at the limit is an error of write(), too
  ckpt::tool::Output output;
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  // Wherever a mistake in the flags stops the parser, the error must come as it was asked for.
  for (const std::string& argument : arguments) {
    if (argument == "--") break;
    if (argument == "--json") output.json = true;
  }
  int code = 0;
  try {
    code = ckpt::tool::run(arguments, output);
  } catch (const Error& error) {
    code = output.fail(error);
  } catch (const std::bad_alloc&) {
    code = output.fail(Error(ErrorCode::kInternal, "", "out of memory"));
  } catch (const std::exception& error) {
    code = output.fail(Error(ErrorCode::kInternal, "", error.what()));
  }
  return output.finish(code);
}
