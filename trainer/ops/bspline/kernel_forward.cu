// The edge layer's forward pass on Hopper's sparse tensor cores, for cubic splines with five cells (eight bases).
//
// Of eight bases four neighbours m..m+3 are not zero. In the order 0,4 | 1,5 | 2,6 | 3,7 every pair holds exactly one
// of them, so every four consecutive features hold exactly two: the 2:4 pattern, always, without pruning. The
// compressed operand and its metadata are made in registers from x; weights are read as they lie, (J, I, O).
// README.md has the mathematics and the counts.

#include "edge.cuh"

namespace {

using namespace hopper;

constexpr int kTileN = 128;        // tokens of a block: two warpgroups of 64
constexpr int kStageInputs = 16;   // inputs of a stage: four sparse steps of four, and one dense step of sixteen
constexpr int kStages = 3;
constexpr int kSparseBytes = 32 * kRowBytes;  // 32 rows of one panel: four inputs, eight bases
constexpr int kDenseBytes = 16 * kRowBytes;   // 16 rows of one panel: sixteen inputs, SiLU

// A block of so many panels of outputs.
template <int kPanels>
struct Tile {
  static constexpr int kOutputs = kPanels * kPanel;
  static constexpr int kStepBytes = kPanels * kSparseBytes;
  static constexpr int kStageBytes = 4 * kStepBytes + kPanels * kDenseBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes + kSwizzleBytes;  // and what aligning the start may cost
};

struct Maps {
  CUtensorMap spline[4];  // of inputs 0, 4, 8, 12 of a stage; of 1, 5, 9, 13; and so on
  CUtensorMap silu;
};

// ---- loads of weights ---------------------------------------------------------------------------------------------

template <int kPanels>
__device__ void load_stages(const Maps& maps, uint8_t* stages, uint64_t* full, uint64_t* empty, int inputs, int group) {
  using T = Tile<kPanels>;
  const int output = blockIdx.y * T::kOutputs;
  const int mine = static_cast<int>(block_in_cluster());
  const int count = inputs / kStageInputs;
  Ring<kStages> ring;
  for (int t = 0; t < count; ++t, ring.advance()) {
    uint64_t* barrier = &full[ring.stage];
    barrier_wait(&empty[ring.stage], (ring.round + 1) & 1);
    barrier_expect(barrier, T::kStageBytes);
    uint8_t* place = stages + ring.stage * T::kStageBytes;
    // The blocks of the cluster load the panels in turn, each for all.
    for (int panel = 0; panel < kPanels; ++panel) {
      if ((panel + t * kPanels) % kCluster != mine) continue;
      const int column = output + panel * kPanel;
#pragma unroll
      for (int step = 0; step < 4; ++step)
        load_5d_all(place + step * T::kStepBytes + panel * kSparseBytes, &maps.spline[step], barrier, column,
                    edge::kFeatures * group, 4 * t, 0);
      load_5d_all(place + 4 * T::kStepBytes + panel * kDenseBytes, &maps.silu, barrier, column, 0, 0,
                  t + edge::kFeatures * group * count);
    }
  }
}

// ---- features -----------------------------------------------------------------------------------------------------

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

__device__ __forceinline__ float silu_times_six(float x) { return 6.0f * x * sigmoid(x); }

// The operand of one input of two rows, and its metadata.
__device__ __forceinline__ void make_sparse(float upper, float lower, float limit, float inverse, int lane,
                                            uint32_t (&a)[4], uint32_t& meta) {
  uint32_t index, index_below;
  edge::live_bases(upper, limit, inverse, a[0], a[2], index);
  edge::live_bases(lower, limit, inverse, a[1], a[3], index_below);
  meta = metadata(index, index_below, lane);
}

// The operand of sixteen inputs' SiLU, of which this thread has four.
__device__ __forceinline__ void make_silu(const float (&upper)[4], const float (&lower)[4], uint32_t (&a)[4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    a[2 * half] = pair(silu_times_six(upper[2 * half]), silu_times_six(upper[2 * half + 1]));
    a[2 * half + 1] = pair(silu_times_six(lower[2 * half]), silu_times_six(lower[2 * half + 1]));
  }
}

// ---- the kernel ---------------------------------------------------------------------------------------------------

// Four inputs of one row, zero beyond the last token.
__device__ __forceinline__ uint2 load_inputs(const __nv_bfloat16* x, int row, int tokens, int inputs, int first) {
  if (row >= tokens) return make_uint2(0u, 0u);
  return *reinterpret_cast<const uint2*>(x + static_cast<int64_t>(row) * inputs + first);
}

template <int kPanels>
__device__ void compute(const __nv_bfloat16* x, __nv_bfloat16* y, const uint8_t* stages, uint64_t* full,
                        uint64_t* empty, int first_row, int tokens, int inputs, int outputs, float limit) {
  using T = Tile<kPanels>;
  constexpr int kValues = T::kOutputs / 2;
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
  const int row = first_row + (threadIdx.x / kGroupThreads - 1) * 64 + warp * 16 + lane / 4;
  const int quad = (lane & 3) * 4;
  const float inverse = 0.5f / limit;
  const int count = inputs / kStageInputs;
  float d[kValues];
#pragma unroll
  for (int k = 0; k < kValues; ++k) d[k] = 0.0f;
  uint2 coming = load_inputs(x, row, tokens, inputs, quad);
  uint2 coming_below = load_inputs(x, row + 8, tokens, inputs, quad);
  Ring<kStages> ring;
  int before = 0;
  for (int t = 0; t < count; ++t) {
    const float upper[4] = {low_half(coming.x), high_half(coming.x), low_half(coming.y), high_half(coming.y)};
    const float lower[4] = {low_half(coming_below.x), high_half(coming_below.x), low_half(coming_below.y),
                            high_half(coming_below.y)};
    if (t + 1 < count) {
      coming = load_inputs(x, row, tokens, inputs, (t + 1) * kStageInputs + quad);
      coming_below = load_inputs(x, row + 8, tokens, inputs, (t + 1) * kStageInputs + quad);
    }
    const uint8_t* place = stages + ring.stage * T::kStageBytes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Made while the products before these run; two at a time, so that one's steps fill the other's pauses.
      uint32_t a[2][4], meta[2], dense[4];
#pragma unroll
      for (int k = 0; k < 2; ++k)
        make_sparse(upper[2 * half + k], lower[2 * half + k], limit, inverse, lane, a[k], meta[k]);
      if (half == 1) make_silu(upper, lower, dense);
      if (half == 0) barrier_wait(&full[ring.stage], ring.round & 1);
      products_begin();
#pragma unroll
      for (int k = 0; k < 2; ++k)
        multiply_sparse(d, a[k], describe_across(place + (2 * half + k) * T::kStepBytes, kSparseBytes), meta[k]);
      if (half == 1) multiply(d, dense, describe_across(place + 4 * T::kStepBytes, kDenseBytes));
      products_commit();
      // All but the newest are done: their registers may be used again, and what the last stage held is free.
      products_wait<1>();
      if (half == 0 && t > 0) release(&empty[before]);
    }
    before = ring.stage;
    ring.advance();
  }
  products_wait<0>();
  settle(d);
  const int column = blockIdx.y * T::kOutputs + (lane & 3) * 2;
#pragma unroll
  for (int k = 0; k < kValues / 4; ++k) {
    if (column + 8 * k >= outputs) continue;
    __nv_bfloat16* to = y + static_cast<int64_t>(row) * outputs + column + 8 * k;
    __nv_bfloat16* below = to + static_cast<int64_t>(8) * outputs;
    if (row < tokens) *reinterpret_cast<uint32_t*>(to) = pair(d[4 * k] * edge::kSixth, d[4 * k + 1] * edge::kSixth);
    if (row + 8 < tokens) *reinterpret_cast<uint32_t*>(below) = pair(d[4 * k + 2] * edge::kSixth, d[4 * k + 3] * edge::kSixth);
  }
}

