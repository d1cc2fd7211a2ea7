// Python's torch as a second reader of what ckpt writes, where CKPT_TEST_PYTHON names an interpreter that has it.
#pragma once

#include <stdio.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ckpt::test {

/// The interpreter, or nullptr: then the test is to be skipped.
inline const char* python() {
  const char* path = std::getenv("CKPT_TEST_PYTHON");
  return path != nullptr && *path != '\0' ? path : nullptr;
}

/// What a command prints; throws where it fails. Arguments without single quotes.
inline std::string output_of(const std::vector<std::string>& arguments) {
  std::string command;
  for (const std::string& argument : arguments) command += "'" + argument + "' ";
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("cannot run " + command);
  std::string output;
  char buffer[65536];
  while (const size_t bytes = ::fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, bytes);
  if (::pclose(pipe) != 0) throw std::runtime_error("failed: " + command);
  return output;
}

/// What tests/data/read_with_torch.py says of each of "load:<path>", "mmap:<path>", "jit:<path>", "safe:<path>": see
/// there. All in one process: to start one takes seconds.
inline std::vector<nlohmann::ordered_json> read_with_torch(const std::vector<std::string>& files) {
  std::vector<std::string> arguments = {python(), std::string(CKPT_TEST_DATA) + "/read_with_torch.py"};
  arguments.insert(arguments.end(), files.begin(), files.end());
  std::istringstream lines(output_of(arguments));
  std::vector<nlohmann::ordered_json> values;
  for (std::string line; std::getline(lines, line);) values.push_back(nlohmann::ordered_json::parse(line));
  if (values.size() != files.size()) throw std::runtime_error("read_with_torch.py said too little");
  return values;
}

}  // namespace ckpt::test
