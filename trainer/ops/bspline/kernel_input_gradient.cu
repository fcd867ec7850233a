// The edge layer's gradient of its inputs on Hopper's tensor cores, for splines with five cells.
//
//     dx_ni = sum over j of (sum over o of dy_no w_jio) times the slope of feature j at x_ni
//
// A block multiplies 128 rows of dy with the weights of 32 inputs, all nine features at once, so that every thread ends
// with all features of its inputs, and contracts them with their slopes in registers. Blocks stay and take tile after
// tile; the next tile's loads run while one is contracted. README.md has the mathematics.

#include "edge.cuh"

namespace {

using namespace hopper;

constexpr int kTileN = 128;      // rows of a block: two warpgroups of 64
constexpr int kHalfInputs = 16;  // inputs of one product, and what one block of the cluster loads
constexpr int kCluster = 2;      // blocks that share weights; of four only 120 of 132 multiprocessors find room
constexpr int kHalves = 2;
constexpr int kTileI = kHalves * kHalfInputs;
constexpr int kStages = 4;
constexpr int kGradBytes = kTileN * kRowBytes;
constexpr int kHalfBytes = edge::kFeatures * kHalfInputs * kRowBytes;
constexpr int kStageBytes = kGradBytes + kHalves * kHalfBytes;
constexpr int kSharedBytes = kStages * kStageBytes + kSwizzleBytes;  // and what aligning the start may cost
constexpr int kStepBytes = 32;   // sixteen outputs
constexpr int kBand = 8;         // tiles of rows that go together through all inputs, so that both stay in the cache

struct Maps {
  CUtensorMap grad, weight;
};

__device__ void load_stages(const Maps& maps, edge::Walk<kCluster> walk, uint8_t* stages, uint64_t* full, uint64_t* empty,
                            int count) {
  const int mine = static_cast<int>(block_in_cluster());
  constexpr uint16_t kAll = (1 << kCluster) - 1;
  const auto own = static_cast<uint16_t>(1 << mine);
  Ring<kStages> ring;
  for (edge::Tile tile; walk.next(tile);) {
    const int input = tile.column * kTileI + mine * kHalfInputs;
    for (int t = 0; t < count; ++t, ring.advance()) {
      uint64_t* barrier = &full[ring.stage];
      barrier_wait(&empty[ring.stage], (ring.round + 1) & 1);
      barrier_expect(barrier, kStageBytes);
      uint8_t* place = stages + ring.stage * kStageBytes;
      // Own rows of dy, and half of the weights for both blocks.
      load_2d(place, &maps.grad, barrier, t * kPanel, tile.rows.first + mine * kTileN, own);
      load_3d(place + kGradBytes + mine * kHalfBytes, &maps.weight, barrier, t * kPanel, input,
              edge::kFeatures * tile.rows.group, kAll);
    }
  }
}

// The slopes of the four live bases at x, over four features whose gradients a thread holds: the part of dx that is the
// splines'. Of features r and r + 4 one is live; value q of basis m + q belongs to r = (m + q) mod 4.
__device__ __forceinline__ float contract(const float (&grad)[edge::kFeatures], float x, float limit, float scale) {
  uint32_t index;
  const float f = edge::find_place(x, 0.2f * scale, index), g = 1.0f - f;
  // Twice the slopes; they add up to nothing.
  const float s0 = -g * g, s3 = f * f;
  const float s1 = f * fmaf(3.0f, f, -4.0f), s2 = -g * fmaf(3.0f, g, -4.0f);
  const bool odd = index & 1, far = index & 2;
  const float a0 = odd ? s3 : s0, a1 = odd ? s0 : s1, a2 = odd ? s1 : s2, a3 = odd ? s2 : s3;
  const float b0 = far ? a2 : a0, b1 = far ? a3 : a1, b2 = far ? a0 : a2, b3 = far ? a1 : a3;
  float total = b0 * (index > edge::kZero ? grad[4] : grad[0]);
  total = fmaf(b1, index > edge::kZero + 1 ? grad[5] : grad[1], total);
  total = fmaf(b2, index > edge::kZero + 2 ? grad[6] : grad[2], total);
  total = fmaf(b3, index > edge::kZero + 3 ? grad[7] : grad[3], total);
  const float of_spline = fabsf(x) <= limit ? total * (0.5f * scale) : 0.0f;
  const float gate = sigmoid(x);
  return fmaf(grad[8], gate * fmaf(x, 1.0f - gate, 1.0f), of_spline);
}

// A row's inputs that a thread has: pairs eight apart. Loaded before the products, so that nobody waits for them.
using Pairs = uint32_t[2 * kHalves];

__device__ __forceinline__ void load_pairs(const __nv_bfloat16* x, int inputs, int input, Pairs& pairs) {
#pragma unroll
  for (int part = 0; part < 2 * kHalves; ++part) {
    const int i = input + part * 8;
    pairs[part] = i < inputs ? *reinterpret_cast<const uint32_t*>(x + i) : 0u;
  }
}

// Contract a row's features with their slopes; four lanes have the row, and write eight inputs each.
__device__ __forceinline__ void write_row(const float (&d)[kHalves][72], int below, const Pairs& pairs,
                                          __nv_bfloat16* out, bool is_there, int inputs, int input, float limit,
                                          float scale) {
  uint32_t words[2 * kHalves];
#pragma unroll
  for (int part = 0; part < 2 * kHalves; ++part) {
    float found[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float grad[edge::kFeatures];
#pragma unroll
      for (int j = 0; j < edge::kFeatures; ++j) grad[j] = d[part / 2][(2 * j + part % 2) * 4 + 2 * below + e];
      found[e] = contract(grad, e ? high_half(pairs[part]) : low_half(pairs[part]), limit, scale);
    }
    words[part] = pair(found[0], found[1]);
  }
  const uint4 found = exchange(make_uint4(words[0], words[1], words[2], words[3]));
  const int i = input + static_cast<int>(threadIdx.x & 3) * 8;
  if (is_there && i < inputs) *reinterpret_cast<uint4*>(out + i) = found;
}

__device__ __forceinline__ void accumulate(float (&d)[kHalves][72], const uint8_t* stages, uint64_t* full,
                                           uint64_t* empty, Ring<kStages>& ring, int count) {
  const int warpgroup = threadIdx.x / kGroupThreads - 1;
  int before = 0;
  for (int t = 0; t < count; ++t) {
    const uint8_t* place = stages + ring.stage * kStageBytes;
    const uint64_t a = describe_along(place + warpgroup * 64 * kRowBytes);
    const uint64_t b0 = describe_along(place + kGradBytes), b1 = describe_along(place + kGradBytes + kHalfBytes);
    barrier_wait(&full[ring.stage], ring.round & 1);
    products_begin();
#pragma unroll
    for (int step = 0; step < kPanel / 16; ++step) {
      const int on = step * kStepBytes >> 4;
      multiply_shared(d[0], a + on, b0 + on, t + step);
      multiply_shared(d[1], a + on, b1 + on, t + step);
    }
    products_commit();
    products_wait<1>();
    // What the stage before held is read.
    if (t > 0) release<kCluster>(&empty[before]);
    before = ring.stage;
    ring.advance();
  }
  products_wait<0>();
  settle(d[0]);
  settle(d[1]);
  release<kCluster>(&empty[before]);
}

// Where all of a tile's stages lie in shared memory, the warpgroups multiply in turn: one contracts meanwhile.
__device__ __forceinline__ void await_turn(int warpgroup, bool in_turn) {
  if (in_turn) asm volatile("bar.sync %0, 256;" ::"r"(1 + warpgroup) : "memory");
}

__device__ __forceinline__ void give_turn(int warpgroup, bool in_turn) {
  if (in_turn) asm volatile("bar.arrive %0, 256;" ::"r"(2 - warpgroup) : "memory");
}

__device__ void compute(const __nv_bfloat16* x, __nv_bfloat16* out, edge::Walk<kCluster> walk, const uint8_t* stages,
                        uint64_t* full, uint64_t* empty, int inputs, int count, float limit) {
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, warpgroup = threadIdx.x / kGroupThreads - 1;
  const int mine = static_cast<int>(block_in_cluster()) * kTileN + warpgroup * 64 + warp * 16 + lane / 4;
  const float scale = 2.5f / limit;
  const bool in_turn = count <= kStages;
  Ring<kStages> ring;
  float d[kHalves][72];
  if (warpgroup == 1) give_turn(1, in_turn);
  for (edge::Tile tile; walk.next(tile);) {
    const int row = tile.rows.first + mine, input = tile.column * kTileI;
    Pairs pairs[2];
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      const int there = min(row + 8 * below, tile.rows.last - 1);
      load_pairs(x + static_cast<int64_t>(there) * inputs, inputs, input + (lane & 3) * 2, pairs[below]);
    }
    await_turn(warpgroup, in_turn);
    accumulate(d, stages, full, empty, ring, count);
    give_turn(warpgroup, in_turn);
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      const int there = row + 8 * below;
      write_row(d, below, pairs[below], out + static_cast<int64_t>(there) * inputs, there < tile.rows.last, inputs,
                input, limit, scale);
    }
  }
  // The other's last word, so that the barrier is even again.
  if (warpgroup == 0) await_turn(0, in_turn);
}

