// One step of generation: scores of the next token, from the last one and from keys and values that the step extends.
// compiled_step.py fills in the structures below, compiles this file and calls it; a text of several beams is several
// texts here. Nothing is checked but the ids: see `_Tensors` there.
//
// A step waits for its weights, so each is read once, from where the model has it. Up to 5 texts lie as rows (B, N), and
// a row of a matrix is multiplied with a text 16 numbers at a time. More texts lie as columns, 16 side by side in a
// register, and a number of a matrix is multiplied with 16 texts at a time. A "plane" is either: (groups, N, W), of one
// text a group and W = 1, or of 16 texts a group and W = 16; in the last group, what stands beside the texts
// means nothing.
//
// All threads take the whole step together, and wait for each other where one reads what another wrote.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

using Size = int64_t;
constexpr Size LANES = 16;
constexpr Size MOST_AS_ROWS = 5;
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

// The structures of compiled_step.py, field by field.

struct Matrix {
  const float *weight, *bias;  // (rows, columns), and (rows,) or null
  Size rows, columns;
};

struct Norm {
  const float *weight, *bias;  // (H,); no weight: no norm; bias may be null
  float eps;
  Size takes_mean_off;  // LayerNorm does, RMSNorm does not
};

struct Attention {
  Matrix query, key, value, out;  // to the encoder's text, key and value are not read
  float *keys, *values;           // (B, key heads, places, D)
  Size places;
  float scaling;
};

struct Layer {
  Norm own_norm, cross_norm, mlp_norm;
  Attention own, cross;
  Matrix gate, up, down;  // gate has no weight if there is none
  Size norm_comes_first;
};

struct Step {
  Size texts, hidden, inner, heads, key_heads, head_dim, num_layers, activation, num_threads;
  float embed_scale, output_scale;
  Matrix embedding, head;
  Norm norm;
  const float* added;             // (P, H) or null
  const float *cosines, *sines;   // (P, D) or null; sines are signed, see `rotate` in positions.py
  const float *biases, *mask;     // (heads, P) by distance, the present token last; (B or 1, S) to add; or null
  Size bias_places, mask_texts;
  const Layer* layers;
  float* scratch;                 // zeros at first; see `scratch_size`
};

// ---------------------------------------------------------------------------------------------------------------------
// 16 numbers at a time

inline Lanes load(const float* from) { return *reinterpret_cast<const Lanes*>(from); }

inline void store(float* to, Lanes lanes) { *reinterpret_cast<Lanes*>(to) = lanes; }

template <class Half, class Whole>
inline Half halves_added(Whole whole) {
  Half halves[2];
  std::memcpy(halves, &whole, sizeof whole);
  return halves[0] + halves[1];
}

