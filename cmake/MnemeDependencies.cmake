# Libraries from Debian; docs/dependencies.md says what each is for. scripts/setup installs them.
if(CMAKE_CROSSCOMPILING)
  include(MnemeCrossDependencies)
  return()
endif()

find_package(PkgConfig REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)

# Header-only packages without a CMake config of their own.
add_library(mneme_json INTERFACE)   # nlohmann-json
find_path(NLOHMANN_JSON_INCLUDE nlohmann/json.hpp REQUIRED)
target_include_directories(mneme_json SYSTEM INTERFACE ${NLOHMANN_JSON_INCLUDE})

pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)

find_package(dnnl REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(HIREDIS REQUIRED IMPORTED_TARGET hiredis)
pkg_check_modules(URING REQUIRED IMPORTED_TARGET liburing)
find_path(HNSWLIB_INCLUDE hnswlib/hnswlib.h REQUIRED)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)
pkg_check_modules(LBFGS REQUIRED IMPORTED_TARGET liblbfgs)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(PQ REQUIRED IMPORTED_TARGET libpq)
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)
find_path(CLI11_INCLUDE CLI/CLI.hpp REQUIRED)
find_path(HTTPLIB_INCLUDE httplib.h REQUIRED)
find_path(TOMLPLUSPLUS_INCLUDE toml++/toml.h REQUIRED)

# Libraries without a description for pkg-config.
add_library(mneme_stemmer INTERFACE)   # Snowball
find_path(STEMMER_INCLUDE libstemmer.h REQUIRED)
find_library(STEMMER_LIBRARY stemmer REQUIRED)
target_include_directories(mneme_stemmer SYSTEM INTERFACE ${STEMMER_INCLUDE})
target_link_libraries(mneme_stemmer INTERFACE ${STEMMER_LIBRARY})

if(MNEME_TESTS)
  find_package(GTest REQUIRED)
  pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)
endif()
