// Run-time choice of the instruction set: a function marked HIRL_CLONES is compiled for several levels of x86-64, and the
// program's loader takes the best one that the processor has. Programs built for the processor they
// run on (ARCH=native) have nothing to choose; packages built with ARCH=x86-64 keep their speed.
// What is marked gives the same bits at every level: integer loops, and float loops without contraction
// (-ffp-contract=off, see Makefile). validation/data/clones.py holds it to that.
#ifndef HIRL_CLONES_IMPL_H
#define HIRL_CLONES_IMPL_H

// Sanitizers' start-up code and the choosing of functions get in each other's way.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                           \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__AVX512BW__) && \
    !defined(HIRL_NO_CLONES) && defined(__OPTIMIZE__)
#if defined(__AVX2__)
#define HIRL_CLONES __attribute__((target_clones("arch=x86-64-v4", "default")))
#else
#define HIRL_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#else
#define HIRL_CLONES
#endif

#endif
