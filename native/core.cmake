# The sources of the core, by component, and the compilation of its SIMD kernels. Included by the extension, the tests
# and the fuzzers.
set(SPRINGTIDE_NATIVE ${CMAKE_CURRENT_LIST_DIR})

# SPRINGTIDE_CORE: every source of the core except the kernels.
set(SPRINGTIDE_CORE)
foreach(component runs table table/changes table/cold table/index table/optimizers join keys batch serving quantizer recall
        recall/scan recall/tree wire memory simd)
    file(GLOB sources CONFIGURE_DEPENDS ${SPRINGTIDE_NATIVE}/${component}/*.cc)
    list(APPEND SPRINGTIDE_CORE ${sources})
endforeach()

# Compiles the kernels into `target` once per SIMD level, with the options of `target` and of the level, and those in
# simd/kernels/vnni once.
function(add_simd_kernels target)
    set(levels Portable)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
        list(APPEND levels Avx2 Avx512 Vnni)
    endif()
    set(flags_Avx2 -mavx2)
    set(flags_Avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
    set(flags_Vnni ${flags_Avx512} -mavx512vnni)
    foreach(level ${levels})
        set(patterns kernels/*.cc kernels/quantizer/*.cc kernels/recall/*.cc)
        if(level STREQUAL Vnni)
            set(patterns kernels/vnni/*.cc)
        endif()
        list(TRANSFORM patterns PREPEND ${SPRINGTIDE_NATIVE}/simd/)
        file(GLOB kernels CONFIGURE_DEPENDS ${patterns})
        add_library(${target}_${level} OBJECT ${kernels})
        target_include_directories(${target}_${level} PRIVATE ${SPRINGTIDE_NATIVE})
        target_compile_definitions(${target}_${level} PRIVATE SPRINGTIDE_SIMD=${level})
        # -Wno-psabi: the calling convention of vectors is irrelevant between functions inlined in one file.
        target_compile_options(${target}_${level} PRIVATE $<TARGET_PROPERTY:${target},COMPILE_OPTIONS> -Wno-psabi
                               ${flags_${level}})
        set_target_properties(${target}_${level} PROPERTIES POSITION_INDEPENDENT_CODE ON)
        target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_${level}>)
    endforeach()
endfunction()
