# Everything the project builds on: Debian's packages, LibTorch of .venv, SentencePiece and
# xgrammar of .deps; scripts/bootstrap.sh brings all of them. Packages elsewhere are found by CMAKE_PREFIX_PATH.

list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")
set(GEMMA_DEPS_DIR "${PROJECT_SOURCE_DIR}/.deps" CACHE PATH "Where scripts/bootstrap.sh puts sources")

if(NOT Python_EXECUTABLE AND EXISTS "${PROJECT_SOURCE_DIR}/.venv/bin/python")
  set(Python_EXECUTABLE "${PROJECT_SOURCE_DIR}/.venv/bin/python" CACHE FILEPATH "Python with torch")
endif()

# 2.11: the first release whose headers and pybind11 v3 this code was built with.
find_package(LibTorch 2.11 REQUIRED)
message(STATUS "LibTorch ${LibTorch_VERSION}: ${LibTorch_ROOT}")

# LibTorch's include folder holds the headers of fmt 12.
add_library(gemma_fmt STATIC "${CMAKE_CURRENT_LIST_DIR}/fmt.cc")
set_target_properties(gemma_fmt PROPERTIES
  POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)
target_link_libraries(gemma_fmt PUBLIC LibTorch::LibTorch)

# One header-only library: `name` becomes an INTERFACE target if `header` is found.
function(gemma_find_headers name header package)
  find_path(${name}_INCLUDE_DIR "${header}")
  if(NOT ${name}_INCLUDE_DIR)
    message(FATAL_ERROR "${header} not found: run scripts/bootstrap.sh, or apt-get install ${package}")
  endif()
  add_library(${name} INTERFACE)
  target_include_directories(${name} SYSTEM INTERFACE "${${name}_INCLUDE_DIR}")
endfunction()
gemma_find_headers(gemma_json nlohmann/json.hpp nlohmann-json3-dev)
if(GEMMA_BUILD_CLI OR GEMMA_BUILD_TESTS OR GEMMA_BUILD_FUZZERS)
  # A header that Boost has since 1.81, the first release with what the server needs.
  gemma_find_headers(gemma_boost boost/asio/as_tuple.hpp libboost1.81-dev)
endif()
if(GEMMA_BUILD_CLI)
  gemma_find_headers(gemma_cli11 CLI/CLI.hpp libcli11-dev)
endif()

# As above, with the shared library of that name: Debian's static ones cannot go into another.
function(gemma_find_library name header library package)
  gemma_find_headers(${name} "${header}" ${package})
  find_library(${name}_LIBRARY ${library})
  if(NOT ${name}_LIBRARY)
    message(FATAL_ERROR "lib${library} not found: run scripts/bootstrap.sh, or apt-get install ${package}")
  endif()
  target_link_libraries(${name} INTERFACE "${${name}_LIBRARY}")
endfunction()
gemma_find_library(gemma_jpeg jpeglib.h jpeg libjpeg62-turbo-dev)
gemma_find_library(gemma_png png.h png16 libpng-dev)
if(GEMMA_BUILD_CLI)
  gemma_find_library(gemma_edit histedit.h edit libedit-dev)
endif()

# Static and hidden: Debian's shared libsentencepiece exports an absl FLAGS_minloglevel that
# overlays, with another size, the variable of that name in libc10.so.
if(NOT EXISTS "${GEMMA_DEPS_DIR}/sentencepiece/CMakeLists.txt")
  message(FATAL_ERROR "SentencePiece's sources are not in ${GEMMA_DEPS_DIR}: run scripts/bootstrap.sh")
