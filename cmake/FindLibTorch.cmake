# Finds one LibTorch and makes the target ckpt_libtorch from its headers and libraries.
#
# Looked up in this order:
#   1. Torch_DIR (its share/cmake/Torch or lib/cmake/Torch) and the entries of CMAKE_PREFIX_PATH;
#   2. the package `torch` of python3, if it can be imported;
#   3. the system (Debian's libtorch-dev).
#
# LibTorch's own CMake config is not used: Caffe2's stops where the wheel was built with CUDA and no CUDA toolkit is
# installed, and with Debian's libtorch-dev installed, the config of pip's package takes Debian's library. Both end
# well when headers and libraries of the one folder are linked directly. What the config is read for is the ABI.
#
# Result: CKPT_LIBTORCH_ROOT, CKPT_LIBTORCH_VERSION, CKPT_LIBTORCH_LIBRARIES, target ckpt_libtorch.

# ckpt_libtorch_in(FOLDER): sets the result in the caller if FOLDER holds a LibTorch.
function(ckpt_libtorch_in folder)
  foreach(include "${folder}/include")
    if(EXISTS "${include}/torch/csrc/api/include/torch/version.h")
      foreach(lib "${folder}/lib" "${folder}/lib64" "${folder}/lib/${CMAKE_LIBRARY_ARCHITECTURE}")
        if(EXISTS "${lib}/libtorch_cpu${CMAKE_SHARED_LIBRARY_SUFFIX}")
          set(CKPT_LIBTORCH_ROOT "${folder}" PARENT_SCOPE)
          set(CKPT_LIBTORCH_INCLUDE "${include}" PARENT_SCOPE)
          set(CKPT_LIBTORCH_LIB "${lib}" PARENT_SCOPE)
          return()
        endif()
      endforeach()
    endif()
  endforeach()
endfunction()

if(NOT CMAKE_LIBRARY_ARCHITECTURE)
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-multiarch OUTPUT_VARIABLE CMAKE_LIBRARY_ARCHITECTURE
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()

set(CKPT_LIBTORCH_ROOT "")
set(ckpt_candidates "")
if(Torch_DIR)
  # .../share/cmake/Torch, .../lib/cmake/Torch or .../lib/<arch>/cmake/Torch
  foreach(up ../../.. ../../../..)
    get_filename_component(ckpt_up "${Torch_DIR}/${up}" ABSOLUTE)
    list(APPEND ckpt_candidates "${ckpt_up}")
  endforeach()
endif()
set(ckpt_prefixes ${CMAKE_PREFIX_PATH})
if(DEFINED ENV{CMAKE_PREFIX_PATH})
  string(REPLACE ":" ";" ckpt_env_prefixes "$ENV{CMAKE_PREFIX_PATH}")
  list(APPEND ckpt_prefixes ${ckpt_env_prefixes})
endif()
foreach(prefix ${ckpt_prefixes})
  # `torch.utils.cmake_prefix_path` names .../torch/share/cmake.
  string(REGEX REPLACE "/share/cmake/?$" "" prefix "${prefix}")
  list(APPEND ckpt_candidates "${prefix}")
endforeach()
foreach(candidate ${ckpt_candidates})
  if(NOT CKPT_LIBTORCH_ROOT)
    ckpt_libtorch_in("${candidate}")
  endif()
endforeach()
if(Torch_DIR AND NOT CKPT_LIBTORCH_ROOT)
  message(FATAL_ERROR "ckpt: Torch_DIR is ${Torch_DIR}, and no LibTorch is there")
endif()

