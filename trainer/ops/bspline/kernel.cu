// The edge layer's forward pass on Hopper's sparse tensor cores, for cubic splines with five cells (eight bases).
//
// Of eight bases four neighbours m..m+3 are not zero. In the order 0,4 | 1,5 | 2,6 | 3,7 every pair holds exactly one
// of them, so every four consecutive features hold exactly two: the 2:4 pattern, always, without pruning. The
// compressed operand and its metadata are made in registers from x; weights are read as they lie, (J, I, O).
// README.md has the mathematics and the counts. Letters: N tokens, I inputs (a multiple of 16), O outputs (of 8).
//
// No torch here: a plain C function, so that any compiler for CUDA builds it in seconds.

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

namespace {

constexpr int kTileN = 128;        // tokens of a block: two warpgroups of 64
constexpr int kTileO = 256;        // outputs of a block
constexpr int kStageInputs = 16;   // inputs of a stage: four sparse steps of four, and one dense step of sixteen
constexpr int kStages = 3;
constexpr int kCluster = 2;        // blocks that share the weights they load
constexpr float kSixth = 1.0f / 6.0f;
constexpr int kThreads = 384;      // one warpgroup loads, two compute
constexpr int kPanel = 64;         // outputs of one swizzled row of 128 bytes
constexpr int kPanels = kTileO / kPanel;
constexpr int kSparseBytes = 32 * 128;                        // 32 rows of one panel: four inputs, eight bases
constexpr int kDenseBytes = 16 * 128;                         // 16 rows of one panel: sixteen inputs, SiLU
constexpr int kStepBytes = kPanels * kSparseBytes;
constexpr int kStageBytes = 4 * kStepBytes + kPanels * kDenseBytes;
constexpr int kSharedBytes = kStages * kStageBytes + 1024;    // and what aligning the start may cost

struct Maps {
  CUtensorMap spline[4];  // of inputs 0, 4, 8, 12 of a stage; of 1, 5, 9, 13; and so on
  CUtensorMap silu;
};

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

// ---- loads of weights ---------------------------------------------------------------------------------------------

// One box of five dims into the same place of every block of the cluster.
__device__ __forceinline__ void load_box(void* to, const CUtensorMap* map, uint64_t* barrier, int c0, int c3, int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%2, 0, 0, %3, %4}], [%5], %6;" ::"r"(shared_address(to)),
      "l"(map), "r"(c0), "r"(c3), "r"(c4), "r"(shared_address(barrier)), "h"(static_cast<uint16_t>((1 << kCluster) - 1))
      : "memory");
}

__device__ void load_stages(const Maps& maps, uint8_t* stages, uint64_t* full, uint64_t* empty, int inputs) {
  const int output = blockIdx.y * kTileO;
  const int mine = static_cast<int>(block_in_cluster());
  const int count = inputs / kStageInputs;
  for (int t = 0; t < count; ++t) {
    const int stage = t % kStages;
    barrier_wait(&empty[stage], (t / kStages + 1) & 1);
    barrier_expect(&full[stage], kStageBytes);
    uint8_t* place = stages + stage * kStageBytes;
    // Each block of the cluster loads its share of the panels, for all.
    for (int panel = mine; panel < kPanels; panel += kCluster) {
      const int column = output + panel * kPanel;
#pragma unroll
      for (int step = 0; step < 4; ++step)
        load_box(place + step * kStepBytes + panel * kSparseBytes, &maps.spline[step], &full[stage], column, 4 * t, 0);
      load_box(place + 4 * kStepBytes + panel * kDenseBytes, &maps.silu, &full[stage], column, 0, t);
    }
  }
}

// ---- features -----------------------------------------------------------------------------------------------------

