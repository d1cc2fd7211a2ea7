# cmake --install: headers, libraries, program, man page, and a package that find_package(ckpt) finds.
if(NOT CKPT_BUILD_LIBTORCH)
  return()
endif()
include(CMakePackageConfigHelpers)

# Installed programs and libraries find each other wherever the tree is moved to, and LibTorch where it was built with.
if(APPLE)
  set(ckpt_origin "@loader_path")
else()
  set(ckpt_origin "$ORIGIN")
endif()
file(RELATIVE_PATH ckpt_bin_to_lib "/${CMAKE_INSTALL_BINDIR}" "/${CMAKE_INSTALL_LIBDIR}")
set_target_properties(ckpt_core ckpt PROPERTIES INSTALL_RPATH "${ckpt_origin}" INSTALL_RPATH_USE_LINK_PATH ON)
# Said outright: INSTALL_RPATH_USE_LINK_PATH leaves out what lies under the project, such as a virtual environment in
# its build folder, and then another LibTorch of the system would be taken.
if(NOT CKPT_LIBTORCH_LIB IN_LIST CMAKE_CXX_IMPLICIT_LINK_DIRECTORIES)
  set_property(TARGET ckpt APPEND PROPERTY INSTALL_RPATH "${CKPT_LIBTORCH_LIB}")
endif()

install(TARGETS ckpt_core ckpt EXPORT ckptTargets
        LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
        RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
install(DIRECTORY include/ckpt DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
if(CKPT_BUILD_TOOLS)
  set_target_properties(ckpt_program PROPERTIES INSTALL_RPATH "${ckpt_origin}/${ckpt_bin_to_lib}")
  install(TARGETS ckpt_program RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
  install(FILES tools/ckpt.1 DESTINATION "${CMAKE_INSTALL_MANDIR}/man1")
endif()

set(ckpt_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/ckpt")
install(EXPORT ckptTargets NAMESPACE ckpt:: DESTINATION "${ckpt_package_dir}")
configure_package_config_file(cmake/ckptConfig.cmake.in "${CMAKE_BINARY_DIR}/package/ckptConfig.cmake"
                              INSTALL_DESTINATION "${ckpt_package_dir}")
write_basic_package_version_file("${CMAKE_BINARY_DIR}/package/ckptConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/package/ckptConfig.cmake" "${CMAKE_BINARY_DIR}/package/ckptConfigVersion.cmake"
              cmake/FindLibTorch.cmake DESTINATION "${ckpt_package_dir}")
