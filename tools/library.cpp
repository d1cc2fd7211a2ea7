#include "library.h"

#include <dlfcn.h>

#include <string>
#include <vector>

#include "ckpt/error.h"
#include "core/io/file.h"
#include "text.h"

namespace ckpt::tool {
namespace {

/// The folder of the file that holds the code or data at `address`; empty where unknown.
std::string folder_of(const void* address) {
  Dl_info info{};
  if (!dladdr(address, &info) || !info.dli_fname) return "";
  const std::string path = info.dli_fname;
  return path.find('/') == std::string::npos ? "" : io::parent_path(path);
}

const program::Library& open_library() {
  const std::string name = CKPT_LIBRARY_NAME;
  // Beside the library of the core (build and installed tree), and where the system looks.
  std::vector<std::string> places;
  const std::string core = folder_of(reinterpret_cast<const void*>(&to_string));
  if (!core.empty()) places.push_back(core + "/" + name);
  places.push_back(name);

  std::string reason;
  for (const std::string& place : places) {
    if (place.find('/') != std::string::npos && !io::stat(place)) continue;
    void* handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      reason = dlerror();
      continue;
    }
    using Find = const program::Library* (*)(const char*);
    const auto find = reinterpret_cast<Find>(dlsym(handle, "ckpt_program_library"));
    const program::Library* library = find ? find(CKPT_VERSION) : nullptr;
    if (library) return *library;
    reason = printable(place) + " is not of version " CKPT_VERSION;
  }
  throw Error(ErrorCode::kUnsupported, name,
              "this needs LibTorch, and the library that brings it cannot be opened: " + reason);
}

}  // namespace

const program::Library& torch_library() {
  static const program::Library& library = open_library();
  return library;
}

}  // namespace ckpt::tool
