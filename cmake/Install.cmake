# Two packages from one tree: under pip (SKBUILD) the Python package with the library and the
# program inside it; otherwise a C++ package that find_package(gemma) finds.

# Where libgemma finds what the loader does not know of: LibTorch, and what came out of .deps.
set(_library_dirs "${LibTorch_LIBRARY_DIR}")
cmake_path(IS_PREFIX GEMMA_DEPS_DIR "${gemma_jpeg_LIBRARY}" _jpeg_of_deps)
cmake_path(IS_PREFIX GEMMA_DEPS_DIR "${gemma_png_LIBRARY}" _png_of_deps)
if(_jpeg_of_deps OR _png_of_deps)
  list(APPEND _library_dirs "${GEMMA_DEPS_DIR}/lib")
endif()

if(SKBUILD)
  set(_package gemma_libtorch)
  install(TARGETS gemma gemma_python LIBRARY DESTINATION ${_package})
  install(TARGETS gemma_cli RUNTIME DESTINATION ${_package}/bin)
  # LibTorch lies beside the package in site-packages; the absolute folder serves other layouts.
  set_target_properties(gemma gemma_python PROPERTIES
    INSTALL_RPATH "$ORIGIN;$ORIGIN/../torch/lib;${_library_dirs}")
  set_target_properties(gemma_cli PROPERTIES
    INSTALL_RPATH "$ORIGIN/..;$ORIGIN/../../torch/lib;${LibTorch_LIBRARY_DIR}")
  return()
endif()

include(CMakePackageConfigHelpers)
set(_config_dir "${CMAKE_INSTALL_LIBDIR}/cmake/gemma")

# VERSION and SOVERSION make links, which a wheel could not hold.
set_target_properties(gemma PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
  INSTALL_RPATH "${_library_dirs}")
install(TARGETS gemma EXPORT gemma-targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY "${PROJECT_SOURCE_DIR}/gemma" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h" PATTERN pch.h EXCLUDE PATTERN cli EXCLUDE)
if(GEMMA_BUILD_CLI)
  install(TARGETS gemma_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  set_target_properties(gemma_cli PROPERTIES
    INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${LibTorch_LIBRARY_DIR}")
endif()

install(EXPORT gemma-targets NAMESPACE gemma:: DESTINATION "${_config_dir}")
configure_package_config_file(cmake/gemma-config.cmake.in
  "${PROJECT_BINARY_DIR}/gemma-config.cmake" INSTALL_DESTINATION "${_config_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/gemma-config-version.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/gemma-config.cmake"
              "${PROJECT_BINARY_DIR}/gemma-config-version.cmake"
              cmake/FindLibTorch.cmake
        DESTINATION "${_config_dir}")