__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    input_gradient_kernel(const __grid_constant__ Maps maps, const __nv_bfloat16* __restrict__ x,
                          __nv_bfloat16* __restrict__ out, const int* __restrict__ ends,
                          const __grid_constant__ edge::Tiles tiles, int inputs, int outputs, float limit) {
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t full[kStages], empty[kStages];
  uint8_t* stages = align_stages(raw);
  const int count = (outputs + kPanel - 1) / kPanel;
  init_barriers<kStages, kCluster>(full, empty);
  if (threadIdx.x < kGroupThreads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;\n");
    if (threadIdx.x == 0) load_stages(maps, edge::Walk<kCluster>(tiles, ends), stages, full, empty, count);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 224;\n");
    compute(x, out, edge::Walk<kCluster>(tiles, ends), stages, full, empty, inputs, count, limit);
  }
  // Nobody leaves while a neighbour may still write here.
  __syncwarp();
  cluster_sync();
}

bool encode_all(Maps* maps, const void* grad, const void* weight, cuuint64_t weights, cuuint64_t n, cuuint64_t i,
                cuuint64_t o) {
  const cuuint64_t grad_sizes[2] = {o, n}, grad_strides[1] = {2 * o};
  const cuuint32_t grad_box[2] = {kPanel, kTileN};
  const cuuint64_t weight_sizes[3] = {o, i, edge::kFeatures * weights}, weight_strides[2] = {2 * o, 2 * o * i};
  const cuuint32_t weight_box[3] = {kPanel, kHalfInputs, edge::kFeatures};
  return encode<2>(&maps->grad, grad, grad_sizes, grad_strides, grad_box) &&
         encode<3>(&maps->weight, weight, weight_sizes, weight_strides, weight_box);
}

}  // namespace

