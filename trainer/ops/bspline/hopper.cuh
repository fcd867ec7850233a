// What the edge layer's CUDA kernels share: barriers in shared memory, the copy engine, and Hopper's tensor cores.
//
// No torch here: plain CUDA, so that any compiler for it builds the kernels in seconds. Only for sm_90a.

#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

namespace hopper {

constexpr int kGroupThreads = 128;     // a warpgroup, which multiplies together
constexpr int kThreads = 3 * kGroupThreads;  // one warpgroup loads, two compute
constexpr int kRowBytes = 128;         // a swizzled row in shared memory: 64 bfloat16
constexpr int kPanel = 64;             // values of such a row
constexpr int kSwizzleBytes = 1024;    // the swizzle repeats every eight rows

// ---- barriers in shared memory ------------------------------------------------------------------------------------

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void barrier_init(uint64_t* barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count));
}

__device__ __forceinline__ void barrier_expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)), "r"(parity) : "memory");
}

__device__ __forceinline__ void barrier_arrive_at(uint64_t* barrier, uint32_t block) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}\n" ::"r"(shared_address(barrier)), "r"(block) : "memory");
}

__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::: "memory");
}

__device__ __forceinline__ uint32_t block_in_cluster() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// A ring of stages in shared memory: which one is next, and how often the ring went round.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t round = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      ++round;
    }
  }
};

// Ready to be filled and ready to be read; `empty` is arrived at by each computing warpgroup of each block.
template <int kStages, int kCluster>
__device__ __forceinline__ void init_barriers(uint64_t* full, uint64_t* empty) {
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      barrier_init(&full[stage], 1);
      barrier_init(&empty[stage], 2 * kCluster);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_sync();
}

// The swizzle repeats every 1,024 bytes, and stages begin with it.
__device__ __forceinline__ uint8_t* align_stages(uint8_t* raw) {
  return raw + (kSwizzleBytes - shared_address(raw) % kSwizzleBytes) % kSwizzleBytes;
}

// This warpgroup has read the stage: told to every block of the cluster, since each may fill it.
template <int kCluster>
__device__ __forceinline__ void release(uint64_t* empty) {
  const int block = threadIdx.x % kGroupThreads;
  if (block < kCluster) barrier_arrive_at(empty, block);
}

// ---- the copy engine ----------------------------------------------------------------------------------------------

// All into the same place of the blocks of the cluster whose bits are set in `blocks`.
__device__ __forceinline__ void load_2d(void* to, const CUtensorMap* map, uint64_t* barrier, int c0, int c1,
                                        uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(to)),
      "l"(map), "r"(c0), "r"(c1), "r"(shared_address(barrier)), "h"(blocks)
      : "memory");
}

__device__ __forceinline__ void load_3d(void* to, const CUtensorMap* map, uint64_t* barrier, int c0, int c1, int c2,
                                        uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(shared_address(to)),
      "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(shared_address(barrier)), "h"(blocks)
      : "memory");
}

// The second coordinate is 0.
__device__ __forceinline__ void load_5d(void* to, const CUtensorMap* map, uint64_t* barrier, int c0, int c2, int c3,
                                        int c4, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%2, 0, %3, %4, %5}], [%6], %7;" ::"r"(shared_address(to)),
      "l"(map), "r"(c0), "r"(c2), "r"(c3), "r"(c4), "r"(shared_address(barrier)), "h"(blocks)
      : "memory");
}

// ---- tensor cores -------------------------------------------------------------------------------------------------

// Descriptions count places in shared memory by so many bytes: so much further is as much more.
constexpr int kDescribedBytes = 16;

// Rows of 128 bytes, swizzled, along the sum: eight rows are 1,024 bytes, sixteen values further are 32 bytes on.
__device__ __forceinline__ uint64_t describe_along(const void* place) {
  return static_cast<uint64_t>((shared_address(place) & 0x3ffff) >> 4) | static_cast<uint64_t>(1) << 16 |
         static_cast<uint64_t>(kSwizzleBytes >> 4) << 32 | static_cast<uint64_t>(1) << 62;
}

