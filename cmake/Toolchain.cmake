# Compiler settings for ckpt's own targets: warnings, sanitizers, ccache, the faster linker.
find_program(CKPT_CCACHE ccache)
if(CKPT_CCACHE AND PROJECT_IS_TOP_LEVEL AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CKPT_CCACHE}")
endif()

find_program(CKPT_LLD ld.lld)
if(CKPT_LLD AND PROJECT_IS_TOP_LEVEL AND NOT APPLE)
  add_link_options(-fuse-ld=lld)
endif()

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

# ckpt_torch_target(TARGET): a target whose sources include LibTorch's headers.
function(ckpt_torch_target target)
  ckpt_target(${target})
  target_link_libraries(${target} PRIVATE ckpt_libtorch)
  if(CKPT_PRECOMPILED_HEADER)
    target_precompile_headers(${target} PRIVATE <torch/torch.h>)
  endif()
endfunction()
