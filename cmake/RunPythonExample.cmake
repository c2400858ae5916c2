# Runs the first Python example of a page of the documentation, in a folder of its own, with $MNEME_C naming the library.
file(READ ${PAGE} page)
string(REGEX MATCH "```python\n([^`]*)```" found "${page}")
if(NOT found)
  message(FATAL_ERROR "${PAGE}: expected an example in Python, found none")
endif()
file(REMOVE_RECURSE ${FOLDER})
file(WRITE ${FOLDER}/example.py "${CMAKE_MATCH_1}")
execute_process(COMMAND ${CMAKE_COMMAND} -E env MNEME_C=${LIBRARY} ${PYTHON} example.py WORKING_DIRECTORY ${FOLDER}
                RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "the example in ${PAGE} failed: ${status}")
endif()
