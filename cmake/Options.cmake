# How our own targets are compiled: warnings and sanitizers, both private to this project.

function(gemma_compile_options target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow)
  if(GEMMA_WARNINGS_AS_ERRORS)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(GEMMA_SANITIZE)
    target_compile_options(${target} PRIVATE
      -fsanitize=${GEMMA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PRIVATE -fsanitize=${GEMMA_SANITIZE})
  endif()
  # An executable would get -fPIE, and then could not use the library's precompiled header.
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${target} PRIVATE -fPIC)
endfunction()

# Precompiled headers serve builds of many files; the unity build of a release has few.
function(gemma_precompile target)
  if(CMAKE_DISABLE_PRECOMPILE_HEADERS)
    return()
  endif()
  target_precompile_headers(${target} ${ARGN})
endfunction()

# In a unity build (CMAKE_UNITY_BUILD) each of these folders of the target is compiled as one file:
# LibTorch's headers take ten seconds, however much code follows them. Kernels, which have compile
# options of their own, stay apart, and so does all else.
function(gemma_unity_folders target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD_MODE GROUP)
  get_target_property(sources ${target} SOURCES)
  foreach(source ${sources})
    cmake_path(GET source PARENT_PATH folder)
    if(folder IN_LIST ARGN)
      string(MAKE_C_IDENTIFIER "unity_${folder}" group)
      set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group})
    endif()
  endforeach()
endfunction()
