# A layer is a folder of qkv/. Each becomes an object library (its sources compiled once) and a small static library
# `qkv_<layer>` that knows what it links; the installed `libqkv` is all object libraries together.
# Depending only on lower layers keeps builds short (a test of `text` compiles no kernel) and makes an include that
# climbs upward fail at link time as well as in tests/layering.

set(QKV_LAYERS "" CACHE INTERNAL "")

# qkv_layer(<name> DEPENDS <lower layers> LINK <libraries>)
function(qkv_layer name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  if(name STREQUAL "kernels")
    list(FILTER sources EXCLUDE REGEX "/kernels/isa/|/kernels/cuda/")
    list(APPEND sources ${QKV_ISA_SOURCES})
  endif()
  if(NOT sources)
    add_library(qkv_${name} INTERFACE)
    return()
  endif()
  add_library(qkv_${name}_objects OBJECT ${sources})
  target_include_directories(qkv_${name}_objects PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
  target_link_libraries(qkv_${name}_objects PRIVATE qkv_flags PUBLIC ${ARG_LINK} OpenMP::OpenMP_CXX)
  add_library(qkv_${name} STATIC $<TARGET_OBJECTS:qkv_${name}_objects>)
  target_include_directories(qkv_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
  target_link_libraries(qkv_${name} PUBLIC ${ARG_LINK} OpenMP::OpenMP_CXX)
  foreach(dep ${ARG_DEPENDS})
    target_link_libraries(qkv_${name} PUBLIC qkv_${dep})
  endforeach()
  set(QKV_LAYERS ${QKV_LAYERS} ${name} CACHE INTERNAL "")
endfunction()
