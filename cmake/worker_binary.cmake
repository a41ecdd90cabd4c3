# worker_binary(<backend> <folder>): the worker that links exactly this backend's objects, stripped.
function(worker_binary backend folder)
  set(name llorch-${backend}-candled)
  set(sources exits.cc load_tokenizer.cc stall_guard.cc worker_main.cc)
  list(TRANSFORM sources PREPEND ${CMAKE_SOURCE_DIR}/bin/)
  add_executable(${name} ${sources})
  llorch_precompiled(${name})
  target_link_libraries(${name} PRIVATE llorch_backends_${backend} llorch_server llorch_engine
                        llorch_model llorch_tokenizer llorch_formats llorch_pool llorch_base
                        Threads::Threads)
  target_compile_definitions(${name} PRIVATE LLORCH_VERSION="${PROJECT_VERSION}")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${folder})
  # A worker that opens a GPU's libraries at run time needs the dynamic loader.
  if(LLORCH_STATIC AND NOT backend STREQUAL cuda)
    target_link_options(${name} PRIVATE -static)
  endif()
  if(NOT LLORCH_SANITIZE)
    target_link_options(${name} PRIVATE -s)
  endif()
endfunction()
