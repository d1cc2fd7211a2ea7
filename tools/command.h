// What main.cpp knows of a command: it declares its flags, and later runs with what they were set to.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string_view>
#include <vector>

#include "output.h"

namespace ckpt::tool {

/// Runs the command; returns the exit code, or throws Error.
using Action = std::function<int(Output&)>;

struct Command {
  std::string_view name;
  std::string_view summary;
  /// Declares flags, description and footer (examples, exit codes) on `app`; the action keeps what they are set to.
  Action (*declare)(CLI::App& app);
};

/// One for each file of that name.
Action declare_save(CLI::App& app);
Action declare_load(CLI::App& app);
Action declare_list(CLI::App& app);
Action declare_verify(CLI::App& app);
Action declare_prune(CLI::App& app);
Action declare_inspect(CLI::App& app);
Action declare_diff(CLI::App& app);
Action declare_convert(CLI::App& app);
Action declare_average(CLI::App& app);

const std::vector<Command>& commands();

}  // namespace ckpt::tool
