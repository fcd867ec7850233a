// The edge layer's gradient of its weight on Hopper's tensor cores, for splines with five cells.
//
//     dw_jio = sum over n of feature j at x_ni times dy_no
//
// A product's rows are features: eight inputs with eight bases each, or 64 inputs with SiLU. Every thread makes all
// features of two inputs of one token, writes them as two rows of a small matrix, and reads them back transposed as the
// operand in registers. dy comes through the copy engine, once for two blocks. README.md has the mathematics.

#include "edge.cuh"

namespace {

using namespace hopper;

constexpr int kStageTokens = 128;
constexpr int kStepTokens = 64;                          // of which features are made at a time
constexpr int kGradBytes = kStageTokens * kRowBytes;     // a panel of dy
constexpr int kMatrixBytes = 8 * 16;                     // eight tokens of one input's features
constexpr int kScratchBytes = 16 * kMatrixBytes;         // of a warp: two inputs, all tokens of a step
constexpr int kWarps = 8;
constexpr int kCluster = 2;  // blocks that share dy; four wait for each other more than they save

// What a block works on: bases of 16 inputs, or SiLU of 128.
template <bool kIsSilu>
struct Kind {
  static constexpr int kInputs = kIsSilu ? 128 : 16;
  static constexpr int kInputBytes = kStageTokens * kInputs * 2;
};

// As many stages as fit: many let the blocks of a cluster run apart.
constexpr int kRoom = 204 << 10;
constexpr int kMostStages = 8;
constexpr int kSharedBytes = kRoom + kWarps * kScratchBytes + kSwizzleBytes;

template <bool kIsSilu, int kPanels>
struct Shape {
  static constexpr int kUsedBytes = kPanels * kGradBytes + Kind<kIsSilu>::kInputBytes;
  static constexpr int kStageBytes = (kUsedBytes + kSwizzleBytes - 1) / kSwizzleBytes * kSwizzleBytes;
  static constexpr int kStages = kRoom / kStageBytes < kMostStages ? kRoom / kStageBytes : kMostStages;
};

struct Maps {
  CUtensorMap grad, narrow, wide;  // dy; x in boxes of 16 inputs; of 64
};

struct Sizes {
  int groups, parts, tokens, inputs, outputs;
};

// The tokens of a part: those of a group, or an even share, in whole stages.
struct Span {
  int first, last;
};

__device__ __forceinline__ Span find_span(const int* ends, const Sizes& sizes, int part) {
  if (sizes.groups > 0) return {part > 0 ? ends[part - 1] : 0, ends[part]};
  const int stages = (sizes.tokens + kStageTokens - 1) / kStageTokens;
  const int each = (stages + sizes.parts - 1) / sizes.parts * kStageTokens;
  return {min(part * each, sizes.tokens), min((part + 1) * each, sizes.tokens)};
}

template <bool kIsSilu, int kPanels>
__device__ void load_stages(const Maps& maps, uint8_t* stages, uint64_t* full, uint64_t* empty, const Span& span,
                            int input, int output) {
  using S = Shape<kIsSilu, kPanels>;
  const int mine = static_cast<int>(block_in_cluster());
  constexpr uint16_t kAll = (1 << kCluster) - 1;
  const auto own = static_cast<uint16_t>(1 << mine);
  Ring<S::kStages> ring;
  int turn = 0;
  for (int token = span.first; token < span.last; token += kStageTokens, ring.advance()) {
    uint64_t* barrier = &full[ring.stage];
    barrier_wait(&empty[ring.stage], (ring.round + 1) & 1);
    barrier_expect(barrier, S::kUsedBytes);
    uint8_t* place = stages + ring.stage * S::kStageBytes;
    // The blocks of the cluster load the panels in turn, each for all.
    for (int panel = 0; panel < kPanels; ++panel, ++turn)
      if (turn % kCluster == mine)
        load_2d(place + panel * kGradBytes, &maps.grad, barrier, output + panel * kPanel, token, kAll);
    uint8_t* of_inputs = place + kPanels * kGradBytes;
    if (kIsSilu) {
      load_2d(of_inputs, &maps.wide, barrier, input, token, own);
      load_2d(of_inputs + kStageTokens * kRowBytes, &maps.wide, barrier, input + kPanel, token, own);
    } else {
      load_2d(of_inputs, &maps.narrow, barrier, input, token, own);
    }
  }
}

// The eight bases at x, six times, as four pairs of bfloat16.
__device__ __forceinline__ uint4 bases(float x, float limit, float inverse) {
  uint32_t outer, inner, index;
  edge::live_bases(x, inverse, outer, inner, index);
  // The live ones are in order from place m on, with nothing before and behind.
  const uint32_t skipped = index * 8 - edge::kZero * 8;
  const uint32_t first = edge::order_inside(__funnelshift_lc(edge::kNone, edge::kInOrder, skipped), x, limit);
  const uint32_t second = edge::order_inside(__funnelshift_lc(edge::kInOrder, edge::kNone, skipped), x, limit);
  return make_uint4(permute(outer, inner, first), permute(outer, inner, first >> 16), permute(outer, inner, second),
                    permute(outer, inner, second >> 16));
}

__device__ __forceinline__ uint32_t silu_pair(uint32_t both) {
  const float half_x = 0.5f * low_half(both), half_y = 0.5f * high_half(both);
  return pair(fmaf(half_x, tanh_fast(half_x), half_x), fmaf(half_y, tanh_fast(half_y), half_y));
}

// This lane's token of 32, of which it writes two rows of eight features: of two inputs, or of twice eight inputs.
template <bool kIsSilu>
__device__ __forceinline__ void make_features(const uint8_t* inputs, int token, bool counts, int warp, float limit,
                                              float inverse, uint4 (&rows)[2]) {
  if (kIsSilu) {
    // Warpgroup w has the 64 inputs of box w; chunks of 16 bytes lie swizzled by the row.
    const uint8_t* row = inputs + (warp / 4) * (kStageTokens * kRowBytes) + token * kRowBytes;
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const uint4 x = *reinterpret_cast<const uint4*>(row + ((((warp % 4) * 2 + s) ^ (token & 7)) << 4));
      rows[s] = make_uint4(silu_pair(x.x), silu_pair(x.y), silu_pair(x.z), silu_pair(x.w));
      if (!counts) rows[s] = make_uint4(0u, 0u, 0u, 0u);
    }
  } else {
    // Rows of 32 bytes, their halves swizzled by every fourth row.
    const int place = token * 32 + ((warp * 4) ^ ((token & 4) << 2));
    // A token that does not count lies far outside the grid.
    const uint32_t given = *reinterpret_cast<const uint32_t*>(inputs + place), both = counts ? given : 0x7f7f7f7fu;
    rows[0] = bases(low_half(both), limit, inverse);
    rows[1] = bases(high_half(both), limit, inverse);
  }
}

