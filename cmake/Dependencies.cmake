# Everything comes from the system; nothing is downloaded while configuring.
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)           # crc32_combine
find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)

# Libraries whose Debian packages bring no CMake files.
function(ckpt_find_library name header library)
  find_path(CKPT_${name}_INCLUDE_DIR ${header})
  find_library(CKPT_${name}_LIBRARY ${library})
  if(NOT CKPT_${name}_INCLUDE_DIR OR NOT CKPT_${name}_LIBRARY)
    message(FATAL_ERROR "ckpt: ${header} or lib${library} not found (Debian: lib${library}-dev)")
  endif()
  add_library(ckpt_${name} INTERFACE IMPORTED GLOBAL)
  target_include_directories(ckpt_${name} INTERFACE "${CKPT_${name}_INCLUDE_DIR}")
  target_link_libraries(ckpt_${name} INTERFACE "${CKPT_${name}_LIBRARY}")
endfunction()
ckpt_find_library(libdeflate libdeflate.h deflate)
ckpt_find_library(xxhash xxhash.h xxhash)
ckpt_find_library(re2 re2/re2.h re2)

if(CKPT_BUILD_TOOLS)
  find_package(CLI11 REQUIRED)
endif()
if(CKPT_BUILD_TESTS)
  find_package(GTest REQUIRED)
  ckpt_find_library(gmp gmpxx.h gmp)  # exact means to compare with; only what is in the headers of gmpxx
endif()
if(CKPT_BUILD_BENCH)
  find_package(benchmark REQUIRED)
endif()
if(CKPT_BUILD_LIBTORCH)
  include(FindLibTorch)
endif()
