// LibTorch's exceptions as ckpt's: short text, no backtrace.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>
#include <utility>

#include "ckpt/error.h"

namespace ckpt::bridge {

/// Runs body(); what LibTorch throws leaves as Error(kInternal) for `path`, with `doing` in front of its first line.
template <class Body>
decltype(auto) wrap_errors(const std::string& path, const char* doing, Body&& body) {
  const auto fail = [&](std::string text) -> Error {
    return Error(ErrorCode::kInternal, path, std::string(doing) + ": " + text.substr(0, text.find('\n')));
  };
  try {
    return std::forward<Body>(body)();
  } catch (const Error&) {
    throw;
  } catch (const c10::Error& error) {
    throw fail(error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw fail(error.what());
  }
}

}  // namespace ckpt::bridge
