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
