# Compile options shared by every mneme target, carried by one interface target; nothing is set globally.
add_library(mneme_options INTERFACE)
target_include_directories(mneme_options INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
target_compile_options(mneme_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor)
if(MNEME_WERROR)
  target_compile_options(mneme_options INTERFACE -Werror)
endif()

if(MNEME_SANITIZE)
  target_compile_options(mneme_options INTERFACE -fsanitize=${MNEME_SANITIZE} -fno-omit-frame-pointer
                                                 -fno-sanitize-recover=all)
  target_link_options(mneme_options INTERFACE -fsanitize=${MNEME_SANITIZE})
endif()

# Fuzzers see which branches of the libraries an input takes.
if(MNEME_FUZZ)
  target_compile_options(mneme_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# One thread pool: OpenMP, shared with oneDNN. Under the thread sanitizer parallel loops use std::thread instead, since
# the OpenMP runtimes are not instrumented.
find_package(Threads REQUIRED)
target_link_libraries(mneme_options INTERFACE Threads::Threads)
if(MNEME_SANITIZE MATCHES "thread")
  target_compile_definitions(mneme_options INTERFACE MNEME_STD_THREADS=1)
else()
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  target_link_libraries(mneme_options INTERFACE OpenMP::OpenMP_CXX)
endif()

find_program(MNEME_CCACHE ccache)
if(MNEME_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${MNEME_CCACHE})
endif()