// Rows of 128 bytes, swizzled, across the sum: sixteen rows further are 2,048 bytes on, the next 64 columns
// `panel_bytes`.
__device__ __forceinline__ uint64_t describe_across(const void* place, int panel_bytes) {
  return static_cast<uint64_t>((shared_address(place) & 0x3ffff) >> 4) | static_cast<uint64_t>(panel_bytes >> 4) << 16 |
         static_cast<uint64_t>(kSwizzleBytes >> 4) << 32 | static_cast<uint64_t>(1) << 62;
}

// Sums of a thread, by the width of a product: 144, 192 and 256 columns.
#define EIGHT(d, k)                                                                                                    \
  "+f"(d[k]), "+f"(d[k + 1]), "+f"(d[k + 2]), "+f"(d[k + 3]), "+f"(d[k + 4]), "+f"(d[k + 5]), "+f"(d[k + 6]),       \
      "+f"(d[k + 7])
#define NAMES_72 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, " \
  "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, " \
  "%59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71}"
#define NAMES_96 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, " \
  "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, " \
  "%59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, " \
  "%78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}"
#define NAMES_128 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, " \
  "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, " \
  "%59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, " \
  "%78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, " \
  "%97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, " \
  "%113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}"
#define VALUES_72(d) \
  EIGHT(d, 0), EIGHT(d, 8), EIGHT(d, 16), EIGHT(d, 24), EIGHT(d, 32), EIGHT(d, 40), \
  EIGHT(d, 48), EIGHT(d, 56), EIGHT(d, 64)
#define VALUES_96(d) \
  EIGHT(d, 0), EIGHT(d, 8), EIGHT(d, 16), EIGHT(d, 24), EIGHT(d, 32), EIGHT(d, 40), \
  EIGHT(d, 48), EIGHT(d, 56), EIGHT(d, 64), EIGHT(d, 72), EIGHT(d, 80), EIGHT(d, 88)
#define VALUES_128(d) \
  EIGHT(d, 0), EIGHT(d, 8), EIGHT(d, 16), EIGHT(d, 24), EIGHT(d, 32), EIGHT(d, 40), \
  EIGHT(d, 48), EIGHT(d, 56), EIGHT(d, 64), EIGHT(d, 72), EIGHT(d, 80), EIGHT(d, 88), \
  EIGHT(d, 96), EIGHT(d, 104), EIGHT(d, 112), EIGHT(d, 120)

// d = (accumulate ? d : 0) + a (64, 16) times b (16, 144), both in shared memory along the sum.
__device__ __forceinline__ void multiply_shared(float (&d)[72], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %74, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n144k16.f32.bf16.bf16 " NAMES_72 ", %72, %73, p, 1, 1, 0, 0;\n}\n"
      : VALUES_72(d)
      : "l"(a), "l"(b), "r"(accumulate));
}