inline float sum(Lanes lanes) {
  typedef float Eight __attribute__((vector_size(8 * sizeof(float))));
  typedef float Four __attribute__((vector_size(4 * sizeof(float))));
  const Four four = halves_added<Four>(halves_added<Eight>(lanes));
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// e^x to 1e-7 of itself: x = n ln 2 + r, and a polynomial of r (Cephes, expf); 0 below -87, infinite above 88.
inline Lanes exponential(Lanes x) {
  typedef int32_t Whole __attribute__((vector_size(sizeof(Lanes))));
  const Lanes low = Lanes{} - 87.0f, high = Lanes{} + 88.0f, half = Lanes{} + 0.5f;
  const Lanes bounded = x < low ? low : x > high ? high : x;
  const Whole n = __builtin_convertvector(bounded * 1.44269504f + (bounded < 0 ? -half : half), Whole);
  const Lanes whole = __builtin_convertvector(n, Lanes);
  const Lanes r = (bounded - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Whole power = (n + 127) << 23;
  Lanes scale;
  std::memcpy(&scale, &power, sizeof scale);
  return x < low ? Lanes{} : x > high ? Lanes{} + INFINITY : p * scale;
}

inline Lanes tanh_of(Lanes x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); }

// erf to 1.5e-7 (Abramowitz and Stegun, 1964, 7.1.26).
inline Lanes erf_of(Lanes x) {
  const Lanes size = x < 0 ? -x : x, t = 1.0f / (1.0f + 0.3275911f * size);
  const Lanes p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  const Lanes found = 1.0f - p * exponential(-size * size);
  return x < 0 ? -found : found;
}

enum Activation : Size { RELU, SILU, GELU, GELU_TANH };

template <Activation A>
inline Lanes activated(Lanes x) {
  if constexpr (A == RELU) return x < 0 ? Lanes{} : x;
  if constexpr (A == SILU) return x / (1.0f + exponential(-x));
  if constexpr (A == GELU) return 0.5f * x * (1.0f + erf_of(x * 0.70710678f));
  if constexpr (A == GELU_TANH) return 0.5f * x * (1.0f + tanh_of(0.79788456f * (x + 0.044715f * x * x * x)));
}

template <Activation A>
void activate(float* numbers, Size size) {
  Size i = 0;
  for (; i + LANES <= size; i += LANES) store(numbers + i, activated<A>(load(numbers + i)));
  Lanes rest = {};
  std::memcpy(&rest, numbers + i, (size - i) * sizeof(float));
  rest = activated<A>(rest);
  std::memcpy(numbers + i, &rest, (size - i) * sizeof(float));
}

inline float dot(const float* one, const float* other, Size size) {
  Lanes lanes = {};
  Size i = 0;
  for (; i + LANES <= size; i += LANES) lanes += load(one + i) * load(other + i);
  float total = sum(lanes);
  for (; i < size; i++) total += one[i] * other[i];
  return total;
}

inline Lanes dot(const Lanes* one, const Lanes* other, Size size) {
  Lanes lanes = {};
  for (Size i = 0; i < size; i++) lanes += one[i] * other[i];
  return lanes;
}

inline float inverse_root(float x) { return 1.0f / std::sqrt(x); }

inline Lanes inverse_root(Lanes x) {
  for (Size i = 0; i < LANES; i++) x[i] = inverse_root(x[i]);
  return x;
}

// ---------------------------------------------------------------------------------------------------------------------
// Threads and planes

struct Thread {
  Size number, count;

  // Set the part of `size` things that is this thread's, in whole blocks.
  void share(Size size, Size block, Size& first, Size& last) const {
    const Size blocks = (size + block - 1) / block;
    first = std::min(size, blocks * number / count * block);
    last = std::min(size, blocks * (number + 1) / count * block);
  }
};

inline void wait() {
#pragma omp barrier
}

template <Size W>
struct Plane {
  typedef Lanes Number;  // of all texts of a group
};

template <>
struct Plane<1> {
  typedef float Number;
};

template <Size W>
inline Size groups_of(const Step& step) {
  return (step.texts + W - 1) / W;
}

// Where the numbers of a text begin in a plane of N = `size`; they are W apart.
template <Size W>
inline float* of_text(float* plane, Size size, Size text) {
  return plane + text / W * size * W + text % W;
}

// ---------------------------------------------------------------------------------------------------------------------
// Products

constexpr Size ROWS = 8;       // of a matrix, summed up together: two additions a cycle, each takes four cycles
constexpr Size FEW_ROWS = 4;   // the same for texts as rows,
constexpr Size FEW_TEXTS = 4;  // with as many texts at a time

enum class To { PLANE, SUM, SCORES };  // set a plane, add to a plane, set (B, rows)

// R rows of a matrix times T texts that lie as rows.
template <Size R, Size T>
inline void multiply_rows(const float* plane, const Matrix& matrix, Size row, Size text, To to, float* out) {
  const Size columns = matrix.columns;
  const float *texts = plane + text * columns, *weight = matrix.weight + row * columns;
  Lanes lanes[R][T] = {};
  Size i = 0;
  for (; i + LANES <= columns; i += LANES) {
    Lanes read[T];
    for (Size t = 0; t < T; t++) read[t] = load(texts + t * columns + i);
    for (Size r = 0; r < R; r++) {
      __builtin_prefetch(weight + (R + r) * columns + i);
      const Lanes numbers = load(weight + r * columns + i);
      for (Size t = 0; t < T; t++) lanes[r][t] += numbers * read[t];
    }
  }
  for (Size t = 0; t < T; t++)
    for (Size r = 0; r < R; r++) {
      float found = sum(lanes[r][t]) + (matrix.bias ? matrix.bias[row + r] : 0.0f);
      for (Size k = i; k < columns; k++) found += weight[r * columns + k] * texts[t * columns + k];
      float& place = out[(text + t) * matrix.rows + row + r];
      place = to == To::SUM ? place + found : found;
    }
}

template <Size R>
inline void multiply_block(
    const Step& step, Plane<1>, const float* plane, const Matrix& matrix, Size row, To to, float* out) {
  Size text = 0;
  for (; text + FEW_TEXTS <= step.texts; text += FEW_TEXTS)
    multiply_rows<R, FEW_TEXTS>(plane, matrix, row, text, to, out);
  switch (step.texts - text) {
    case 3: return multiply_rows<R, 3>(plane, matrix, row, text, to, out);
    case 2: return multiply_rows<R, 2>(plane, matrix, row, text, to, out);
    case 1: return multiply_rows<R, 1>(plane, matrix, row, text, to, out);
  }
}

// R rows of a matrix times all texts, which lie as columns.
template <Size R>
inline void multiply_block(
    const Step& step, Plane<LANES>, const float* plane, const Matrix& matrix, Size row, To to, float* out) {
  const Size columns = matrix.columns;
  const float* weight = matrix.weight + row * columns;
  for (Size group = 0; group < groups_of<LANES>(step); group++) {
    const float* read = plane + group * columns * LANES;
    Lanes sums[R];
    for (Size r = 0; r < R; r++) sums[r] = Lanes{} + (matrix.bias ? matrix.bias[row + r] : 0.0f);
    for (Size begin = 0; begin < columns; begin += LANES) {
      for (Size r = 0; r < R; r++) __builtin_prefetch(weight + (R + r) * columns + begin);
      for (Size i = begin; i < std::min(begin + LANES, columns); i++) {
        const Lanes lanes = load(read + i * LANES);
        for (Size r = 0; r < R; r++) sums[r] += weight[r * columns + i] * lanes;
      }
    }
    if (to == To::SCORES) {
      const Size text = group * LANES;
      for (Size t = 0; t < std::min(LANES, step.texts - text); t++)
        for (Size r = 0; r < R; r++) out[(text + t) * matrix.rows + row + r] = sums[r][t];
      continue;
    }
    float* place = out + (group * matrix.rows + row) * LANES;
    for (Size r = 0; r < R; r++)
      store(place + r * LANES, to == To::SUM ? load(place + r * LANES) + sums[r] : sums[r]);
  }
}

// (plane of columns) -> (plane of rows), or scores; this thread's rows of the matrix.
template <Size W>
void multiply(
    const Step& step, const Thread& thread, const float* plane, const Matrix& matrix, float* out, To to = To::PLANE) {
  Size row, last;
  thread.share(matrix.rows, ROWS, row, last);
  constexpr Size block = W == 1 ? FEW_ROWS : ROWS;
  for (; row + block <= last; row += block) multiply_block<block>(step, Plane<W>(), plane, matrix, row, to, out);
  for (; row < last; row++) multiply_block<1>(step, Plane<W>(), plane, matrix, row, to, out);
}

// ---------------------------------------------------------------------------------------------------------------------
// Norm, attention, feed-forward

// The norm of each text, times a factor; `out` may be `plane`.
template <Size W>
void normalize(const Step& step, const Norm& norm, const float* plane, float factor, float* out) {
  using Number = typename Plane<W>::Number;
  const Size size = step.hidden;
  const float share = 1.0f / size;
  for (Size group = 0; group < groups_of<W>(step); group++) {
    const Number* read = reinterpret_cast<const Number*>(plane) + group * size;
    Number* to = reinterpret_cast<Number*>(out) + group * size;
    Number mean = {};
    for (Size i = 0; norm.takes_mean_off && i < size; i++) mean += read[i] * share;
    for (Size i = 0; i < size; i++) to[i] = read[i] - mean;
    const Number scale = inverse_root(dot(to, to, size) * share + norm.eps) * factor;
    for (Size i = 0; i < size; i++) to[i] = to[i] * scale * norm.weight[i] + (norm.bias ? norm.bias[i] * factor : 0);
  }
}

// N * 16 numbers of each of (num, D) rows, weighted and added up.
template <Size N>
inline void weighted_sum(const float* shares, const float* rows, Size num, Size head_dim, float* out) {
  Lanes lanes[N] = {};
  for (Size t = 0; t < num; t++)
    for (Size n = 0; n < N; n++) lanes[n] += shares[t] * load(rows + t * head_dim + n * LANES);
  for (Size n = 0; n < N; n++) store(out + n * LANES, lanes[n]);
}

// softmax(q K^T + bias + mask) V of one query (D,), already scaled, and (num, D) keys and values.
// `shares` has room for `num` numbers and up to the next multiple of 16.
void attend(
    const float* query, const float* keys, const float* values, Size num, Size head_dim, const float* bias,
    const float* mask, float* shares, float* out) {
  for (Size t = 0; t < num; t++) {
    for (Size i = 0; i < head_dim; i += LANES) __builtin_prefetch(values + t * head_dim + i);
    shares[t] = dot(query, keys + t * head_dim, head_dim);
  }
  for (const float* addend : {bias, mask})
    for (Size t = 0; addend && t < num; t++) shares[t] += addend[t];
  const Size num_lanes = (num + LANES - 1) / LANES;
  std::fill(shares + num, shares + num_lanes * LANES, -INFINITY);
  Lanes* lanes = reinterpret_cast<Lanes*>(shares);
  Lanes most = lanes[0], total = {};
  for (Size n = 1; n < num_lanes; n++) most = lanes[n] > most ? lanes[n] : most;
  float highest = most[0];
  for (Size n = 1; n < LANES; n++) highest = std::max(highest, most[n]);
  for (Size n = 0; n < num_lanes; n++) total += lanes[n] = exponential(lanes[n] - highest);
  const float part = 1.0f / sum(total);
  for (Size n = 0; n < num_lanes; n++) lanes[n] *= part;
  Size i = 0;
  for (; i + 4 * LANES <= head_dim; i += 4 * LANES) weighted_sum<4>(shares, values + i, num, head_dim, out + i);
  for (; i + LANES <= head_dim; i += LANES) weighted_sum<1>(shares, values + i, num, head_dim, out + i);
  for (; i < head_dim; i++) {
    out[i] = 0;
    for (Size t = 0; t < num; t++) out[i] += shares[t] * values[t * head_dim + i];
  }
}

// x cos + roll(x, D / 2) sin, where there are rotations, of (D,) numbers that are W apart, times a factor.
template <Size W>
inline void rotated(const Step& step, const float* read, Size place, float factor, float* out) {
  const Size size = step.head_dim, half = size / 2;
  for (Size i = 0; i < size; i++) out[i] = read[i * W] * factor;
  if (!step.cosines) return;
  const float *cosines = step.cosines + place * size, *sines = step.sines + place * size;
  for (Size i = 0; i < half; i++) {
    const float one = out[i], other = out[half + i];
    out[i] = one * cosines[i] + other * sines[i];
    out[half + i] = other * cosines[half + i] + one * sines[half + i];
  }
}

struct Buffers {
  float *states, *queries, *keys, *values, *attended, *inner, *gate;  // planes that all threads share
  float *normed, *shares, *query, *found;                             // one thread's own
};

// Cut the scratch into the buffers of a thread; return how many numbers all of them take.
template <Size W>
Size cut(const Step& step, const Thread& thread, Buffers& buffers) {
  const Size texts = groups_of<W>(step) * W, queries = step.heads * step.head_dim;
  Size places = 0, used = 0;
  for (Size n = 0; n < step.num_layers; n++)
    places = std::max({places, step.layers[n].own.places, step.layers[n].cross.places});
  const auto next = [&](Size size) {
    float* begin = step.scratch + used;
    used += (size + LANES - 1) / LANES * LANES;
    return begin;
  };
  buffers.states = next(texts * step.hidden);
  for (float** plane : {&buffers.queries, &buffers.keys, &buffers.values, &buffers.attended})
    *plane = next(texts * queries);
  for (float** plane : {&buffers.inner, &buffers.gate}) *plane = next(texts * step.inner);
  const Size shared = used;
  buffers.normed = next(texts * step.hidden);
  buffers.shares = next(places);
  for (float** row : {&buffers.query, &buffers.found}) *row = next(step.head_dim);
  const Size own = used - shared;
  for (float** buffer : {&buffers.normed, &buffers.shares, &buffers.query, &buffers.found})
    *buffer += thread.number * own;
  return shared + step.num_threads * own;
}

// This thread's heads of an attention: queries -> attended. The present token's keys and values go to `own` caches.
template <Size W>
void attend_all(const Step& step, const Thread& thread, const Buffers& at, const Attention& to, Size place, bool own) {
  const Size size = step.head_dim, groups = step.heads / step.key_heads, num = own ? place + 1 : to.places;
  Size task, last;
  thread.share(step.key_heads * step.texts, 1, task, last);
  for (; task < last; task++) {
    const Size key_head = task / step.texts, text = task % step.texts;  // so threads write far from each other
    const Size begin = (text * step.key_heads + key_head) * to.places * size;
    float *keys = to.keys + begin, *values = to.values + begin;
    if (own) {
      const Size width = step.key_heads * size, offset = key_head * size * W;
      rotated<W>(step, of_text<W>(at.keys, width, text) + offset, place, 1.0f, keys + place * size);
      const float* value = of_text<W>(at.values, width, text) + offset;
      for (Size i = 0; i < size; i++) values[place * size + i] = value[i * W];
    }
    for (Size head = key_head * groups; head < (key_head + 1) * groups; head++) {
      const Size width = step.heads * size, offset = head * size * W;
      const float* query = of_text<W>(at.queries, width, text) + offset;
      const float *bias = nullptr, *mask = nullptr;
      if (own) {
        rotated<W>(step, query, place, to.scaling, at.query);
        if (step.biases) bias = step.biases + (head + 1) * step.bias_places - num;
      } else {
        for (Size i = 0; i < size; i++) at.query[i] = query[i * W] * to.scaling;
        if (step.mask) mask = step.mask + (step.mask_texts == 1 ? 0 : text) * num;
      }
      attend(at.query, keys, values, num, size, bias, mask, at.shares, at.found);
      float* out = of_text<W>(at.attended, width, text) + offset;
      for (Size i = 0; i < size; i++) out[i * W] = at.found[i];
    }
  }
}

// activation(gate) * inner, or activation(inner), of the rows that this thread has multiplied.
template <Size W>
void activate_all(const Step& step, const Thread& thread, const Buffers& at, bool gated) {
  Size row, last;
  thread.share(step.inner, ROWS, row, last);
  for (Size group = 0; group < groups_of<W>(step); group++) {
    const Size begin = (group * step.inner + row) * W, size = (last - row) * W;
    float* numbers = (gated ? at.gate : at.inner) + begin;
    switch (step.activation) {
      case RELU: activate<RELU>(numbers, size); break;
      case SILU: activate<SILU>(numbers, size); break;
      case GELU: activate<GELU>(numbers, size); break;
      default: activate<GELU_TANH>(numbers, size);
    }
#pragma omp simd
    for (Size i = begin; i < begin + (gated ? size : 0); i++) at.inner[i] *= at.gate[i];
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The step

template <Size W>
void take(const Step& step, const Thread& thread, const Size* ids, Size ids_stride, Size place, float* scores) {
  Buffers at;
  cut<W>(step, thread, at);
  const auto product = [&](const float* plane, const Matrix& matrix, float* out, To to = To::PLANE) {
    multiply<W>(step, thread, plane, matrix, out, to);
  };
  // x + block(norm(x)), or norm(x + block(x)); the last product of a block adds to x.
  const auto add = [&](const Layer& layer, const Norm& norm, auto block) {
    if (layer.norm_comes_first) normalize<W>(step, norm, at.states, 1.0f, at.normed);
    block(layer.norm_comes_first ? at.normed : at.states);
    wait();
    if (layer.norm_comes_first) return;
    if (thread.number == 0) normalize<W>(step, norm, at.states, 1.0f, at.states);
    wait();
  };
  const auto attention = [&](const Attention& to, bool own) {
    wait();
    attend_all<W>(step, thread, at, to, place, own);
    wait();
    product(at.attended, to.out, at.states, To::SUM);
  };

  Size text, last;
  thread.share(step.texts, 1, text, last);
  for (; text < last; text++) {
    const float* row = step.embedding.weight + ids[text * ids_stride] * step.hidden;
    float* state = of_text<W>(at.states, step.hidden, text);
    for (Size i = 0; i < step.hidden; i++)
      state[i * W] = row[i] * step.embed_scale + (step.added ? step.added[place * step.hidden + i] : 0.0f);
  }
  wait();
  for (Size n = 0; n < step.num_layers; n++) {
    const Layer& layer = step.layers[n];
    add(layer, layer.own_norm, [&](const float* states) {
      product(states, layer.own.query, at.queries);
      product(states, layer.own.key, at.keys);
      product(states, layer.own.value, at.values);
      attention(layer.own, true);
    });
    add(layer, layer.cross_norm, [&](const float* states) {
      product(states, layer.cross.query, at.queries);
      attention(layer.cross, false);
    });
    add(layer, layer.mlp_norm, [&](const float* states) {
      const bool gated = layer.gate.weight != nullptr;
      if (gated) product(states, layer.gate, at.gate);
      product(states, layer.up, at.inner);
      activate_all<W>(step, thread, at, gated);
      wait();
      product(at.inner, layer.down, at.states, To::SUM);
    });
  }
  if (step.norm.weight) {
    normalize<W>(step, step.norm, at.states, step.output_scale, at.normed);
  } else {
    for (Size i = 0; i < groups_of<W>(step) * step.hidden * W; i++) at.normed[i] = at.states[i] * step.output_scale;
  }
  product(at.normed, step.head, scores, To::SCORES);
}

}  // namespace

// Return how many numbers the scratch of a step must have.
extern "C" int64_t scratch_size(const Step* step) {
  Buffers buffers;
  const Thread first{0, 1};
  return step->texts <= MOST_AS_ROWS ? cut<1>(*step, first, buffers) : cut<LANES>(*step, first, buffers);
}

// Write (B, V) scores of what follows the last ids, which stand at `place` and are `ids_stride` numbers apart in memory.
// Return 1, or do nothing and return 0 if an id has no row.
extern "C" int64_t take_step(const Step* step, const int64_t* ids, int64_t ids_stride, int64_t place, float* scores) {
  for (Size text = 0; text < step->texts; text++)
    if (ids[text * ids_stride] < 0 || ids[text * ids_stride] >= step->embedding.rows) return 0;
#pragma omp parallel num_threads(step->num_threads)
  {
#ifdef _OPENMP
    const Thread thread{omp_get_thread_num(), omp_get_num_threads()};
#else
    const Thread thread{0, 1};
#endif
    const auto run = step->texts <= MOST_AS_ROWS ? take<1> : take<LANES>;
    run(*step, thread, ids, ids_stride, place, scores);
  }
  return 1;
}