template <int kPanels>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ Maps maps, const __nv_bfloat16* __restrict__ x,
                   __nv_bfloat16* __restrict__ y, const int* __restrict__ ends, int groups, int tokens, int inputs,
                   int outputs, float limit) {
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t full[kStages], empty[kStages];
  // The swizzle repeats every 1,024 bytes.
  uint8_t* stages = raw + (kSwizzleBytes - shared_address(raw) % kSwizzleBytes) % kSwizzleBytes;
  const edge::Rows rows = edge::find_rows(ends, groups, tokens, blockIdx.x / kCluster, kCluster * kTileN);
  // The same for the whole cluster.
  if (rows.first >= rows.last) return;
  init_barriers<kStages>(full, empty);
  if (threadIdx.x < kGroupThreads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;\n");
    if (threadIdx.x == 0) load_stages<kPanels>(maps, stages, full, empty, inputs, rows.group);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;\n");
    const int first_row = rows.first + static_cast<int>(block_in_cluster()) * kTileN;
    compute<kPanels>(x, y, stages, full, empty, first_row, rows.last, inputs, outputs, limit);
  }
  // Nobody leaves while a neighbour may still write here.
  __syncwarp();
  cluster_sync();
}

// ---- on the host --------------------------------------------------------------------------------------------------

