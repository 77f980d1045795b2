/* What this machine can run, and what this library was made of. */

#define EXPORTED __attribute__((visibility("default")))

EXPORTED const char winnow_fingerprint[] = FINGERPRINT;

/* The widest instruction set that both machine and library have. */
EXPORTED const char *winnow_widest(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
        return "avx512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
#endif
    return "portable";
}
