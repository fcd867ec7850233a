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
constexpr int kCluster = 2;        // blocks that share weights; of four only 120 of 132 multiprocessors find room
constexpr int kBand = 64;          // tiles of rows that go together through all outputs
constexpr int kSparseBytes = 32 * kRowBytes;  // 32 rows of one panel: four inputs, eight bases
constexpr int kDenseBytes = 16 * kRowBytes;   // 16 rows of one panel: sixteen inputs, SiLU

// A block of so many panels of outputs.
template <int kPanels>
struct Shape {
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
__device__ void load_stages(const Maps& maps, edge::Walk<kCluster> walk, uint8_t* stages, uint64_t* full, uint64_t* empty,
                            int count) {
  using S = Shape<kPanels>;
  const int mine = static_cast<int>(block_in_cluster());
  constexpr uint16_t kAll = (1 << kCluster) - 1;
  Ring<kStages> ring;
  int turn = 0;
  for (edge::Tile tile; walk.next(tile);) {
    for (int t = 0; t < count; ++t, ring.advance()) {
      uint64_t* barrier = &full[ring.stage];
      barrier_wait(&empty[ring.stage], (ring.round + 1) & 1);
      barrier_expect(barrier, S::kStageBytes);
      uint8_t* place = stages + ring.stage * S::kStageBytes;
      // The blocks of the cluster load the panels in turn, each for all.
      for (int panel = 0; panel < kPanels; ++panel, ++turn) {
        if (turn % kCluster != mine) continue;
        const int output = tile.column * S::kOutputs + panel * kPanel;
#pragma unroll
        for (int step = 0; step < 4; ++step)
          load_5d(place + step * S::kStepBytes + panel * kSparseBytes, &maps.spline[step], barrier, output,
                      edge::kFeatures * tile.rows.group, 4 * t, 0, kAll);
        load_5d(place + 4 * S::kStepBytes + panel * kDenseBytes, &maps.silu, barrier, output, 0, 0,
                    t + edge::kFeatures * tile.rows.group * count, kAll);
      }
    }
  }
}

// ---- features -----------------------------------------------------------------------------------------------------

// How this thread takes part in the exchange of metadata.
struct Exchange {
  uint32_t take;  // the bytes that it takes of its own word and of that of the lane two further
  uint32_t keep;  // the half-bytes that it keeps of what it has then; the neighbour's are those of its others
  int turn;       // by so many bits

  __device__ __forceinline__ explicit Exchange(int lane)
      : take(lane & 2 ? 0x3715 : 0x6240), keep(lane & 1 ? 0xf0f0f0f0u : 0x0f0f0f0fu), turn(lane & 1 ? 28 : 4) {
    // Or the compiler finds them again and again.
    asm volatile("" : "+r"(take), "+r"(keep), "+r"(turn));
  }
};

// The metadata of two sparse steps, which have an input of each of four lanes: of the first step in the first two
// lanes, of the second in the last two. `index` is by row and input.
// In each group of four features two are live: of places 0 and 1 the one that says whether basis 0 (2) or 4 (6), of 2
// and 3 whether 1 (3) or 5 (7). The byte of m has the group of bases 0, 4, 1, 5 in its low half. Even lanes end with
// the first groups of all four inputs, odd ones with the second; the low 16 bits are of the first row.
__device__ __forceinline__ uint32_t metadata(const uint32_t (&index)[2][2], const Exchange& with) {
  const uint32_t cells = index[0][0] + (index[0][1] << 4) + (index[1][0] << 8) + (index[1][1] << 12);
  const uint32_t mine = permute(0x9d8d8988u, 0x000000ddu, cells);
  const uint32_t pair = permute(mine, __shfl_xor_sync(0xffffffffu, mine, 2), with.take);
  const uint32_t other = __shfl_xor_sync(0xffffffffu, pair, 1);
  return (pair & with.keep) | (__funnelshift_l(other, other, with.turn) & ~with.keep);
}

__device__ __forceinline__ float silu_times_six(float x) {
  const float three = 3.0f * x;
  return fmaf(three, tanh_fast(0.5f * x), three);
}

// A row's part of the operands of two inputs: value q of basis m + q goes to place (m + q) mod 4.
__device__ __forceinline__ void make_sparse(uint32_t inputs, float limit, float inverse, uint32_t (&low)[2],
                                            uint32_t (&high)[2], uint32_t (&index)[2]) {
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const float x = k ? high_half(inputs) : low_half(inputs);
    uint32_t outer, inner;
    edge::live_bases(x, inverse, outer, inner, index[k]);
    const uint32_t order =
        edge::order_inside(__funnelshift_l(edge::kInOrder, edge::kInOrder, index[k] << 3), x, limit);
    low[k] = permute(outer, inner, order);
    high[k] = permute(inner, outer, order);
  }
}

