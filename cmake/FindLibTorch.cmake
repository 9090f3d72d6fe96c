# LibTorch of a Python environment's `torch` package, or of an unpacked LibTorch archive.
#
#   LibTorch_ROOT      the folder that holds include/ and lib/ (default: asked from Python)
#   Python_EXECUTABLE  whose torch to take when LibTorch_ROOT is not given
#
# Targets: LibTorch::LibTorch, and LibTorch::Python where libtorch_python is present.
#
# Why not the package's own TorchConfig.cmake: the one of a CUDA wheel stops with an error on a
# machine without a CUDA toolkit, although nothing here compiles CUDA code.

if(NOT LibTorch_ROOT)
  if(NOT Python_EXECUTABLE)
    find_program(Python_EXECUTABLE NAMES python3 python)
  endif()
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c
            "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE _libtorch_root
    OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET)
  set(LibTorch_ROOT "${_libtorch_root}" CACHE PATH "Folder with LibTorch's include/ and lib/" FORCE)
endif()

find_path(LibTorch_INCLUDE_DIR torch/csrc/api/include/torch/nn.h
          PATHS "${LibTorch_ROOT}/include" NO_DEFAULT_PATH)
foreach(_lib torch torch_cpu c10)
  find_library(LibTorch_${_lib}_LIBRARY ${_lib} PATHS "${LibTorch_ROOT}/lib" NO_DEFAULT_PATH)
endforeach()
# The OpenMP runtime whose threads LibTorch uses: wheels bring it along, some under a name with a hash;
# other builds use the system's. A second one would have threads of its own.
file(GLOB _gomp "${LibTorch_ROOT}/lib/libgomp*.so*")
if(_gomp)
  list(GET _gomp 0 _gomp)
  set(LibTorch_gomp_LIBRARY "${_gomp}" CACHE FILEPATH "LibTorch's OpenMP runtime")
else()
  find_library(LibTorch_gomp_LIBRARY NAMES gomp omp)
endif()
# Absent from a CPU build.
foreach(_lib torch_cuda c10_cuda torch_python)
  find_library(LibTorch_${_lib}_LIBRARY ${_lib} PATHS "${LibTorch_ROOT}/lib" NO_DEFAULT_PATH)
endforeach()

if(LibTorch_INCLUDE_DIR)
  set(_version_header "${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h")
  if(EXISTS "${_version_header}")
    file(STRINGS "${_version_header}" _lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
    string(REGEX REPLACE "[^0-9;]" "" _numbers "${_lines}")
    list(JOIN _numbers "." LibTorch_VERSION)
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  LibTorch
  REQUIRED_VARS LibTorch_INCLUDE_DIR LibTorch_torch_LIBRARY LibTorch_torch_cpu_LIBRARY
                LibTorch_c10_LIBRARY LibTorch_gomp_LIBRARY
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE
    "set LibTorch_ROOT, or Python_EXECUTABLE to a Python that can import torch")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_compile_features(LibTorch::LibTorch INTERFACE cxx_std_20)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
    "${LibTorch_INCLUDE_DIR}" "${LibTorch_INCLUDE_DIR}/torch/csrc/api/include")
  set(_libraries "${LibTorch_torch_LIBRARY}" "${LibTorch_torch_cpu_LIBRARY}"
                 "${LibTorch_c10_LIBRARY}" "${LibTorch_gomp_LIBRARY}")
  if(LibTorch_torch_cuda_LIBRARY)
    list(APPEND _libraries "${LibTorch_torch_cuda_LIBRARY}" "${LibTorch_c10_cuda_LIBRARY}")
    # A wheel's CUDA libraries lie in other packages; its own run path finds them.
    target_link_options(LibTorch::LibTorch INTERFACE "LINKER:--allow-shlib-undefined")
  endif()
  # Nothing refers to libtorch.so or libtorch_cuda.so by a symbol, but loading them registers the
  # devices.
  target_link_libraries(LibTorch::LibTorch INTERFACE
    "-Wl,--push-state,--no-as-needed" ${_libraries} "-Wl,--pop-state")
  get_filename_component(LibTorch_LIBRARY_DIR "${LibTorch_torch_LIBRARY}" DIRECTORY)

  if(LibTorch_torch_python_LIBRARY)
    add_library(LibTorch::Python INTERFACE IMPORTED)
    target_link_libraries(LibTorch::Python INTERFACE
      LibTorch::LibTorch "${LibTorch_torch_python_LIBRARY}")
  endif()
endif()