__device__ __forceinline__ uint32_t pair(float low, float high) {
  uint32_t both;
  // Volatile, or the compiler makes a branch of every input that may lie outside the grid.
  asm volatile("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

// Six times the four live bases of x, ordered by index mod 4, as two pairs of bfloat16; `index` is m in its low bits.
// Outside the grid all are zero; a NaN is left to SiLU.
__device__ __forceinline__ void live_bases(float x, float limit, float inverse, uint32_t& low, uint32_t& high,
                                           uint32_t& index) {
  const float place = __saturatef(fmaf(x, inverse, 0.5f));  // 0 to 1 along the grid
  const float whole = fmaf(place, 5.0f, -0.5f) + 12582912.0f;  // rounds to m, which its low bits then hold
  const float f = fmaf(place, 5.0f, 12582912.0f - whole);
  const float g = 1.0f - f;
  const float f2 = f * f, g2 = g * g;
  const float f3 = f2 * f, g3 = g2 * g;
  const float second = fmaf(3.0f, f3, fmaf(-6.0f, f2, 4.0f));
  const float third = fmaf(3.0f, g3, fmaf(-6.0f, g2, 4.0f));
  const bool inside = fabsf(x) <= limit;
  const uint32_t first_pair = pair(g3, second), second_pair = pair(third, f3);
  const uint32_t early = inside ? first_pair : 0u, late = inside ? second_pair : 0u;
  index = __float_as_uint(whole);
  // Value q of basis m + q goes to place (m + q) mod 4: a rotation of four halves by m.
  const uint32_t order = __funnelshift_l(0x76543210u, 0x76543210u, index << 3);
  low = __byte_perm(early, late, order);
  high = __byte_perm(early, late, order >> 16);
}

// This thread's part of the metadata of four inputs of two rows. In each group of four features two are live: of places
// 0 and 1 the one that says whether basis 0 (2) or 4 (6), of 2 and 3 whether 1 (3) or 5 (7). The byte of m has the
// group of bases 0, 4, 1, 5 in its low half. Even threads of a quad keep the first groups of all four inputs, odd ones
// the second; the low 16 bits are of the first row.
__device__ __forceinline__ uint32_t metadata(uint32_t index, uint32_t index_below, int lane) {
  const uint32_t mine = __byte_perm(0x9d8d8988u, 0x000000ddu, index);
  const uint32_t below = __byte_perm(0x9d8d8988u, 0x000000ddu, index_below);
  const uint32_t both = __byte_perm(mine, below, 0x4400);
  const int odd = (lane & 1) * 4, column = (lane & 3) * 4;
  const uint32_t keep = ((both >> odd) & 0x000f000fu) << column;
  const uint32_t send = ((both >> (4 - odd)) & 0x000f000fu) << column;
  uint32_t word = keep | __shfl_xor_sync(0xffffffffu, send, 1);
  word |= __shfl_xor_sync(0xffffffffu, word, 2);
  return word;
}

__device__ __forceinline__ float silu_times_six(float x) {
  float power, share;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * -1.4426950408889634f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(share) : "f"(1.0f + power));
  return 6.0f * x * share;
}

__device__ __forceinline__ float low_half(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_half(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// ---- tensor cores -------------------------------------------------------------------------------------------------

#define ACCUMULATORS                                                                                                   \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "  \
  "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "   \
  "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, "   \
  "%68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, "   \
  "%90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "   \
  "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}"
#define EIGHT(d, k)                                                                                                    \
  "+f"(d[k]), "+f"(d[k + 1]), "+f"(d[k + 2]), "+f"(d[k + 3]), "+f"(d[k + 4]), "+f"(d[k + 5]), "+f"(d[k + 6]),       \
      "+f"(d[k + 7])
#define ALL(d)                                                                                                         \
  EIGHT(d, 0), EIGHT(d, 8), EIGHT(d, 16), EIGHT(d, 24), EIGHT(d, 32), EIGHT(d, 40), EIGHT(d, 48), EIGHT(d, 56),       \
      EIGHT(d, 64), EIGHT(d, 72), EIGHT(d, 80), EIGHT(d, 88), EIGHT(d, 96), EIGHT(d, 104), EIGHT(d, 112), EIGHT(d, 120)

__device__ __forceinline__ void multiply_sparse(float (&d)[128], const uint32_t (&a)[4], uint64_t weights,
                                                uint32_t meta) {
  asm volatile("wgmma.mma_async.sp.sync.aligned.m64n256k32.f32.bf16.bf16 " ACCUMULATORS
               ", {%128, %129, %130, %131}, %132, %133, 0, 1, 1, 1, 1;\n"
               : ALL(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(weights), "r"(meta));
}

__device__ __forceinline__ void multiply_dense(float (&d)[128], const uint32_t (&a)[4], uint64_t weights) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " ACCUMULATORS
               ", {%128, %129, %130, %131}, %132, 1, 1, 1, 1;\n"
               : ALL(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(weights));
}

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int kLeft>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kLeft) : "memory");
}