endif()
function(gemma_add_sentencepiece)
  set(SPM_ENABLE_SHARED OFF CACHE BOOL "" FORCE)
  set(SPM_ENABLE_TCMALLOC OFF CACHE BOOL "" FORCE)
  set(CMAKE_POSITION_INDEPENDENT_CODE ON)
  set(CMAKE_CXX_VISIBILITY_PRESET hidden)
  set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
  set(CMAKE_CXX_STANDARD 17)
  set(CMAKE_POLICY_VERSION_MINIMUM 3.10)
  set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)
  set(CMAKE_MESSAGE_LOG_LEVEL ERROR)
  add_subdirectory("${GEMMA_DEPS_DIR}/sentencepiece" "${PROJECT_BINARY_DIR}/sentencepiece"
                   EXCLUDE_FROM_ALL)
  target_compile_options(sentencepiece-static PRIVATE -w)
  add_library(gemma_sentencepiece INTERFACE)
  target_include_directories(gemma_sentencepiece SYSTEM INTERFACE
    "${GEMMA_DEPS_DIR}/sentencepiece/src")
  target_link_libraries(gemma_sentencepiece INTERFACE sentencepiece-static)
endfunction()
gemma_add_sentencepiece()

# Static and hidden, like SentencePiece. Its own CMakeLists.txt forces -Werror and -flto, and builds
# TVM-FFI, which is for Python. Without it the library says so where a grammar is asked for.
set(GEMMA_WITH_XGRAMMAR OFF)
if(EXISTS "${GEMMA_DEPS_DIR}/xgrammar/include/xgrammar/xgrammar.h")
  set(GEMMA_WITH_XGRAMMAR ON)
endif()
function(gemma_add_xgrammar)
  set(root "${GEMMA_DEPS_DIR}/xgrammar")
  file(GLOB_RECURSE sources "${root}/cpp/*.cc")
  list(FILTER sources EXCLUDE REGEX "/cpp/tvm_ffi/.*[.]cc$")
  add_library(gemma_xgrammar STATIC EXCLUDE_FROM_ALL ${sources})
  target_include_directories(gemma_xgrammar SYSTEM PUBLIC
    "${root}/include" "${root}/3rdparty/dlpack/include" PRIVATE "${root}/3rdparty/picojson")
  # What it would print comes to gemma/text/grammar.cc.
  target_compile_definitions(gemma_xgrammar PRIVATE
    XGRAMMAR_LOG_CUSTOMIZE=1 XGRAMMAR_ENABLE_CPPTRACE=0 XGRAMMAR_ENABLE_INTERNAL_CHECK=0)
  target_compile_options(gemma_xgrammar PRIVATE -w -O2 -g0)
  set_target_properties(gemma_xgrammar PROPERTIES
    CXX_STANDARD 17 POSITION_INDEPENDENT_CODE ON
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
endfunction()
if(GEMMA_WITH_XGRAMMAR)
  gemma_add_xgrammar()
else()
  message(STATUS "xgrammar's sources are not in ${GEMMA_DEPS_DIR}: no structured output")
endif()

if(GEMMA_BUILD_TESTS)
  find_package(GTest QUIET)
  if(NOT GTest_FOUND)
    if(NOT EXISTS /usr/src/googletest/CMakeLists.txt)
      message(FATAL_ERROR "GoogleTest not found: run scripts/bootstrap.sh --tests")
    endif()
    add_subdirectory(/usr/src/googletest "${PROJECT_BINARY_DIR}/googletest" EXCLUDE_FROM_ALL)
    if(NOT TARGET GTest::gtest_main)
      add_library(GTest::gtest ALIAS gtest)
      add_library(GTest::gtest_main ALIAS gtest_main)
    endif()
  endif()
endif()

if(GEMMA_BUILD_BENCHMARKS)
  find_package(benchmark QUIET)
  if(NOT benchmark_FOUND)
    message(FATAL_ERROR "Google Benchmark not found: apt-get install libbenchmark-dev")
  endif()
endif()

if(GEMMA_BUILD_BINDINGS)
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
  if(NOT TARGET LibTorch::Python)
    message(FATAL_ERROR "${LibTorch_ROOT} has no libtorch_python: bindings need Python's torch")
  endif()
endif()
