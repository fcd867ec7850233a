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
constexpr int kTileI = kCluster * kHalfInputs;
constexpr int kStages = 4;
constexpr int kGradBytes = kTileN * kRowBytes;
constexpr int kHalfBytes = edge::kFeatures * kHalfInputs * kRowBytes;
constexpr int kStageBytes = kGradBytes + kCluster * kHalfBytes;
constexpr int kSharedBytes = kStages * kStageBytes + kSwizzleBytes;  // and what aligning the start may cost
constexpr int kStepBytes = 32;   // sixteen outputs
constexpr int kBand = 8;         // tiles of rows that go together through all inputs, so that both stay in the cache

struct Maps {
  CUtensorMap grad, weight;
};

struct Sizes {
  int groups, tokens, inputs, outputs;
};

struct Tile {
  edge::Rows rows;
  int input;  // the first
};

// The cluster's tile of this number; false beyond the last. Tiles without rows are left out by the caller.
__device__ __forceinline__ bool find_tile(const int* ends, const Sizes& sizes, int number, Tile& tile) {
  const int row_tiles =
      (sizes.tokens + kCluster * kTileN - 1) / (kCluster * kTileN) + sizes.groups;
  const int input_tiles = (sizes.inputs + kTileI - 1) / kTileI;
  if (number >= row_tiles * input_tiles) return false;
  const int band = number / (kBand * input_tiles), within = number % (kBand * input_tiles);
  const int height = min(kBand, row_tiles - band * kBand);
  tile.rows = edge::find_rows(ends, sizes.groups, sizes.tokens, band * kBand + within % height, kCluster * kTileN);
  tile.input = within / height * kTileI;
  return true;
}

__device__ void load_stages(const Maps& maps, const int* ends, uint8_t* stages, uint64_t* full, uint64_t* empty,
                            const Sizes& sizes) {
  const int mine = static_cast<int>(block_in_cluster());
  const int count = (sizes.outputs + kPanel - 1) / kPanel;
  Ring<kStages> ring;
  Tile tile;
  for (int number = blockIdx.x / kCluster; find_tile(ends, sizes, number, tile); number += gridDim.x / kCluster) {
    if (tile.rows.first >= tile.rows.last) continue;
    for (int t = 0; t < count; ++t, ring.advance()) {
      uint64_t* barrier = &full[ring.stage];
      barrier_wait(&empty[ring.stage], (ring.round + 1) & 1);
      barrier_expect(barrier, kStageBytes);
      uint8_t* place = stages + ring.stage * kStageBytes;
      load_2d(place, &maps.grad, barrier, t * kPanel, tile.rows.first + mine * kTileN);
      load_3d_all(place + kGradBytes + mine * kHalfBytes, &maps.weight, barrier, t * kPanel,
                  tile.input + mine * kHalfInputs, edge::kFeatures * tile.rows.group);
    }
  }
}

// The slopes of the four live bases at x, over four features whose gradients a thread holds: the part of dx that is the
// splines'. Of features r and r + 4 one is live; value q of basis m + q belongs to r = (m + q) mod 4.
__device__ __forceinline__ float contract(const float (&grad)[edge::kFeatures], float x, float limit, float scale) {
  const float u = fminf(fmaxf((x + limit) * scale, 0.0f), 5.0f);
  const float m = fminf(floorf(u), 4.0f);
  const float f = u - m, g = 1.0f - f;
  const int index = static_cast<int>(m);
  // Twice the slopes; they add up to nothing.
  const float s0 = -g * g, s3 = f * f;
  const float s1 = f * fmaf(3.0f, f, -4.0f), s2 = -g * fmaf(3.0f, g, -4.0f);
  const bool odd = index & 1, far = index & 2;
  const float a0 = odd ? s3 : s0, a1 = odd ? s0 : s1, a2 = odd ? s1 : s2, a3 = odd ? s2 : s3;
  const float b0 = far ? a2 : a0, b1 = far ? a3 : a1, b2 = far ? a0 : a2, b3 = far ? a1 : a3;
  float total = b0 * (index > 0 ? grad[4] : grad[0]);
  total = fmaf(b1, index > 1 ? grad[5] : grad[1], total);
  total = fmaf(b2, index > 2 ? grad[6] : grad[2], total);
  total = fmaf(b3, index > 3 ? grad[7] : grad[3], total);
  const float of_spline = fabsf(x) <= limit ? total * (0.5f * scale) : 0.0f;
  const float gate = sigmoid(x);
  return fmaf(grad[8], gate * fmaf(x, 1.0f - gate, 1.0f), of_spline);
}

