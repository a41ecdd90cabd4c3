#include "probe/loops-inl.h"
#include "probe/loops.h"

namespace llorch::bench {

int64_t f32_avx2(int64_t rounds) {
  __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1e-3f);
  return run_loop<__m256>(rounds, 2 * 8, [&](__m256& sum) {
    touch(a);
    sum = _mm256_fmadd_ps(a, b, sum);
  });
}

int64_t int8_avx2(int64_t rounds) {
  __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-2), ones = _mm256_set1_epi16(1);
  return run_loop<__m256i>(rounds, 2 * 32, [&](__m256i& sum) {
    touch(a);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
  });
}

}  // namespace llorch::bench
