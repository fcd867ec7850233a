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

// Where an input lies: in cell m, which `index` has in its low bits above kZero, and f along it, from 0 to 1. Inputs
// outside the grid lie at its ends, and a NaN at the lower one.
constexpr uint32_t kZero = 0x4b400000u;  // as a float 1.5 * 2^23: whoever adds to it rounds to whole numbers

__device__ __forceinline__ float find_place(float x, float inverse, uint32_t& index) {
  const float place = __saturatef(fmaf(x, inverse, 0.5f));  // 0 to 1 along the grid
  // A hair less than five, so that the grid's end lies in the last cell; a border may belong to either side.
  const float whole = __fmaf_rz(place, 4.9999995f, __uint_as_float(kZero));
  index = __float_as_uint(whole);
  return fmaf(place, 5.0f, __uint_as_float(kZero) - whole);
}

// Six times the four live bases of x, m to m + 3: fourth and first in `outer`, second and third in `inner`. What they are
// outside the grid does not count: order_inside() lets none of it through.
__device__ __forceinline__ void live_bases(float x, float inverse, uint32_t& outer, uint32_t& inner, uint32_t& index) {
  const float f = find_place(x, inverse, index);
  // Of f and 1 - f at once: the cube, and 4 - 6 f^2 + 3 f^3. In bfloat16, whose rounding the values get anyway: their
  // error is 2.2e-3 so, and 1.4e-3 if it is in float32, which takes an eighth more instructions.
  const uint32_t both = hopper::pair(f, 1.0f - f), square = hopper::multiply_pairs(both, both);
  outer = hopper::multiply_pairs(square, both);
  inner = hopper::add_product(square, hopper::add_product(both, hopper::twice(3.0f), hopper::twice(-6.0f)),
                              hopper::twice(4.0f));
}

// Orders for permute(outer, inner, .), or permute(inner, outer, .) for the places two further: half a byte for each byte.
// kNone takes the sign of what is never negative in place of a value: zeros come.
constexpr uint32_t kInOrder = 0x10765432u, kNone = 0x99999999u;

__device__ __forceinline__ uint32_t order_inside(uint32_t order, float x, float limit) {
  return fabsf(x) <= limit ? order : kNone;
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