// Rows of 128 bytes, swizzled, outputs contiguous: 8 rows are 1,024 bytes, the next panel is `panel_bytes` on.
__device__ __forceinline__ uint64_t describe(const void* place, int panel_bytes) {
  return static_cast<uint64_t>((shared_address(place) & 0x3ffff) >> 4) | static_cast<uint64_t>(panel_bytes >> 4) << 16 |
         static_cast<uint64_t>(1024 >> 4) << 32 | static_cast<uint64_t>(1) << 62;
}

// ---- the kernel ---------------------------------------------------------------------------------------------------

// Four inputs of one row, zero beyond the last token.
__device__ __forceinline__ uint2 load_inputs(const __nv_bfloat16* x, int row, int tokens, int inputs, int first) {
  if (row >= tokens) return make_uint2(0u, 0u);
  return *reinterpret_cast<const uint2*>(x + static_cast<int64_t>(row) * inputs + first);
}

__device__ void compute(const __nv_bfloat16* x, __nv_bfloat16* y, const uint8_t* stages, uint64_t* full,
                        uint64_t* empty, int tokens, int inputs, int outputs, float limit) {
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
  const int row = blockIdx.x * kTileN + (threadIdx.x / 128 - 1) * 64 + warp * 16 + lane / 4;
  const int quad = (lane & 3) * 4;
  const float inverse = 0.5f / limit;
  const int count = inputs / kStageInputs;
  float d[128];
#pragma unroll
  for (int k = 0; k < 128; ++k) d[k] = 0.0f;
  uint2 coming = load_inputs(x, row, tokens, inputs, quad);
  uint2 coming_below = load_inputs(x, row + 8, tokens, inputs, quad);
  for (int t = 0; t < count; ++t) {
    const uint2 now = coming, below = coming_below;
    if (t + 1 < count) {
      coming = load_inputs(x, row, tokens, inputs, (t + 1) * kStageInputs + quad);
      coming_below = load_inputs(x, row + 8, tokens, inputs, (t + 1) * kStageInputs + quad);
    }
    const int stage = t % kStages;
    const uint8_t* place = stages + stage * kStageBytes;
    const float upper[4] = {low_half(now.x), high_half(now.x), low_half(now.y), high_half(now.y)};
    const float lower[4] = {low_half(below.x), high_half(below.x), low_half(below.y), high_half(below.y)};
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint32_t a[4], index, index_below;
      live_bases(upper[step], limit, inverse, a[0], a[2], index);
      live_bases(lower[step], limit, inverse, a[1], a[3], index_below);
      const uint32_t meta = metadata(index, index_below, lane);
      if (step == 0) barrier_wait(&full[stage], (t / kStages) & 1);
      products_begin();
      multiply_sparse(d, a, describe(place + step * kStepBytes, kSparseBytes), meta);
      products_commit();
      // All but the newest are done: their registers may be used again, and what the last stage held is free.
      products_wait<1>();
      if (step == 0 && t > 0 && threadIdx.x % 128 < kCluster)
        barrier_arrive_at(&empty[(t - 1) % kStages], threadIdx.x % 128);
    }
    uint32_t a[4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      a[2 * half] = pair(silu_times_six(upper[2 * half]), silu_times_six(upper[2 * half + 1]));
      a[2 * half + 1] = pair(silu_times_six(lower[2 * half]), silu_times_six(lower[2 * half + 1]));
    }
    products_begin();
    multiply_dense(d, a, describe(place + 4 * kStepBytes, kDenseBytes));
    products_commit();
    products_wait<1>();
  }
  products_wait<0>();
  const int column = blockIdx.y * kTileO + (lane & 3) * 2;
#pragma unroll
  for (int k = 0; k < 32; ++k) {
    if (column + 8 * k >= outputs) continue;
    __nv_bfloat16* to = y + static_cast<int64_t>(row) * outputs + column + 8 * k;
    __nv_bfloat16* below = to + static_cast<int64_t>(8) * outputs;
    if (row < tokens) *reinterpret_cast<uint32_t*>(to) = pair(d[4 * k] * kSixth, d[4 * k + 1] * kSixth);
    if (row + 8 < tokens) *reinterpret_cast<uint32_t*>(below) = pair(d[4 * k + 2] * kSixth, d[4 * k + 3] * kSixth);
  }
}