// Rows of tokens, in a small matrix of this warp; and from it operands of 16 tokens each: rows of features.
// Matrix (s, g) is of row s, tokens 8 g to 8 g + 7.
__device__ __forceinline__ void keep_rows(uint8_t* scratch, int lane, const uint4 (&rows)[2][2]) {
  // The last stage's are read by all lanes.
  __syncwarp();
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int s = 0; s < 2; ++s)
      *reinterpret_cast<uint4*>(scratch + (s * 8 + half * 4) * kMatrixBytes + lane * 16) = rows[half][s];
  __syncwarp();
}

__device__ __forceinline__ void load_operands(const uint8_t* scratch, int lane, uint32_t (&a)[4][4]) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int matrix = ((lane / 8) & 1) * 8 + 2 * k + lane / 16;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[k][0]), "=r"(a[k][1]), "=r"(a[k][2]), "=r"(a[k][3])
                 : "r"(shared_address(scratch + matrix * kMatrixBytes + (lane & 7) * 16))
                 : "memory");
  }
}

template <bool kIsSilu, int kPanels>
__device__ __forceinline__ void accumulate(float (&d)[kPanels * 32], uint8_t* stages, uint8_t* scratch, uint64_t* full,
                                           uint64_t* empty, const Span& span, float limit) {
  using S = Shape<kIsSilu, kPanels>;
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32 - kGroupThreads / 32;
  const float inverse = 0.5f / limit;
  const uint64_t grads = describe_across(stages, kGradBytes);
  Ring<S::kStages> ring;
  int before = 0;
  for (int token = span.first; token < span.last; token += kStageTokens) {
    const uint8_t* inputs = stages + ring.stage * S::kStageBytes + kPanels * kGradBytes;
    const uint64_t of_stage = grads + ring.stage * (S::kStageBytes / kDescribedBytes);
    barrier_wait(&full[ring.stage], ring.round & 1);
#pragma unroll
    for (int step = 0; step < kStageTokens; step += kStepTokens) {
      if (step > 0 && token + step >= span.last) break;
      // Features are made while the products of the last step run.
      uint4 rows[2][2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int mine = step + half * 32 + lane;
        make_features<kIsSilu>(inputs, mine, token + mine < span.last, warp, limit, inverse, rows[half]);
      }
      keep_rows(scratch, lane, rows);
      products_wait<0>();
      if (step == 0 && token > span.first) release<kCluster>(&empty[before]);
      uint32_t a[4][4];
      load_operands(scratch, lane, a);
      products_begin();
#pragma unroll
      for (int k = 0; k < 4; ++k) multiply(d, a[k], of_stage + (step + k * 16) * (kRowBytes / kDescribedBytes));
      products_commit();
    }
    before = ring.stage;
    ring.advance();
  }
  products_wait<0>();
  settle(d);
}