// Write one row's inputs: in each half of a tile two pairs, eight apart.
__device__ __forceinline__ void write_row(const float (&d)[kCluster][72], int below, const __nv_bfloat16* x,
                                          __nv_bfloat16* out, int inputs, int input, float limit, float scale) {
#pragma unroll
  for (int part = 0; part < 2 * kCluster; ++part) {
    const int i = input + part * 8;
    if (i >= inputs) continue;
    const uint32_t both = *reinterpret_cast<const uint32_t*>(x + i);
    float found[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float grad[edge::kFeatures];
#pragma unroll
      for (int j = 0; j < edge::kFeatures; ++j) grad[j] = d[part / 2][(2 * j + part % 2) * 4 + 2 * below + e];
      found[e] = contract(grad, e ? high_half(both) : low_half(both), limit, scale);
    }
    *reinterpret_cast<uint32_t*>(out + i) = pair(found[0], found[1]);
  }
}

__device__ void compute(const __nv_bfloat16* x, __nv_bfloat16* out, const int* ends, const uint8_t* stages,
                        uint64_t* full, uint64_t* empty, const Sizes& sizes, float limit) {
  const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) & 3, warpgroup = threadIdx.x / kGroupThreads - 1;
  const int count = (sizes.outputs + kPanel - 1) / kPanel;
  const float scale = 2.5f / limit;
  Ring<kStages> ring;
  Tile tile;
  float d[kCluster][72];
  for (int number = blockIdx.x / kCluster; find_tile(ends, sizes, number, tile); number += gridDim.x / kCluster) {
    if (tile.rows.first >= tile.rows.last) continue;
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
      if (t > 0) release(&empty[before]);
      before = ring.stage;
      ring.advance();
    }
    products_wait<0>();
    settle(d[0]);
    settle(d[1]);
    release(&empty[before]);
    const int row = tile.rows.first + static_cast<int>(block_in_cluster()) * kTileN + warpgroup * 64 + warp * 16;
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      const int mine = row + lane / 4 + 8 * below;
      const int64_t start = static_cast<int64_t>(mine) * sizes.inputs;
      if (mine < tile.rows.last)
        write_row(d, below, x + start, out + start, sizes.inputs, tile.input + (lane & 3) * 2, limit, scale);
    }
  }
}

__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    input_gradient_kernel(const __grid_constant__ Maps maps, const __nv_bfloat16* __restrict__ x,
                          __nv_bfloat16* __restrict__ out, const int* __restrict__ ends, Sizes sizes, float limit) {
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t full[kStages], empty[kStages];
  uint8_t* stages = raw + (kSwizzleBytes - shared_address(raw) % kSwizzleBytes) % kSwizzleBytes;
  init_barriers<kStages>(full, empty);
  if (threadIdx.x < kGroupThreads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;\n");
    if (threadIdx.x == 0) load_stages(maps, ends, stages, full, empty, sizes);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;\n");
    compute(x, out, ends, stages, full, empty, sizes, limit);
  }
  // Nobody leaves while a neighbour may still write here.
  __syncwarp();
  cluster_sync();
}

bool encode_all(Maps* maps, const void* grad, const void* weight, const Sizes& sizes) {
  const cuuint64_t o = sizes.outputs, i = sizes.inputs, n = sizes.tokens;
  const cuuint64_t weights = sizes.groups > 0 ? sizes.groups : 1;
  const cuuint64_t grad_sizes[2] = {o, n}, grad_strides[1] = {2 * o};
  const cuuint32_t grad_box[2] = {kPanel, kTileN};
  const cuuint64_t weight_sizes[3] = {o, i, edge::kFeatures * weights}, weight_strides[2] = {2 * o, 2 * o * i};
  const cuuint32_t weight_box[3] = {kPanel, kHalfInputs, edge::kFeatures};
  return encode<2>(&maps->grad, grad, grad_sizes, grad_strides, grad_box) &&
         encode<3>(&maps->weight, weight, weight_sizes, weight_strides, weight_box);
}

}  // namespace

// dx (N, I) of x (N, I), weight (9, I, O) and dy (N, O), on [-limit, limit], all bfloat16 and contiguous, on `stream`,
// by `blocks` multiprocessors. With groups E > 0 the weight is (E, 9, I, O), and rows of group e end before ends[e],
// int32 on the device. Gives CUDA's error code, 0 for none; 1 (invalid value) where the driver cannot describe them.
extern "C" int kanctl_edge_input_gradient(const void* x, const void* weight, const void* grad, void* out,
                                          const void* ends, int groups, int tokens, int inputs, int outputs,
                                          float limit, int blocks, void* stream) {
  const Sizes sizes{groups, tokens, inputs, outputs};
  Maps maps;
  if (!encode_all(&maps, grad, weight, sizes)) return cudaErrorInvalidValue;
  const cudaError_t error =
      cudaFuncSetAttribute(input_gradient_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  const int tiles = edge::most_tiles(tokens, groups, kCluster * kTileN) * ((inputs + kTileI - 1) / kTileI);
  const int clusters = tiles < blocks / kCluster ? tiles : blocks / kCluster;
  input_gradient_kernel<<<clusters * kCluster, kThreads, kSharedBytes, static_cast<cudaStream_t>(stream)>>>(
      maps, static_cast<const __nv_bfloat16*>(x), static_cast<__nv_bfloat16*>(out), static_cast<const int*>(ends),
      sizes, limit);
  return cudaGetLastError();
}
