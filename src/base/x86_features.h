// Which vector and tile instructions an x86 processor has and its operating system keeps the state
// of. Knows no kernel.
#pragma once

namespace llorch {

struct X86Features {
  bool ssse3 = false;  // and sse3
  bool avx2 = false;   // and all that came with it: avx, fma, f16c, bmi, bmi2, lzcnt, aes, pclmul
  bool avx_vnni = false;     // and avx2
  bool avx512 = false;       // f, cd, bw, dq, vl, and avx2
  bool avx512_vnni = false;  // these and avx512
  bool avx512_bf16 = false;
  bool amx_int8 = false;  // these on Linux alone
  bool amx_bf16 = false;
};

// Asks Linux for the tiles' state, which it gives to a process on demand. All false on others.
X86Features x86_features();

}  // namespace llorch