// Four lanes have a row's sums: in bfloat16 they write eight outputs each, in float32 two.
template <int kPanels>
__device__ __forceinline__ void write_row(const float (&d)[kPanels * 32], int s, float factor, __nv_bfloat16* row,
                                          bool is_there, int output, int outputs) {
#pragma unroll
  for (int c = 0; c < kPanels * 8; c += 4) {
    uint32_t words[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) words[e] = pair(d[4 * (c + e) + 2 * s] * factor, d[4 * (c + e) + 2 * s + 1] * factor);
    const uint4 found = exchange(make_uint4(words[0], words[1], words[2], words[3]));
    const int o = output + (c + static_cast<int>(threadIdx.x & 3)) * 8;
    if (is_there && o < outputs) *reinterpret_cast<uint4*>(row + o) = found;
  }
}

template <int kPanels>
__device__ __forceinline__ void write_row(const float (&d)[kPanels * 32], int s, float factor, float* row,
                                          bool is_there, int output, int outputs) {
#pragma unroll
  for (int c = 0; c < kPanels * 8; ++c) {
    const int o = output + c * 8 + static_cast<int>(threadIdx.x & 3) * 2;
    const float2 both = make_float2(d[4 * c + 2 * s] * factor, d[4 * c + 2 * s + 1] * factor);
    if (is_there && o < outputs) *reinterpret_cast<float2*>(row + o) = both;
  }
}

// out (9, I, O) of one part: slice j of it, in rows of features.
template <bool kIsSilu, int kPanels, typename Out>
__device__ __forceinline__ void write(const float (&d)[kPanels * 32], Out* out, const Sizes& sizes, int input,
                                      int output) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32 - kGroupThreads / 32;
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    const int i = kIsSilu ? input + warp * 16 + s * 8 + lane / 4 : input + warp * 2 + s;
    const int j = kIsSilu ? edge::kBases : lane / 4;
    Out* row = out + (static_cast<int64_t>(j) * sizes.inputs + i) * sizes.outputs;
    write_row<kPanels>(d, s, kIsSilu ? 1.0f : edge::kSixth, row, i < sizes.inputs, output, sizes.outputs);
  }
}

template <bool kIsSilu, int kPanels, typename Out>
__device__ __forceinline__ void run(const Maps& maps, Out* out, uint8_t* stages, uint64_t* full, uint64_t* empty,
                                    const Span& span, const Sizes& sizes, int tile, int output, float limit) {
  const int input = tile * Kind<kIsSilu>::kInputs;
  if (threadIdx.x < kGroupThreads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;\n");
    if (threadIdx.x == 0) load_stages<kIsSilu, kPanels>(maps, stages, full, empty, span, input, output);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;\n");
    uint8_t* scratch = stages + kRoom + (threadIdx.x / 32 - kGroupThreads / 32) * kScratchBytes;
    float d[kPanels * 32];
#pragma unroll
    for (int k = 0; k < kPanels * 32; ++k) d[k] = 0.0f;
    accumulate<kIsSilu, kPanels>(d, stages, scratch, full, empty, span, limit);
    write<kIsSilu, kPanels>(d, out, sizes, input, output);
  }
}

template <int kPanels, typename Out>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    weight_gradient_kernel(const __grid_constant__ Maps maps, Out* __restrict__ out, const int* __restrict__ ends,
                           Sizes sizes, int spline_tiles, float limit) {
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t full[kMostStages], empty[kMostStages];
  uint8_t* stages = align_stages(raw);
  const Span span = find_span(ends, sizes, blockIdx.z);
  const int tile = blockIdx.x, output = blockIdx.y * kPanels * kPanel;
  out += static_cast<int64_t>(blockIdx.z) * edge::kFeatures * sizes.inputs * sizes.outputs;
  init_barriers<kMostStages, kCluster>(full, empty);
  // The same for the whole cluster: spline_tiles is a multiple of its blocks.
  if (tile < spline_tiles)
    run<false, kPanels>(maps, out, stages, full, empty, span, sizes, tile, output, limit);
  else
    run<true, kPanels>(maps, out, stages, full, empty, span, sizes, tile - spline_tiles, output, limit);
  // Nobody leaves while a neighbour may still write here.
  __syncwarp();
  cluster_sync();
}

