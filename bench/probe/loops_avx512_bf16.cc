#include "probe/loops-inl.h"
#include "probe/loops.h"

namespace llorch::bench {

int64_t bf16_avx512(int64_t rounds) {
  __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.25f));
  const __m512bh b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1e-3f), _mm512_set1_ps(1e-4f));
  return run_loop<__m512>(rounds, 2 * 32, [&](__m512& sum) {
    touch(a);
    sum = _mm512_dpbf16_ps(sum, a, b);
  });
}

}  // namespace llorch::bench
