/* What this processor, and the system on it, can run: asked before any other function of any variant.
 *
 * The portable variant answers for all of them. Nothing here may need more than the oldest processor has.
 */
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "export.h"

#if defined(__x86_64__)

#define BIT(n) (1u << (n))

/* Bits of CPUID, by leaf and register; the levels are those of the x86-64 psABI. */
enum {
    V2_1_ECX = BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23), /* SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT */
    V3_1_ECX = BIT(12) | BIT(22) | BIT(27) | BIT(28) | BIT(29),         /* FMA MOVBE OSXSAVE AVX F16C */
    V3_7_EBX = BIT(3) | BIT(5) | BIT(8),                                /* BMI1 AVX2 BMI2 */
    V3_EXTENDED_ECX = BIT(5),                                           /* LZCNT */
    AVX512VNNI_7_ECX = BIT(11),
    AVXVNNI_7_1_EAX = BIT(4),
};
#define V4_7_EBX (BIT(16) | BIT(17) | BIT(28) | BIT(30) | BIT(31)) /* AVX-512 F DQ CD BW VL */

/* Register states that the system saves: SSE and AVX; and the masks and both halves of AVX-512. */
#define SAVES_AVX 0x06u
#define SAVES_AVX512 0xe6u

static int has(uint32_t word, uint32_t bits) { return (word & bits) == bits; }

static uint32_t saved_states(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static int supported(const char *variant) {
    uint32_t a, b, ecx1 = 0, d, ebx7 = 0, ecx7 = 0, eax71 = 0, extended = 0, c;
    if (!__get_cpuid(1, &a, &b, &ecx1, &d)) return 0;
    uint32_t leaves = 0;
    if (__get_cpuid_count(7, 0, &leaves, &ebx7, &ecx7, &d) && leaves >= 1) __get_cpuid_count(7, 1, &eax71, &b, &c, &d);
    __get_cpuid(0x80000001u, &a, &b, &extended, &d);

    int v2 = has(ecx1, V2_1_ECX);
    int v3 = v2 && has(ecx1, V3_1_ECX) && has(ebx7, V3_7_EBX) && has(extended, V3_EXTENDED_ECX) &&
             has(saved_states(), SAVES_AVX);
    if (!strcmp(variant, "portable")) return v2;
    if (!strcmp(variant, "avx2")) return v3;
    if (!strcmp(variant, "avxvnni")) return v3 && has(eax71, AVXVNNI_7_1_EAX);
    if (!strcmp(variant, "avx512vnni"))
        return v3 && has(ebx7, V4_7_EBX) && has(ecx7, AVX512VNNI_7_ECX) && has(saved_states(), SAVES_AVX512);
    return 0;
}

#elif defined(__aarch64__)

static int has_dot_products(void) {
#if defined(__linux__)
    const unsigned long wanted = 1ul << 20 | 1ul << 10 | 1ul << 9; /* ASIMDDP ASIMDHP FPHP */
    return (getauxval(AT_HWCAP) & wanted) == wanted;
#elif defined(__APPLE__)
    int found = 0;
    size_t size = sizeof found;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &found, &size, NULL, 0) == 0 && found;
#else
    return 0;
#endif
}

static int supported(const char *variant) {
    if (!strcmp(variant, "portable")) return 1;
    return !strcmp(variant, "dotprod") && has_dot_products();
}

#else

static int supported(const char *variant) { return !strcmp(variant, "portable"); }

#endif

/* 1 if the variant of that name runs on this processor under this system, 0 if it does not or no variant is named so. */
EXPORT int32_t puna_supported(const char *variant) { return supported(variant); }