// The operand of sixteen inputs' SiLU, of which this thread has four, of two rows.
__device__ __forceinline__ void make_silu(uint2 upper, uint2 lower, uint32_t (&a)[4]) {
  const uint32_t inputs[4] = {upper.x, lower.x, upper.y, lower.y};
#pragma unroll
  for (int k = 0; k < 4; ++k) a[k] = pair(silu_times_six(low_half(inputs[k])), silu_times_six(high_half(inputs[k])));
}

// ---- the kernel ---------------------------------------------------------------------------------------------------

// Where this thread's inputs of a row begin. Rows beyond the last token repeat it, and are not written.
__device__ __forceinline__ const uint2* find_inputs(const __nv_bfloat16* x, int row, int tokens, int inputs, int quad) {
  return reinterpret_cast<const uint2*>(x + static_cast<int64_t>(min(row, tokens - 1)) * inputs + quad);
}

// A load that begins here, and not where the compiler would put it; and where what was loaded is used at the earliest.
__device__ __forceinline__ uint2 start_load(const uint2* from) {
  uint2 loading;
  asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(loading.x), "=r"(loading.y) : "l"(from));
  return loading;
}

__device__ __forceinline__ void arrive(uint2& loading) { asm volatile("" : "+r"(loading.x), "+r"(loading.y)); }

// The products of one tile; `ring` is at its first stage, and then behind its last.
template <int kPanels>
__device__ __forceinline__ void accumulate(float (&d)[kPanels * 32], const __nv_bfloat16* x, const uint8_t* stages,
                                           uint64_t* full, uint64_t* empty, Ring<kStages>& ring, int row, int tokens,
                                           int inputs, float limit) {
  using S = Shape<kPanels>;
  const Exchange with(threadIdx.x & 31);
  const int quad = (threadIdx.x & 3) * 4, count = inputs / kStageInputs;
  const float inverse = 0.5f / limit;
  constexpr int kStep = S::kStepBytes / kDescribedBytes;
  const uint64_t sparse = describe_across(stages, kSparseBytes);
  const uint64_t dense = describe_across(stages + 4 * S::kStepBytes, kDenseBytes);
#pragma unroll
  for (int k = 0; k < kPanels * 32; ++k) d[k] = 0.0f;
  const uint2* from = find_inputs(x, row, tokens, inputs, quad);
  const uint2* from_below = find_inputs(x, row + 8, tokens, inputs, quad);
  uint2 coming = *from, coming_below = *from_below;
  int before = 0;
  for (int t = 0; t < count; ++t) {
    const uint2 upper = coming, lower = coming_below;
    // The next stage's, or the last one's again.
    const int next = min(t + 1, count - 1) * (kStageInputs / 4);
    uint2 loading = start_load(from + next), loading_below = start_load(from_below + next);
    const uint64_t on = ring.stage * (S::kStageBytes / kDescribedBytes);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Made while the products before these run; two at a time, so that one's steps fill the other's pauses.
      uint32_t low[2][2], high[2][2], index[2][2], silu[4];
      make_sparse(half ? upper.y : upper.x, limit, inverse, low[0], high[0], index[0]);
      make_sparse(half ? lower.y : lower.x, limit, inverse, low[1], high[1], index[1]);
      const uint32_t meta = metadata(index, with);
      if (half == 1) make_silu(upper, lower, silu);
      if (half == 0) barrier_wait(&full[ring.stage], ring.round & 1);
      products_begin();
      const uint32_t first[4] = {low[0][0], low[1][0], high[0][0], high[1][0]};
      const uint32_t second[4] = {low[0][1], low[1][1], high[0][1], high[1][1]};
      multiply_sparse<0>(d, first, sparse + on + 2 * half * kStep, meta);
      multiply_sparse<1>(d, second, sparse + on + (2 * half + 1) * kStep, meta);
      if (half == 1) multiply(d, silu, dense + on);
      products_commit();
      // All but the newest are done: their registers may be used again, and what the last stage held is free.
      products_wait<1>();
      if (half == 0 && t > 0) release<kCluster>(&empty[before]);
    }
    // Not before here: products would be issued only when the loads are there.
    arrive(loading);
    arrive(loading_below);
    coming = loading;
    coming_below = loading_below;
    before = ring.stage;
    ring.advance();
  }
  products_wait<0>();
  settle(d);
  release<kCluster>(&empty[before]);
}

