# Libraries of a cross build, which covers the layers up to kernels. Debian has no libraries of the target on this machine,
# but what those layers use is header-only, and Debian's cross compilers search /usr/include themselves.
add_library(fmt::fmt INTERFACE IMPORTED)
target_compile_definitions(fmt::fmt INTERFACE FMT_HEADER_ONLY=1)

add_library(spdlog::spdlog INTERFACE IMPORTED)
target_compile_definitions(spdlog::spdlog INTERFACE SPDLOG_FMT_EXTERNAL)
target_link_libraries(spdlog::spdlog INTERFACE fmt::fmt)

add_library(mneme_json INTERFACE)

# Highway's library holds only its own dispatch, which mneme replaces with active_target().
add_library(PkgConfig::HWY INTERFACE IMPORTED)

if(MNEME_TESTS)
  set(INSTALL_GTEST OFF)
  add_subdirectory(/usr/src/googletest ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
endif()
