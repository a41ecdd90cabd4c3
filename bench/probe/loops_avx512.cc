#include "probe/loops-inl.h"
#include "probe/loops.h"

namespace llorch::bench {

int64_t f32_avx512(int64_t rounds) {
  __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1e-3f);
  return run_loop<__m512>(rounds, 2 * 16, [&](__m512& sum) {
    touch(a);
    sum = _mm512_fmadd_ps(a, b, sum);
  });
}

}  // namespace llorch::bench
