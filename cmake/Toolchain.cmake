# Compiler settings for ckpt's own targets: warnings, sanitizers, ccache.
find_program(CKPT_CCACHE ccache)
if(CKPT_CCACHE AND PROJECT_IS_TOP_LEVEL AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CKPT_CCACHE}")
endif()

# The compiler's own linker: with lld 14 an exception that passes the cold part of a function aborts the program.

if(CKPT_SANITIZE)
  add_compile_options("-fsanitize=${CKPT_SANITIZE}" -fno-omit-frame-pointer)
  add_link_options("-fsanitize=${CKPT_SANITIZE}")
  if(CKPT_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
endif()

# ckpt_target(TARGET): what every target of ours is built with.
function(ckpt_target target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-qual -Wformat=2)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 sees overflows and overlaps in std::string at -O3 that cannot be.
    target_compile_options(${target} PRIVATE -Wno-stringop-overflow -Wno-array-bounds -Wno-restrict)
  endif()
  if(CKPT_WARNINGS_AS_ERRORS)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()

# ckpt_torch_target(TARGET): a target whose sources include LibTorch's headers. Those of several files share one
# precompiled torch/torch.h; for a single file (SINGLE_FILE) it would cost more than it saves.
function(ckpt_torch_target target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "SINGLE_FILE" "" "")
  ckpt_target(${target})
  target_link_libraries(${target} PRIVATE ckpt_libtorch)
  if(CKPT_PRECOMPILED_HEADER AND NOT arg_SINGLE_FILE)
    if(NOT TARGET ckpt_torch_header)
      file(WRITE "${CMAKE_BINARY_DIR}/torch_header.cpp" "")
      add_library(ckpt_torch_header OBJECT "${CMAKE_BINARY_DIR}/torch_header.cpp")
      ckpt_target(ckpt_torch_header)
      target_link_libraries(ckpt_torch_header PRIVATE ckpt_libtorch)
      target_precompile_headers(ckpt_torch_header PRIVATE <torch/torch.h>)
    endif()
    target_precompile_headers(${target} REUSE_FROM ckpt_torch_header)
    set_target_properties(${target} PROPERTIES DEFINE_SYMBOL "")
    get_target_property(type ${target} TYPE)
    if(type STREQUAL "EXECUTABLE")  # -fPIE would not fit the header's -fPIC
      set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
      target_compile_options(${target} PRIVATE -fPIC)
    endif()
  endif()
endfunction()
