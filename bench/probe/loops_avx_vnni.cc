#include "probe/loops-inl.h"
#include "probe/loops.h"

namespace llorch::bench {

int64_t int8_avx_vnni(int64_t rounds) {
  __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-2);
  return run_loop<__m256i>(rounds, 2 * 32, [&](__m256i& sum) {
    touch(a);
    sum = _mm256_dpbusd_avx_epi32(sum, a, b);
  });
}

}  // namespace llorch::bench