// dx (N, I) of x (N, I), weight (9, I, O) and dy (N, O), on [-limit, limit], all bfloat16 and contiguous, on
// `stream`. With groups E > 0 the weight is (E, 9, I, O), and rows of group e end before ends[e], int32 on the device.
// Gives CUDA's error code, 0 for none; 1 (invalid value) where the driver cannot describe the tensors.
extern "C" int kanctl_edge_input_gradient(const void* x, const void* weight, const void* grad, void* out,
                                          const void* ends, int groups, int tokens, int inputs, int outputs,
                                          float limit, void* stream) {
  const cudaError_t unready = use_device();
  if (unready != cudaSuccess) return unready;
  Maps maps;
  if (!encode_all(&maps, grad, weight, groups > 0 ? groups : 1, tokens, inputs, outputs)) return cudaErrorInvalidValue;
  const cudaError_t error =
      cudaFuncSetAttribute(input_gradient_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  const edge::Tiles tiles{groups, tokens, kCluster * kTileN, (inputs + kTileI - 1) / kTileI, kBand};
  const int clusters = min(tiles.count(), resident_clusters<input_gradient_kernel>(kSharedBytes));
  input_gradient_kernel<<<clusters * kCluster, kThreads, kSharedBytes, static_cast<cudaStream_t>(stream)>>>(
      maps, static_cast<const __nv_bfloat16*>(x), static_cast<__nv_bfloat16*>(out), static_cast<const int*>(ends),
      tiles, inputs, outputs, limit);
  return cudaGetLastError();
}
