// Which of the probes' instruction sets the processor and the operating system have.
#pragma once

namespace llorch::bench {

struct Features {
  bool avx2 = false, avx_vnni = false, avx512 = false, avx512_vnni = false, avx512_bf16 = false;
  bool amx_int8 = false, amx_bf16 = false;
};

// Asks Linux for the tiles' state, which it gives to a process on demand.
Features find_features();

}  // namespace llorch::bench
