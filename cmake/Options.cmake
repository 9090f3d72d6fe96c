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

# Precompiled headers serve builds of many files; a unity build without tests has few.
function(gemma_precompile target)
  if(NOT GEMMA_UNITY_BUILD OR GEMMA_BUILD_TESTS)
    target_precompile_headers(${target} ${ARGN})
  endif()
endfunction()

# In a unity build the files of these folders of the target are compiled as one: LibTorch's headers
# take ten seconds, however much code follows them. What has compile options of its own, such as a
# kernel, stays apart.
function(gemma_unity target)
  set_target_properties(${target} PROPERTIES
    UNITY_BUILD ${GEMMA_UNITY_BUILD} UNITY_BUILD_MODE GROUP)
  string(MAKE_C_IDENTIFIER "of_${ARGN}" group)
  get_target_property(sources ${target} SOURCES)
  foreach(source ${sources})
    cmake_path(GET source PARENT_PATH folder)
    if(folder IN_LIST ARGN)
      set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group})
    endif()
  endforeach()
endfunction()
