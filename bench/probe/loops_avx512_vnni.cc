#include "probe/loops-inl.h"
#include "probe/loops.h"

namespace llorch::bench {

int64_t int8_avx512_vnni(int64_t rounds) {
  __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-2);
  return run_loop<__m512i>(rounds, 2 * 64, [&](__m512i& sum) {
    touch(a);
    sum = _mm512_dpbusd_epi32(sum, a, b);
  });
}

}  // namespace llorch::bench