if(NOT CKPT_LIBTORCH_ROOT)
  find_program(CKPT_PYTHON3 python3)
  if(CKPT_PYTHON3)
    execute_process(COMMAND "${CKPT_PYTHON3}" -c "import os, torch; print(os.path.dirname(torch.__file__))"
                    OUTPUT_VARIABLE ckpt_python_torch RESULT_VARIABLE ckpt_rc OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(ckpt_rc EQUAL 0 AND ckpt_python_torch)
      ckpt_libtorch_in("${ckpt_python_torch}")
    endif()
  endif()
endif()
foreach(system /usr /usr/local /opt/libtorch)
  if(NOT CKPT_LIBTORCH_ROOT)
    ckpt_libtorch_in("${system}")
  endif()
endforeach()
if(NOT CKPT_LIBTORCH_ROOT)
  message(FATAL_ERROR "ckpt: no LibTorch found. Give -DCMAKE_PREFIX_PATH=<its folder>, install the Python package "
                      "torch, or Debian's libtorch-dev (tools/setup.sh does).")
endif()

file(STRINGS "${CKPT_LIBTORCH_INCLUDE}/torch/csrc/api/include/torch/version.h" ckpt_version_lines
     REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH)")
if(NOT ckpt_version_lines)
  file(STRINGS "${CKPT_LIBTORCH_INCLUDE}/torch/headeronly/version.h" ckpt_version_lines
       REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH)")
endif()
set(CKPT_LIBTORCH_VERSION "")
foreach(part MAJOR MINOR PATCH)
  string(REGEX MATCH "TORCH_VERSION_${part} +([0-9]+)" ckpt_match "${ckpt_version_lines}")
  list(APPEND CKPT_LIBTORCH_VERSION "${CMAKE_MATCH_1}")
endforeach()
list(JOIN CKPT_LIBTORCH_VERSION "." CKPT_LIBTORCH_VERSION)
# The release as the package states it, where it does (Debian's 1.13.1 calls itself 1.13.0 throughout).
file(GLOB ckpt_version_files "${CKPT_LIBTORCH_LIB}/cmake/Torch/TorchConfigVersion.cmake"
     "${CKPT_LIBTORCH_ROOT}/share/cmake/Torch/TorchConfigVersion.cmake")
foreach(file ${ckpt_version_files})
  file(STRINGS "${file}" ckpt_line REGEX "set\\(PACKAGE_VERSION ")
  if(ckpt_line MATCHES "\"([0-9]+\\.[0-9]+\\.[0-9]+)")
    set(CKPT_LIBTORCH_VERSION "${CMAKE_MATCH_1}")
  endif()
endforeach()

# Wheels before 2.7 were built with the old ABI of std::string, which cannot be mixed with the system's libraries.
file(GLOB ckpt_config "${CKPT_LIBTORCH_ROOT}/share/cmake/Torch/TorchConfig.cmake")
if(ckpt_config)
  file(STRINGS "${ckpt_config}" ckpt_abi REGEX "_GLIBCXX_USE_CXX11_ABI=0")
  if(ckpt_abi)
    message(FATAL_ERROR "ckpt: LibTorch ${CKPT_LIBTORCH_VERSION} in ${CKPT_LIBTORCH_ROOT} was built with the old "
                        "C++ ABI; take the \"cxx11 ABI\" build or version 2.7 or newer")
  endif()
endif()

set(CKPT_LIBTORCH_LIBRARIES "")
foreach(name torch torch_cpu torch_cuda c10 c10_cuda)
  set(ckpt_file "${CKPT_LIBTORCH_LIB}/lib${name}${CMAKE_SHARED_LIBRARY_SUFFIX}")
  if(EXISTS "${ckpt_file}")
    list(APPEND CKPT_LIBTORCH_LIBRARIES "${ckpt_file}")
  endif()
endforeach()

add_library(ckpt_libtorch INTERFACE IMPORTED GLOBAL)
target_include_directories(ckpt_libtorch SYSTEM INTERFACE
                           "${CKPT_LIBTORCH_INCLUDE}/torch/csrc/api/include" "${CKPT_LIBTORCH_INCLUDE}")
if(EXISTS "${CKPT_LIBTORCH_LIB}/libtorch_cuda${CMAKE_SHARED_LIBRARY_SUFFIX}" AND NOT APPLE)
  # Nothing names a symbol of these, and without them LibTorch has no CUDA.
  target_link_libraries(ckpt_libtorch INTERFACE "-Wl,--push-state,--no-as-needed" ${CKPT_LIBTORCH_LIBRARIES}
                        "-Wl,--pop-state")
else()
  target_link_libraries(ckpt_libtorch INTERFACE ${CKPT_LIBTORCH_LIBRARIES})
endif()
message(STATUS "ckpt: LibTorch ${CKPT_LIBTORCH_VERSION} in ${CKPT_LIBTORCH_ROOT}")