// A row's sums: four lanes have it, and write eight outputs at a time.
template <int kPanels>
__device__ __forceinline__ void write_row(const float (&d)[kPanels * 32], int below, __nv_bfloat16* y, bool is_there,
                                          int output, int outputs) {
#pragma unroll
  for (int k = 0; k < kPanels * 8; k += 4) {
    uint32_t words[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float* sums = &d[4 * (k + e) + 2 * below];
      words[e] = pair(sums[0] * edge::kSixth, sums[1] * edge::kSixth);
    }
    const uint4 found = exchange(make_uint4(words[0], words[1], words[2], words[3]));
    const int o = output + (k + static_cast<int>(threadIdx.x & 3)) * 8;
    if (is_there && o < outputs) *reinterpret_cast<uint4*>(y + o) = found;
  }
}

template <int kPanels>
__device__ void compute(const __nv_bfloat16* x, __nv_bfloat16* y, edge::Walk<kCluster> walk, const uint8_t* stages,
                        uint64_t* full, uint64_t* empty, int inputs, int outputs, float limit) {
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3;
  const int mine = static_cast<int>(block_in_cluster()) * kTileN + (threadIdx.x / kGroupThreads - 1) * 64 + warp * 16 +
                   lane / 4;
  Ring<kStages> ring;
  float d[kPanels * 32];
  for (edge::Tile tile; walk.next(tile);) {
    const int row = tile.rows.first + mine;
    accumulate<kPanels>(d, x, stages, full, empty, ring, row, tile.rows.last, inputs, limit);
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      __nv_bfloat16* to = y + static_cast<int64_t>(row + 8 * below) * outputs;
      write_row<kPanels>(d, below, to, row + 8 * below < tile.rows.last, tile.column * Shape<kPanels>::kOutputs,
                         outputs);
    }
  }
}

template <int kPanels>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ Maps maps, const __nv_bfloat16* __restrict__ x,
                   __nv_bfloat16* __restrict__ y, const int* __restrict__ ends, const __grid_constant__ edge::Tiles tiles,
                   int inputs, int outputs, float limit) {
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t full[kStages], empty[kStages];
  uint8_t* stages = align_stages(raw);
  init_barriers<kStages, kCluster>(full, empty);
  if (threadIdx.x < kGroupThreads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;\n");
    if (threadIdx.x == 0)
      load_stages<kPanels>(maps, edge::Walk<kCluster>(tiles, ends), stages, full, empty, inputs / kStageInputs);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;\n");
    compute<kPanels>(x, y, edge::Walk<kCluster>(tiles, ends), stages, full, empty, inputs, outputs, limit);
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
  using S = Shape<kPanels>;
  const cudaError_t error =
      cudaFuncSetAttribute(forward_kernel<kPanels>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int columns = (outputs + S::kOutputs - 1) / S::kOutputs;
  const edge::Tiles tiles{groups, tokens, kCluster * kTileN, columns, kBand};
  const int clusters = min(tiles.count(), resident_clusters<forward_kernel<kPanels>>(S::kSharedBytes));
  forward_kernel<kPanels><<<clusters * kCluster, kThreads, S::kSharedBytes, stream>>>(maps, x, y, ends, tiles, inputs,
                                                                                     outputs, limit);
  return cudaGetLastError();
}

}  // namespace

// y (N, O) = edge layer of x (N, I), weight (9, I, O), on [-limit, limit], all bfloat16 and contiguous, on `stream`.
// With groups E > 0 the weight is (E, 9, I, O), and rows of group e end before ends[e], int32 on the device.
// Gives CUDA's error code, 0 for none; 1 (invalid value) where the driver cannot describe the tensors.
extern "C" int kanctl_edge_forward(const void* x, const void* weight, void* y, const void* ends, int groups, int tokens,
                                   int inputs, int outputs, float limit, void* stream) {
  const cudaError_t unready = use_device();
  if (unready != cudaSuccess) return unready;
  Maps maps;
  const auto* weights = static_cast<const __nv_bfloat16*>(weight);
  if (!encode_all(&maps, weights, groups > 0 ? groups : 1, inputs, outputs)) return cudaErrorInvalidValue;
  // Three panels where four would leave more of the last tile empty.
  const bool narrow = (outputs + 191) / 192 * 192 < (outputs + 255) / 256 * 256;
  const auto run = narrow ? launch<3> : launch<4>;
  return run(maps, static_cast<const __nv_bfloat16*>(x), static_cast<__nv_bfloat16*>(y), static_cast<const int*>(ends),
             groups, tokens, inputs, outputs, limit, static_cast<cudaStream_t>(stream));
}