// d += a (64, 16), in registers, times b (16, columns), in shared memory across the sum.
__device__ __forceinline__ void multiply(float (&d)[96], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 " NAMES_96
               ", {%96, %97, %98, %99}, %100, 1, 1, 1, 1;\n"
               : VALUES_96(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void multiply(float (&d)[128], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " NAMES_128
               ", {%128, %129, %130, %131}, %132, 1, 1, 1, 1;\n"
               : VALUES_128(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// Likewise of a (64, 32), two of each four values of which are kept; their places are in `meta` of the first two of each
// four lanes, or of the last two.
template <int kPair>
__device__ __forceinline__ void multiply_sparse(float (&d)[96], const uint32_t (&a)[4], uint64_t b, uint32_t meta) {
  asm volatile("wgmma.mma_async.sp.sync.aligned.m64n192k32.f32.bf16.bf16 " NAMES_96
               ", {%96, %97, %98, %99}, %100, %101, %102, 1, 1, 1, 1;\n"
               : VALUES_96(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(meta), "n"(kPair));
}

template <int kPair>
__device__ __forceinline__ void multiply_sparse(float (&d)[128], const uint32_t (&a)[4], uint64_t b, uint32_t meta) {
  asm volatile("wgmma.mma_async.sp.sync.aligned.m64n256k32.f32.bf16.bf16 " NAMES_128
               ", {%128, %129, %130, %131}, %132, %133, %134, 1, 1, 1, 1;\n"
               : VALUES_128(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(meta), "n"(kPair));
}

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int kLeft>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kLeft) : "memory");
}

// Sums that products may still have been writing until the wait before this: no use of them moves ahead of it.
template <int kCount>
__device__ __forceinline__ void settle(float (&d)[kCount]) {
#pragma unroll
  for (int k = 0; k < kCount; ++k) asm volatile("" : "+f"(d[k])::"memory");
}

// ---- numbers ------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float low_half(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_half(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ __forceinline__ uint32_t pair(float low, float high) {
  uint32_t both;
  // Volatile, or the compiler makes a branch of every input that may lie outside the grid.
  asm volatile("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

// A number of few digits, twice.
__device__ __forceinline__ constexpr uint32_t twice(float number) {
  return (__builtin_bit_cast(uint32_t, number) >> 16) * 0x00010001u;
}

__device__ __forceinline__ uint32_t multiply_pairs(uint32_t a, uint32_t b) {
  uint32_t found;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(found) : "r"(a), "r"(b));
  return found;
}

// a times b, plus c.
__device__ __forceinline__ uint32_t add_product(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t found;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(found) : "r"(a), "r"(b), "r"(c));
  return found;
}

// Of four lanes' four words each, those of the own place: lane q gets word q of every one, in the lanes' order.
__device__ __forceinline__ uint4 exchange(uint4 words) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
  const uint32_t a = __shfl_xor_sync(0xffffffffu, odd ? words.x : words.y, 1);
  const uint32_t b = __shfl_xor_sync(0xffffffffu, odd ? words.z : words.w, 1);
  (odd ? words.x : words.y) = a;
  (odd ? words.z : words.w) = b;
  const uint32_t c = __shfl_xor_sync(0xffffffffu, upper ? words.x : words.z, 2);
  const uint32_t d = __shfl_xor_sync(0xffffffffu, upper ? words.y : words.w, 2);
  (upper ? words.x : words.z) = c;
  (upper ? words.y : words.w) = d;
  return words;
}

// Bytes of two words by the low three bits of each half-byte of `order`, whose low four half-bytes count; with the bit
// above those set, eight times the byte's sign. The compiler's own function would clear that bit.
__device__ __forceinline__ uint32_t permute(uint32_t low, uint32_t high, uint32_t order) {
  uint32_t found;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(found) : "r"(low), "r"(high), "r"(order));
  return found;
}

__device__ __forceinline__ float tanh_fast(float x) {
  float found;
  asm("tanh.approx.f32 %0, %1;" : "=f"(found) : "f"(x));
  return found;
}

__device__ __forceinline__ float sigmoid(float x) { return fmaf(0.5f, tanh_fast(0.5f * x), 0.5f); }

// ---- on the host --------------------------------------------------------------------------------------------------

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// Makes this thread's device current to the driver too: autograd's threads have done nothing with it before.
inline cudaError_t use_device() {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  return error == cudaSuccess ? cudaSetDevice(device) : error;
}

// The driver's function, found through the runtime, so that nothing is linked with the driver; null where there is none.
inline Encode find_encode() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
#else
  const cudaError_t error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
  if (error != cudaSuccess) return nullptr;
  return result == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(found) : nullptr;
}

// A tensor of bfloat16 as the copy engine sees it; strides in bytes, of all dims but the first.
template <int kDims>
bool encode(CUtensorMap* map, const void* base, const cuuint64_t (&sizes)[kDims],
            const cuuint64_t (&strides)[kDims - 1], const cuuint32_t (&box)[kDims],
            CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B) {
  static const Encode function = find_encode();
  if (function == nullptr) return false;
  const cuuint32_t ones[5] = {1, 1, 1, 1, 1};
  return function(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, kDims, const_cast<void*>(base), sizes, strides, box, ones,
                  CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// How many clusters of a kernel run at once; asked of the driver the first time.
template <auto kKernel>
int resident_clusters(int shared_bytes) {
  static int found = 0;
  if (found == 0) {
    const cudaLaunchConfig_t config = {dim3(1024), dim3(kThreads), static_cast<size_t>(shared_bytes)};
    if (cudaOccupancyMaxActiveClusters(&found, kKernel, &config) != cudaSuccess || found < 1) found = 1;
  }
  return found;
}

}  // namespace hopper