bool encode_all(Maps* maps, const __nv_bfloat16* weight, int64_t weights, int64_t inputs, int64_t outputs) {
  const cuuint64_t row = 2 * outputs, slice = row * inputs;
  const cuuint64_t o = outputs, blocks = inputs / kStageInputs, slices = edge::kFeatures * weights;
  for (int step = 0; step < 4; ++step) {
    // Dims: output; basis + 4; basis + 1, and on to the next weight; every fourth input; basis + 2.
    const cuuint64_t sizes[5] = {o, 2, slices, 4 * blocks, 2};
    const cuuint64_t strides[4] = {4 * slice, slice, 4 * row, 2 * slice};
    const cuuint32_t box[5] = {kPanel, 2, 2, 4, 2};
    if (!encode<5>(&maps->spline[step], weight + step * outputs, sizes, strides, box)) return false;
  }
  // Dims: output; input + 1; input + 4; input + 2; block of sixteen inputs. The order in which threads hold them.
  const cuuint64_t sizes[5] = {o, 2, 4, 2, blocks * (slices - edge::kBases)};
  const cuuint64_t strides[4] = {row, 4 * row, 2 * row, kStageInputs * row};
  const cuuint32_t box[5] = {kPanel, 2, 4, 2, 1};
  return encode<5>(&maps->silu, weight + edge::kBases * inputs * outputs, sizes, strides, box);
}

template <int kPanels>
cudaError_t launch(const Maps& maps, const __nv_bfloat16* x, __nv_bfloat16* y, const int* ends, int groups, int tokens,
                   int inputs, int outputs, float limit, cudaStream_t stream) {
  using T = Tile<kPanels>;
  const cudaError_t error =
      cudaFuncSetAttribute(forward_kernel<kPanels>, cudaFuncAttributeMaxDynamicSharedMemorySize, T::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int rows = kCluster * edge::most_tiles(tokens, groups, kCluster * kTileN);
  const dim3 grid(rows, (outputs + T::kOutputs - 1) / T::kOutputs);
  forward_kernel<kPanels><<<grid, kThreads, T::kSharedBytes, stream>>>(maps, x, y, ends, groups, tokens, inputs,
                                                                       outputs, limit);
  return cudaGetLastError();
}

}  // namespace

// y (N, O) = edge layer of x (N, I), weight (9, I, O), on [-limit, limit], all bfloat16 and contiguous, on `stream`.
// With groups E > 0 the weight is (E, 9, I, O), and rows of group e end before ends[e], int32 on the device.
// Gives CUDA's error code, 0 for none; 1 (invalid value) where the driver cannot describe the tensors.
extern "C" int kanctl_edge_forward(const void* x, const void* weight, void* y, const void* ends, int groups, int tokens,
                                   int inputs, int outputs, float limit, void* stream) {
  Maps maps;
  const auto* weights = static_cast<const __nv_bfloat16*>(weight);
  if (!encode_all(&maps, weights, groups > 0 ? groups : 1, inputs, outputs)) return cudaErrorInvalidValue;
  const auto* from = static_cast<const __nv_bfloat16*>(x);
  auto* to = static_cast<__nv_bfloat16*>(y);
  const auto* of_groups = static_cast<const int*>(ends);
  // Three panels where four would leave more of the last tile empty.
  const bool narrow = (outputs + 191) / 192 * 192 < (outputs + 255) / 256 * 256;
  const auto run = narrow ? launch<3> : launch<4>;
  return run(maps, from, to, of_groups, groups, tokens, inputs, outputs, limit, static_cast<cudaStream_t>(stream));
}
