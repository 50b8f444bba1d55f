# Compiles native/kernels/*.cc into `target` once per SIMD level, with the options of `target` and those of the level.
set(FRESHET_NATIVE ${CMAKE_CURRENT_LIST_DIR})

function(add_simd_kernels target)
    file(GLOB kernels CONFIGURE_DEPENDS ${FRESHET_NATIVE}/kernels/*.cc)
    set(levels Portable)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
        list(APPEND levels Avx2 Avx512)
    endif()
    set(flags_Avx2 -mavx2)
    set(flags_Avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
    foreach(level ${levels})
        add_library(${target}_${level} OBJECT ${kernels})
        target_include_directories(${target}_${level} PRIVATE ${FRESHET_NATIVE})
        target_compile_definitions(${target}_${level} PRIVATE FRESHET_SIMD=${level})
        # Vectors are handed between inlined functions of one file only, so that their calling convention is no matter.
        target_compile_options(${target}_${level} PRIVATE $<TARGET_PROPERTY:${target},COMPILE_OPTIONS> -Wno-psabi
                               ${flags_${level}})
        set_target_properties(${target}_${level} PROPERTIES POSITION_INDEPENDENT_CODE ON)
        target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_${level}>)
    endforeach()
endfunction()
