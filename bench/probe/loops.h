// Loops of one instruction set's multiply-adds that touch no memory. Each is compiled with the
// flags of its set; who may call it, features.h says.
#pragma once

#include <cstdint>

namespace llorch::bench {

// Operations that `rounds` of the loop have done.
using Loop = int64_t (*)(int64_t rounds);

int64_t f32_avx2(int64_t rounds);
int64_t int8_avx2(int64_t rounds);
int64_t int8_avx_vnni(int64_t rounds);
int64_t f32_avx512(int64_t rounds);
int64_t int8_avx512_vnni(int64_t rounds);
int64_t bf16_avx512(int64_t rounds);
int64_t int8_amx(int64_t rounds);
int64_t bf16_amx(int64_t rounds);

}  // namespace llorch::bench
