# The headers that most files include, read once. For builds by clang that are there to be run: the ordinary one is to
# see it when a file forgets an include, and g++ 12 gains nothing, and warns of headers that it no longer knows for the
# system's.
option(LLORCH_PRECOMPILED "Precompile the headers that most files include (clang)" OFF)
if(LLORCH_PRECOMPILED)
  file(WRITE ${CMAKE_BINARY_DIR}/precompiled.cc "")
  add_library(llorch_precompiled OBJECT ${CMAKE_BINARY_DIR}/precompiled.cc)
  target_precompile_headers(llorch_precompiled PRIVATE
    <algorithm> <atomic> <chrono> <cmath> <cstdint> <cstring> <functional> <memory> <mutex> <optional> <span>
    <string> <string_view> <thread> <unordered_map> <utility> <variant> <vector>
    <fmt/format.h> <nlohmann/json.hpp>)
  if(LLORCH_TESTS)
    target_link_libraries(llorch_precompiled PRIVATE GTest::gtest)
    target_precompile_headers(llorch_precompiled PRIVATE <gtest/gtest.h>)
  endif()
endif()

function(llorch_precompiled target)
  if(LLORCH_PRECOMPILED)
    target_precompile_headers(${target} REUSE_FROM llorch_precompiled)
  endif()
endfunction()