__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    edge_forward_24(const __grid_constant__ Maps maps, const __nv_bfloat16* __restrict__ x,
                    __nv_bfloat16* __restrict__ y, int tokens, int inputs, int outputs, float limit) {
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t full[kStages], empty[kStages];
  // The swizzle repeats every 1,024 bytes.
  uint8_t* stages = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(raw) + 1023) / 1024 * 1024);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      barrier_init(&full[stage], 1);
      barrier_init(&empty[stage], 2 * kCluster);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_sync();
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;\n");
    if (threadIdx.x == 0) load_stages(maps, stages, full, empty, inputs);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;\n");
    compute(x, y, stages, full, empty, tokens, inputs, outputs, limit);
  }
  // Nobody leaves while a neighbour may still write here.
  __syncwarp();
  cluster_sync();
}

// ---- on the host --------------------------------------------------------------------------------------------------

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// The driver's function, found through the runtime, so that nothing is linked with the driver.
Encode find_encode() {
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

bool encode(Encode function, CUtensorMap* map, const __nv_bfloat16* base, const cuuint64_t (&sizes)[5],
            const cuuint64_t (&strides)[4], const cuuint32_t (&box)[5]) {
  const cuuint32_t ones[5] = {1, 1, 1, 1, 1};
  return function(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5, const_cast<__nv_bfloat16*>(base), sizes, strides, box, ones,
                  CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

bool encode_all(Encode function, Maps* maps, const __nv_bfloat16* weight, int64_t inputs, int64_t outputs) {
  const cuuint64_t row = 2 * outputs, slice = row * inputs;
  const cuuint64_t o = outputs, blocks = inputs / kStageInputs;
  for (int step = 0; step < 4; ++step) {
    // Dims: output; basis + 4; basis + 1; every fourth input; basis + 2.
    const cuuint64_t sizes[5] = {o, 2, 2, 4 * blocks, 2};
    const cuuint64_t strides[4] = {4 * slice, slice, 4 * row, 2 * slice};
    const cuuint32_t box[5] = {kPanel, 2, 2, 4, 2};
    if (!encode(function, &maps->spline[step], weight + step * outputs, sizes, strides, box)) return false;
  }
  // Dims: output; input + 1; input + 4; input + 2; block of sixteen inputs. The order in which threads hold them.
  const cuuint64_t sizes[5] = {o, 2, 4, 2, blocks};
  const cuuint64_t strides[4] = {row, 4 * row, 2 * row, kStageInputs * row};
  const cuuint32_t box[5] = {kPanel, 2, 4, 2, 1};
  return encode(function, &maps->silu, weight + 8 * inputs * outputs, sizes, strides, box);
}

}  // namespace

// y (N, O) = edge layer of x (N, I), weight (9, I, O), on [-limit, limit], all bfloat16 and contiguous, on `stream`.
// Gives CUDA's error code, 0 for none; 801 (not supported) where the driver cannot describe tensors.
extern "C" int kanctl_edge_forward_24(const void* x, const void* weight, void* y, int tokens, int inputs, int outputs,
                                      float limit, void* stream) {
  static const Encode function = find_encode();
  if (function == nullptr) return cudaErrorNotSupported;
  Maps maps;
  const auto* weights = static_cast<const __nv_bfloat16*>(weight);
  if (!encode_all(function, &maps, weights, inputs, outputs)) return cudaErrorInvalidValue;
  const cudaError_t error =
      cudaFuncSetAttribute(edge_forward_24, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  const int rows = (tokens + kTileN - 1) / kTileN;
  const dim3 grid((rows + kCluster - 1) / kCluster * kCluster, (outputs + kTileO - 1) / kTileO);
  edge_forward_24<<<grid, kThreads, kSharedBytes, static_cast<cudaStream_t>(stream)>>>(
      maps, static_cast<const __nv_bfloat16*>(x), static_cast<__nv_bfloat16*>(y), tokens, inputs, outputs, limit);
  return cudaGetLastError();
}
