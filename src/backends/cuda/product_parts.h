// What product() and Products (products.h) are made of.
#pragma once

#include "backends/cuda/kernels.h"

namespace llorch::cuda {

// product() with f32 weights, less the softcap.
void float_product(const Gpu& gpu, const ProductArgs& args);

// What is left to do of args.out, sums so far: the bias, if `bias`, and the softcap.
void finish_product(const Gpu& gpu, const ProductArgs& args, bool bias);

// Made-up x.rounded for m rows, the same each time: about normal, with some values far out.
void fill_noise(const Gpu& gpu, const Activations& x, int32_t m);

// Adds to *different, on the device, how many of `count` floats have not the same bits.
void count_differences(const Gpu& gpu, const float* a, const float* b, int64_t count,
                       uint32_t* different);

}  // namespace llorch::cuda
