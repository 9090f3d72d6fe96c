# Two packages from one build: a C++ package that find_package(gemma) finds, and, as the component
# `python`, the Python package with the library and the program inside it (scripts/make_wheel.py).

include(CMakePackageConfigHelpers)
set(_config_dir "${CMAKE_INSTALL_LIBDIR}/cmake/gemma")

set_target_properties(gemma PROPERTIES
  SOVERSION ${PROJECT_VERSION_MAJOR}
  INSTALL_RPATH "${LibTorch_LIBRARY_DIR}")
install(TARGETS gemma EXPORT gemma-targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY "${PROJECT_SOURCE_DIR}/gemma" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h" PATTERN pch.h EXCLUDE PATTERN cli EXCLUDE PATTERN server EXCLUDE)
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

if(NOT GEMMA_BUILD_CLI OR NOT GEMMA_BUILD_BINDINGS)
  return()
endif()

# A wheel holds no links: the library has the one name that programs ask for. LibTorch lies beside
# the package in site-packages, wherever that is.
set(_python_part COMPONENT python EXCLUDE_FROM_ALL)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/bindings/gemma_libtorch" DESTINATION . ${_python_part}
        PATTERN __pycache__ EXCLUDE)
install(PROGRAMS $<TARGET_FILE:gemma_python> $<TARGET_SONAME_FILE:gemma>
        DESTINATION gemma_libtorch ${_python_part})
install(PROGRAMS $<TARGET_FILE:gemma_cli> DESTINATION gemma_libtorch/bin ${_python_part})
install(CODE [[
  set(package "${CMAKE_INSTALL_PREFIX}/gemma_libtorch")
  file(GLOB libraries "${package}/*.so*")
  foreach(library ${libraries})
    file(RPATH_SET FILE "${library}" NEW_RPATH "$ORIGIN:$ORIGIN/../torch/lib")
  endforeach()
  file(RPATH_SET FILE "${package}/bin/gemma" NEW_RPATH "$ORIGIN/..:$ORIGIN/../../torch/lib")
]] ${_python_part})
