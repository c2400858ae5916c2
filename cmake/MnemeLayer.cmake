# Folders are layers, lowest first. A layer may use layers to its left only; mneme_layer() refuses anything else, and the
# test `layers` (cmake/CheckLayers.cmake) checks the #include lines against the same list.
set(MNEME_LAYERS base budget tensor kernels weights context model engine train recall agents perception eval server cli)

# mneme_layer(NAME SOURCES files... [TESTS files...] [USES layers...] [LIBS targets...] [TEST_LIBS targets...])
#   Defines the library mneme_NAME and, with TESTS, the GoogleTest program NAME_test.
function(mneme_layer name)
  cmake_parse_arguments(arg "" "" "SOURCES;TESTS;USES;LIBS;TEST_LIBS" ${ARGN})
  list(FIND MNEME_LAYERS ${name} own)
  if(own EQUAL -1)
    message(FATAL_ERROR "layer '${name}' is not in MNEME_LAYERS")
  endif()
  set(links mneme_options)
  foreach(lower ${arg_USES})
    list(FIND MNEME_LAYERS ${lower} index)
    if(index EQUAL -1 OR NOT index LESS own)
      message(FATAL_ERROR "layer '${name}' must not use '${lower}': links go downwards only")
    endif()
    list(APPEND links mneme_${lower})
  endforeach()
  add_library(mneme_${name} STATIC ${arg_SOURCES})
  target_link_libraries(mneme_${name} PUBLIC ${links} ${arg_LIBS})
  if(MNEME_TESTS AND arg_TESTS)
    add_executable(${name}_test ${arg_TESTS})
    target_link_libraries(${name}_test PRIVATE mneme_${name} mneme_test_data ${arg_TEST_LIBS} GTest::gtest GTest::gmock GTest::gtest_main)
    # Tests themselves need no speed, and compile in two thirds of the time.
    target_compile_options(${name}_test PRIVATE $<$<CONFIG:Release>:-O1>)
    mneme_discover_tests(${name}_test)
  endif()
endfunction()

# Registers a GoogleTest program with CTest: one CTest entry a suite run, so start-up is paid once.
function(mneme_discover_tests target)
  add_test(NAME ${target} COMMAND ${CMAKE_CROSSCOMPILING_EMULATOR} $<TARGET_FILE:${target}>)
  # Threads that wait must sleep: spinning ones hold the cores that others need when several programs run.
  set_tests_properties(${target} PROPERTIES TIMEOUT 1200 ENVIRONMENT
    "OMP_WAIT_POLICY=PASSIVE;TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/cmake/tsan.supp")
  if(CMAKE_CROSSCOMPILING)
    set_tests_properties(${target} PROPERTIES LABELS ${CMAKE_SYSTEM_PROCESSOR})
  endif()
endfunction()
