// What the edge layer's CUDA kernels know of the layer: five cells, so eight bases and SiLU; rows in groups; features.
//
// Letters: N tokens, I inputs (a multiple of 16), O outputs (of 8). README.md has the mathematics.

#pragma once

#include "hopper.cuh"

namespace edge {

constexpr int kBases = 8;
constexpr int kFeatures = 9;
constexpr float kSixth = 1.0f / 6.0f;

// Rows of one group: those from `first` on, as many as a tile has, before `last`. None where first >= last.
struct Rows {
  int group, first, last;
};

// The rows of a tile. Each group begins a tile of its own: rows of group e end before ends[e]. No groups: one weight.
__device__ __forceinline__ Rows find_rows(const int* ends, int groups, int tokens, int tile, int size) {
  if (groups == 0) return {0, tile * size, tokens};
  int begin = 0;
  for (int group = 0; group < groups; ++group) {
    const int end = ends[group], tiles = (end - begin + size - 1) / size;
    if (tile < tiles) return {group, begin + tile * size, end};
    tile -= tiles;
    begin = end;
  }
  return {0, 0, 0};
}

// As many tiles as rows can need: how many a group has is known on the device alone.
__host__ __device__ constexpr int most_tiles(int tokens, int groups, int size) {
  return (tokens + size - 1) / size + groups;
}

// What a cluster works on at a time: rows, and a tile of columns (outputs, or inputs).
struct Tile {
  Rows rows;
  int column;
};

// A layer's tiles in the order in which clusters take them: a band of tiles of rows goes together through all columns, so
// that both stay in the cache.
struct Tiles {
  int groups, tokens, size, columns, band;

  __host__ __device__ int count() const { return most_tiles(tokens, groups, size) * columns; }

  __device__ __forceinline__ Tile find(const int* ends, int number) const {
    const int at = number / (band * columns), within = number % (band * columns);
    const int height = min(band, most_tiles(tokens, groups, size) - at * band);
    return {find_rows(ends, groups, tokens, at * band + within % height, size), within / height};
  }
};

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
  const uint32_t first_pair = hopper::pair(g3, second), second_pair = hopper::pair(third, f3);
  const uint32_t early = inside ? first_pair : 0u, late = inside ? second_pair : 0u;
  index = __float_as_uint(whole);
  // Value q of basis m + q goes to place (m + q) mod 4: a rotation of four halves by m.
  const uint32_t order = __funnelshift_l(0x76543210u, 0x76543210u, index << 3);
  low = hopper::permute(early, late, order);
  high = hopper::permute(early, late, order >> 16);
}

// A thread's tiles, one after the other: those of its cluster that have rows.
template <int kCluster>
class Walk {
 public:
  __device__ __forceinline__ Walk(const Tiles& tiles, const int* ends)
      : tiles_(tiles), ends_(ends), number_(static_cast<int>(blockIdx.x) / kCluster) {}

  __device__ __forceinline__ bool next(Tile& tile) {
    for (const int last = tiles_.count(); number_ < last;) {
      tile = tiles_.find(ends_, number_);
      number_ += static_cast<int>(gridDim.x) / kCluster;
      if (tile.rows.first < tile.rows.last) return true;
    }
    return false;
  }

 private:
  const Tiles& tiles_;
  const int* ends_;
  int number_;
};

}  // namespace edge