// The parts' sum in their order, four values at a time.
__global__ void sum_kernel(const float4* __restrict__ parts, uint2* __restrict__ out, int count, int64_t quads) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= quads) return;
  float4 total = parts[i];
  for (int part = 1; part < count; ++part) {
    const float4 more = parts[part * quads + i];
    total.x += more.x;
    total.y += more.y;
    total.z += more.z;
    total.w += more.w;
  }
  out[i] = make_uint2(pair(total.x, total.y), pair(total.z, total.w));
}

// ---- on the host --------------------------------------------------------------------------------------------------

bool encode_all(Maps* maps, const void* x, const void* grad, const Sizes& sizes) {
  const cuuint64_t o = sizes.outputs, i = sizes.inputs, n = sizes.tokens;
  const cuuint64_t grad_sizes[2] = {o, n}, grad_strides[1] = {2 * o};
  const cuuint32_t grad_box[2] = {kPanel, kStageTokens};
  const cuuint64_t input_sizes[2] = {i, n}, input_strides[1] = {2 * i};
  const cuuint32_t narrow_box[2] = {Kind<false>::kInputs, kStageTokens}, wide_box[2] = {kPanel, kStageTokens};
  return encode<2>(&maps->grad, grad, grad_sizes, grad_strides, grad_box) &&
         encode<2>(&maps->narrow, x, input_sizes, input_strides, narrow_box, CU_TENSOR_MAP_SWIZZLE_32B) &&
         encode<2>(&maps->wide, x, input_sizes, input_strides, wide_box);
}

template <int kPanels, typename Out>
cudaError_t launch(const Maps& maps, void* out, const int* ends, const Sizes& sizes, float limit,
                   cudaStream_t stream) {
  const auto kernel = weight_gradient_kernel<kPanels, Out>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  const int spline_clusters = (sizes.inputs + kCluster * Kind<false>::kInputs - 1) / (kCluster * Kind<false>::kInputs);
  const int silu_clusters = (sizes.inputs + kCluster * Kind<true>::kInputs - 1) / (kCluster * Kind<true>::kInputs);
  const int columns = (sizes.outputs + kPanels * kPanel - 1) / (kPanels * kPanel);
  const dim3 grid((spline_clusters + silu_clusters) * kCluster, columns, sizes.parts);
  kernel<<<grid, kThreads, kSharedBytes, stream>>>(maps, static_cast<Out*>(out), ends, sizes,
                                                   spline_clusters * kCluster, limit);
  return cudaGetLastError();
}

}  // namespace

// dw of x (N, I) and dy (N, O), on [-limit, limit], all bfloat16 and contiguous, on `stream`: (9, I, O).
// With S > 1 parts each has a share of the tokens, and `parts_out` is room for (S, 9, I, O) in float32.
// With groups E > 0 dw is (E, 9, I, O), S is E, and rows of group e end before ends[e], int32 on the device.
// Gives CUDA's error code, 0 for none; 1 (invalid value) where the driver cannot describe the tensors.
extern "C" int kanctl_edge_weight_gradient(const void* x, const void* grad, void* out, void* parts_out,
                                           const void* ends, int groups, int parts, int tokens, int inputs,
                                           int outputs, float limit, void* stream) {
  const Sizes sizes{groups, parts, tokens, inputs, outputs};
  const cudaError_t unready = use_device();
  if (unready != cudaSuccess) return unready;
  Maps maps;
  if (!encode_all(&maps, x, grad, sizes)) return cudaErrorInvalidValue;
  const bool narrow = (outputs + 191) / 192 * 192 < (outputs + 255) / 256 * 256;
  const auto on = static_cast<cudaStream_t>(stream);
  const auto* of_groups = static_cast<const int*>(ends);
  if (groups > 0 || parts == 1) {
    const auto run = narrow ? launch<3, __nv_bfloat16> : launch<4, __nv_bfloat16>;
    return run(maps, out, of_groups, sizes, limit, on);
  }
  const auto run = narrow ? launch<3, float> : launch<4, float>;
  const cudaError_t error = run(maps, parts_out, of_groups, sizes, limit, on);
  if (error != cudaSuccess) return error;
  const int64_t quads = static_cast<int64_t>(edge::kFeatures) * inputs * outputs / 4;
  sum_kernel<<<static_cast<unsigned>((quads + 255) / 256), 256, 0, on>>>(static_cast<const float4*>(parts_out),
                                                                        static_cast<uint2*>(out), parts, quads);
  return cudaGetLastError();
}
