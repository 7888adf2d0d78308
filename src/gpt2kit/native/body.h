/* The forward pass, once for each instruction set. Whoever includes this defines
 *
 *     NAME(x)     x with the instruction set's suffix
 *     TARGET      the function attribute that allows its instructions
 *     LANES       floats of a vector
 *     TILE        tokens computed together with floats      WIDE  panels computed together with them, up to 2
 *     QTILE       the same with small integers        OFFSET  what the weights of a dot are off by
 *     greater, lesser     of each lane the greater or lesser one; the second where one is no number
 *     fetch_line, add_products, dot_u8, codes_u4      see kernel.c
 *
 * A result of a token is summed in one order, whatever else is computed beside it: inputs from the first to the last,
 * one after the other in each lane. So texts depend neither on their batch nor on how a prompt was cut up.
 */
#define INLINE static inline __attribute__((always_inline)) TARGET
#define VECTORS (PANEL / LANES) /* of a panel */

typedef int32_t NAME(ints) __attribute__((vector_size(LANES * 4)));
typedef int8_t NAME(bytes) __attribute__((vector_size(LANES)));
typedef uint16_t NAME(halves) __attribute__((vector_size(LANES * 2)));
typedef uint32_t NAME(words) __attribute__((vector_size(LANES * 4)));
typedef uint64_t NAME(longs) __attribute__((vector_size(LANES * 8)));
typedef uint64_t NAME(twos) __attribute__((vector_size(LANES * 4))); /* of floats */
#define floats NAME(floats)
#define ints NAME(ints)

INLINE floats NAME(load)(const float *from) {
    floats v;
    memcpy(&v, from, sizeof v);
    return v;
}
#define load NAME(load)

/* Numbers at an index, of float32 or of bfloat16 ("narrow"). */
INLINE floats NAME(load_at)(const void *from, int64_t index, int narrow) {
    NAME(halves) half;
    if (!narrow) return load((const float *)from + index);
    memcpy(&half, (const uint16_t *)from + index, sizeof half);
    return (floats)(__builtin_convertvector(half, NAME(words)) << 16);
}

INLINE void NAME(store)(float *to, floats v) { memcpy(to, &v, sizeof v); }
#define store NAME(store)

INLINE float NAME(sum)(floats v) {
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += v[lane];
    return total;
}

/* The greatest and the sum of all lanes, four at a time: sixteen steps, each waiting for the one before, are slow. */
INLINE float NAME(greatest_lane)(floats v) {
    float4 parts[LANES / 4];
    memcpy(parts, &v, sizeof v);
    UNROLL for (int part = 1; part < LANES / 4; part++) {
        int4 larger = parts[part] > parts[0];
        parts[0] = (float4)(((int4)parts[part] & larger) | ((int4)parts[0] & ~larger));
    }
    float first = parts[0][0] > parts[0][1] ? parts[0][0] : parts[0][1];
    float second = parts[0][2] > parts[0][3] ? parts[0][2] : parts[0][3];
    return first > second ? first : second;
}

INLINE int32_t NAME(sum_of_lanes)(ints v) {
    int4 parts[LANES / 4];
    memcpy(parts, &v, sizeof v);
    UNROLL for (int part = 1; part < LANES / 4; part++) parts[0] += parts[part];
    return parts[0][0] + parts[0][1] + parts[0][2] + parts[0][3];
}

INLINE int NAME(none)(ints is_true) {
    int32_t any = 0;
    for (int lane = 0; lane < LANES; lane++) any |= is_true[lane];
    return any == 0;
}

/* e^x to 2e-7: x = n ln 2 + r, a polynomial for e^r (Cephes, expf), n into the exponent. */
INLINE floats NAME(exponential)(floats x) {
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves no bits behind the point */
    x = NAME(lesser)((floats){0} + 88.0f, NAME(greater)((floats){0} - 87.0f, x));
    floats n = x * 1.44269504f + round;
    ints exponent = ((ints)n << 23) + (127 << 23);
    n -= round;
    floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * r * r + r + 1.0f) * (floats)exponent;
}

/* 0.5 x (1 + tanh(u)) = x / (1 + e^-2u), u = √(2/π) (x + 0.044715 x³). */
INLINE floats NAME(gelu)(floats x) {
    floats u = 0.7978845608f * (x + 0.044715f * x * x * x);
    return x / (1.0f + NAME(exponential)(-2.0f * u));
}

/* y (=, += or gelu) sums + bias, for the tokens and outputs of a tile. */
static TARGET void NAME(finish)(int64_t tokens, int64_t outputs, const float *sums, int64_t stride, float *y,
                                int64_t y_stride, const float *bias, int finish) {
    for (int64_t t = 0; t < tokens; t++, sums += stride, y += y_stride)
        for (int64_t i = 0; i < outputs; i += LANES) {
            floats v = load(sums + i);
            if (bias) v += load(bias + i);
            if (finish == GELU) v = NAME(gelu)(v);
            if (finish == ADD) v += load(y + i);
            store(y + i, v);
        }
}

/* sums[tokens][16 panels] (= or +=) x[tokens][depth] * panels[panels][depth][16]; `tokens`, `panels` and `kind` are
 * known to the compiler. */
INLINE void NAME(tile)(int tokens, int panels, enum kind kind, const struct product *product) {
    const float *x = product->x, *ahead = product->ahead;
    int64_t x_stride = product->x_stride, step = product->step, depth = product->depth;
    floats sums[TILE][ALONE * VECTORS];
    UNROLL for (int t = 0; t < tokens; t++)
        UNROLL for (int v = 0; v < panels * VECTORS; v++) sums[t][v] = (floats){0};
    if (product->before)
        UNROLL for (int t = 0; t < tokens; t++)
            UNROLL for (int v = 0; v < panels * VECTORS; v++)
                sums[t][v] = load(product->before + t * product->stride + v * LANES);
    UNROLL_4 for (int64_t i = 0; i < depth; i++) {
        floats w[ALONE * VECTORS];
        if (kind == WEIGHTS_FETCHING) __builtin_prefetch(ahead + i * PANEL, 0, 2);
        UNROLL for (int v = 0; v < panels * VECTORS; v++) {
            int64_t index = v / VECTORS * step + i * PANEL + v % VECTORS * LANES;
            if (kind == WEIGHTS && v % VECTORS == 0) NAME(fetch_line)((const float *)product->weights + index, i);
            w[v] = NAME(load_at)(product->weights, index, kind == NARROW_CACHE);
        }
        UNROLL for (int t = 0; t < tokens; t++)
            NAME(add_products)(panels * VECTORS, sums[t], w, kind < CACHE ? x + i * tokens + t : x + t * x_stride + i,
                               t % 4 == 1);
    }
    UNROLL for (int t = 0; t < tokens; t++)
        UNROLL for (int v = 0; v < panels * VECTORS; v++)
            store(product->sums + t * product->stride + v * LANES, sums[t][v]);
}

#define BY_KIND(tokens, panels)                                                 \
    do {                                                                        \
        if (kind == CACHE)                                                      \
            NAME(tile)(tokens, panels, CACHE, product);                         \
        else if (kind == NARROW_CACHE)                                          \
            NAME(tile)(tokens, panels, NARROW_CACHE, product);                  \
        else if (kind == WEIGHTS)                                               \
            NAME(tile)(tokens, panels, WEIGHTS, product);                       \
        else if (kind == WEIGHTS_FETCHING && tokens == TILE && panels == WIDE)  \
            NAME(tile)(TILE, WIDE, WEIGHTS_FETCHING, product);                  \
        else                                                                    \
            NAME(tile)(tokens, panels, WEIGHTS_FETCHED, product);               \
    } while (0)
#define FEW(n)              \
    case n:                 \
        if (panels == WIDE) \
            BY_KIND(n, WIDE); \
        else                \
            BY_KIND(n, 1);  \
        break;
#define ONE_BY(n)                                    \
    case n:                                          \
        if (kind == CACHE)                           \
            NAME(tile)(1, n, CACHE, product);        \
        else                                         \
            NAME(tile)(1, n, NARROW_CACHE, product); \
        break;
/* The same for up to TILE tokens and WIDE panels, or for one token and ALONE panels of a cache. */
static TARGET __attribute__((noinline)) void NAME(few_tokens)(int64_t tokens, int64_t panels, enum kind kind,
                                                              const struct product *product) {
    if (panels > WIDE) {
        switch (panels) { ONE_BY(2) ONE_BY(3) ONE_BY(4) }
        return;
    }
    switch (tokens) {
        FEW(1) FEW(2) FEW(3)
#if TILE > 3
        FEW(4) FEW(5) FEW(6)
#endif
#if TILE > 6
        FEW(7) FEW(8) FEW(9) FEW(10) FEW(11) FEW(12)
#endif
    }
}
#undef BY_KIND
#undef FEW
#undef ONE_BY

/* How many panels to take next of those that are left: one token's sums of only a few would wait for one another. */
INLINE int64_t NAME(panels_for)(int64_t tokens, int64_t left) {
    int64_t most = tokens == 1 ? ALONE : WIDE;
    return left >= most ? most : tokens == 1 ? left : 1;
}

/* Four rows of x into four columns of a tile. */
INLINE void NAME(transpose_four)(const float *x, int64_t x_stride, int64_t in, float *to, int64_t tokens) {
    int64_t i = 0;
    for (; i + 4 <= in; i += 4) {
        float4 rows[4], pairs[4], columns[4];
        UNROLL for (int r = 0; r < 4; r++) memcpy(&rows[r], x + r * x_stride + i, sizeof rows[r]);
        UNROLL for (int r = 0; r < 4; r += 2) {
            pairs[r] = shuffled(rows[r], rows[r + 1], 0, 4, 1, 5);
            pairs[r + 1] = shuffled(rows[r], rows[r + 1], 2, 6, 3, 7);
        }
        UNROLL for (int half = 0; half < 2; half++) {
            columns[2 * half] = shuffled(pairs[half], pairs[half + 2], 0, 1, 4, 5);
            columns[2 * half + 1] = shuffled(pairs[half], pairs[half + 2], 2, 3, 6, 7);
        }
        UNROLL for (int r = 0; r < 4; r++) memcpy(to + (i + r) * tokens, &columns[r], sizeof columns[r]);
    }
    for (; i < in; i++)
        for (int r = 0; r < 4; r++) to[i * tokens + r] = x[r * x_stride + i];
}

/* The tokens of a tile side by side: all that its product reads of them is then one run of memory, and its instructions
 * need no address of each token. Some inputs at a time, so that what is written stays in the nearest cache. */
static TARGET __attribute__((noinline)) void NAME(lay_tile)(int64_t tokens, const float *x, int64_t x_stride, int64_t in, float *to) {
    for (int64_t begin = 0, some; begin < in; begin += some, x += some, to += some * tokens) {
        some = in - begin < 64 ? in - begin : 64;
        int64_t t = 0;
        for (; t + 4 <= tokens; t += 4) NAME(transpose_four)(x + t * x_stride, x_stride, some, to + t, tokens);
        if (t < tokens && tokens > 4) /* the last four, of which some are laid again */
            NAME(transpose_four)(x + (tokens - 4) * x_stride, x_stride, some, to + tokens - 4, tokens);
        else
            for (; t < tokens; t++)
                for (int64_t i = 0; i < some; i++) to[i * tokens + t] = x[t * x_stride + i];
    }
}

/* y (=, += or gelu) x W + b for any number of tokens, and `pairs` times WIDE panels or as many as there are. With many
 * tokens a part of the inputs at a time, so that the weights of it stay in the nearest cache and the activations in the
 * next one; and the first tiles fetch the weights of the part that comes next, at last those of the pair `behind`, or
 * none if it is -1. */
static TARGET void NAME(multiply)(const struct worker *worker, const struct linear *linear, int64_t tokens, float *y,
                                  int64_t y_stride, int finish, int64_t first, int64_t pairs, int64_t behind) {
    int64_t in = linear->in, step = in * PANEL, panels = round_up(linear->out, PANEL) / PANEL;
    int64_t most = tokens <= TILE ? in : DEPTH;
    const float *all = linear->weights;
    for (int64_t begin = 0; begin < in; begin += most) {
        int64_t depth = in - begin < most ? in - begin : most;
        for (int64_t pair = first; pair < first + pairs; pair++) {
            int64_t panel = pair * WIDE, wide = panels - panel < WIDE ? 1 : WIDE;
            int64_t next = pair + 1, next_begin = begin;
            if (next == first + pairs) {
                next_begin = begin + depth < in ? begin + depth : 0;
                next = next_begin > 0 ? first : behind;
            }
            const float *bias = linear->bias ? linear->bias + panel * PANEL : NULL;
            for (int64_t tile = 0, token = 0, few; token < tokens; token += few, tile++) {
                int64_t ahead = next * WIDE + tile;
                few = tile_at(token, tokens, TILE).tokens;
                int is_last = begin + depth == in;
                float here[TILE * WIDE * PANEL] __attribute__((aligned(64)));
                float *kept = worker->sums + ((pair - first) * tokens + token) * WIDE * PANEL;
                float *result = y + token * y_stride + panel * PANEL;
                struct product product = {.x = worker->tiles + token * worker->quantised.stride + begin * few,
                                          .weights = all + panel * step + begin * PANEL, .step = step, .depth = depth,
                                          .before = begin > 0 ? kept : NULL, .sums = is_last ? here : kept,
                                          .stride = WIDE * PANEL};
                enum kind kind = tokens <= TILE ? WEIGHTS : WEIGHTS_FETCHED;
                if (tokens > TILE && tile < WIDE && next >= 0 && ahead < panels) {
                    product.ahead = all + ahead * step + next_begin * PANEL;
                    kind = WEIGHTS_FETCHING;
                }
                /* What is written to soon: stores wait for their line one after the other. */
                for (int64_t t = 0; t < few; t++)
                    UNROLL for (int p = 0; p < WIDE; p++)
                        __builtin_prefetch((is_last ? result + t * y_stride : kept + t * WIDE * PANEL) + p * PANEL, 1);
                NAME(few_tokens)(few, wide, kind, &product);
                if (is_last)
                    NAME(finish)(few, wide * PANEL, here, WIDE * PANEL, result, y_stride, bias, finish);
            }
        }
    }
}

/* sums += the dot products of a group, times the scales of its weights and of its activations. */
INLINE void NAME(add_group)(int tokens, floats sums[][VECTORS], ints dots[][VECTORS], const uint16_t *scales,
                            const float *x_scales) {
    UNROLL for (int v = 0; v < VECTORS; v++) {
        NAME(halves) half;
        memcpy(&half, scales + v * LANES, sizeof half);
        floats scale = (floats)(__builtin_convertvector(half, NAME(words)) << 16);
        UNROLL for (int t = 0; t < tokens; t++)
            sums[t][v] += __builtin_convertvector(dots[t][v], floats) * (scale * x_scales[t]);
    }
}

/* One panel with small integers, `groups` of `size` inputs. The dot products of a group are exact, so only their sum over
 * the groups rounds. Weights are stored with an offset, to be unsigned: what it adds to a product is in the activations'
 * sums. */
INLINE void NAME(quantised_tile)(int tokens, int format, enum kind kind, const struct quantised *x, int64_t token,
                                 int64_t size, const uint8_t *weights, const uint16_t *scales, float *to) {
    const int8_t *values = x->values + token * x->stride;
    const float *x_scales = x->scales + token * x->groups;
    const int32_t *x_sums = x->sums + token * x->groups;
    floats sums[QTILE][VECTORS];
    UNROLL for (int t = 0; t < tokens; t++)
        UNROLL for (int v = 0; v < VECTORS; v++) sums[t][v] = (floats){0};
    for (int64_t group = 0; group < x->groups; group++, values += size * tokens) {
        ints dots[QTILE][VECTORS];
        UNROLL for (int t = 0; t < tokens; t++)
            UNROLL for (int v = 0; v < VECTORS; v++) dots[t][v] = (ints){0} + x_sums[group * tokens + t];
        const int quads = (int)(format == INT8 ? size / QUAD : 4);
        UNROLL_4 for (int quad = 0; quad < quads; quad++, weights += 64) {
            const int8_t *from = values + quad * tokens * QUAD;
            if (kind == WEIGHTS) NAME(fetch_line)(weights, quad);
            if (format == INT8) {
                NAME(dot_u8)(tokens, dots, weights, from);
            } else {
                uint8_t low[PANEL * QUAD], high[PANEL * QUAD];
                NAME(codes_u4)(weights, low, high);
                NAME(dot_u8)(tokens, dots, low, from);
                NAME(dot_u8)(tokens, dots, high, from + 4 * tokens * QUAD);
            }
        }
        NAME(add_group)(tokens, sums, dots, scales + group * PANEL, x_scales + group * tokens);
    }
    UNROLL for (int t = 0; t < tokens; t++)
        UNROLL for (int v = 0; v < VECTORS; v++) store(to + t * PANEL + v * LANES, sums[t][v]);
}

#define FEW(n)                                                                                   \
    case n:                                                                                      \
        if (format == INT4)                                                                      \
            NAME(quantised_tile)(n, INT4, WEIGHTS, x, token, size, weights, scales, to);         \
        else if (kind == WEIGHTS)                                                                \
            NAME(quantised_tile)(n, INT8, WEIGHTS, x, token, size, weights, scales, to);         \
        else                                                                                     \
            NAME(quantised_tile)(n, INT8, WEIGHTS_FETCHED, x, token, size, weights, scales, to); \
        break;
static TARGET __attribute__((noinline)) void NAME(few_quantised)(int64_t tokens, int64_t format, enum kind kind,
                                                                 const struct quantised *x, int64_t token, int64_t size,
                                                                 const uint8_t *weights, const uint16_t *scales,
                                                                 float *to) {
    switch (tokens) {
        FEW(1) FEW(2) FEW(3)
#if QTILE > 3
        FEW(4) FEW(5) FEW(6)
#endif
#if QTILE > 6
        FEW(7) FEW(8) FEW(9) FEW(10) FEW(11) FEW(12)
#endif
    }
}
#undef FEW

/* y (=, += or gelu) x W + b for a panel. With more than a tile of tokens its weights are made 8 bits of 4 once for all of
 * them; else the first tile fetches them. */
static TARGET void NAME(multiply_quantised)(const struct worker *worker, int64_t tokens, const struct quantised *x,
                                            const struct linear *linear, int64_t panel, float *y, int64_t y_stride,
                                            int finish) {
    int64_t format = linear->format, size = group_size(format), bytes = panel_bytes(format, linear->in);
    const uint8_t *weights = (const uint8_t *)linear->weights + panel * bytes;
    const uint16_t *scales = linear->scales + panel * x->groups * PANEL;
    const float *bias = linear->bias ? linear->bias + panel * PANEL : NULL;
    if (format == INT4 && tokens > QTILE) {
        uint8_t *to = worker->panel;
        for (int64_t byte = 0; byte < bytes; byte += 64, to += byte % 256 ? 64 : 320)
            NAME(codes_u4)(weights + byte, to, to + 256);
        weights = worker->panel, format = INT8;
    }
    for (int64_t token = 0, few; token < tokens; token += few) {
        float sums[QTILE * PANEL] __attribute__((aligned(64)));
        few = tile_at(token, tokens, QTILE).tokens;
        enum kind kind = token == 0 && weights != worker->panel ? WEIGHTS : WEIGHTS_FETCHED;
        NAME(few_quantised)(few, format, kind, x, token, size, weights, scales, sums);
        NAME(finish)(few, PANEL, sums, PANEL, y + token * y_stride + panel * PANEL, y_stride, bias, finish);
    }
}

/* One token's activations to 8 bits: x ≈ scale * value, the greatest of each group becoming 127, and of the sums of two
 * neighbours if one is greater: rounded they are up to 128, and times weights of up to 255 they are 16 bits. */
static TARGET void NAME(quantise)(struct quantised *q, int64_t token, int64_t tokens, const float *x, int64_t size) {
    const float round = 12582912.0f;
    struct tile tile = tile_at(token, tokens, QTILE);
    int64_t first = tile.first, few = tile.tokens, place = token - first;
    int8_t *values = q->values + first * q->stride + place * QUAD;
    float *scales = q->scales + first * q->groups + place;
    int32_t *sums = q->sums + first * q->groups + place;
    for (int64_t group = 0; group < q->groups; group++) {
        const float *from = x + group * size;
        floats greatest = {0};
        for (int64_t i = 0; i < size; i += LANES) {
            floats v = load(from + i);
            greatest = NAME(greater)((floats)((ints)v & 0x7fffffff), greatest);
            NAME(twos) two = (NAME(twos))v;
            floats both = v + (floats)(two << 32 | two >> 32);
            greatest = NAME(greater)((floats)((ints)both & 0x7fffffff), greatest);
        }
        float most = NAME(greatest_lane)(greatest), inverse = most > 1e-30f ? 127 / most : 0;
        ints total = {0};
        for (int64_t i = 0; i < size; i += LANES) {
            floats shifted = load(from + i) * inverse + round;
            ints rounded = (ints)shifted - 0x4b400000; /* the bits of `round` */
            total += rounded;
            NAME(bytes) narrow = __builtin_convertvector(rounded, NAME(bytes));
            UNROLL for (int lane = 0; lane < LANES; lane += QUAD)
                memcpy(values + (group * size + i + lane) * few, (const char *)&narrow + lane, QUAD);
        }
        sums[group * few] = -OFFSET * NAME(sum_of_lanes)(total);
        scales[group * few] = most > 1e-30f ? most / 127 : 0;
    }
}

/* LayerNorm (Ba, Kiros & Hinton 2016): (x - mean) / √(variance + ε) * weight + bias. */
static TARGET void NAME(layer_norm)(const float *x, const float *weight, const float *bias, int64_t D, float epsilon,
                                    float *y) {
    int64_t whole = D / LANES * LANES;
    floats sums = {0}, squares = {0};
    for (int64_t i = 0; i < whole; i += LANES) sums += load(x + i);
    float sum = NAME(sum)(sums);
    for (int64_t i = whole; i < D; i++) sum += x[i];
    float mean = sum / (float)D;
    for (int64_t i = 0; i < whole; i += LANES) {
        floats off = load(x + i) - mean;
        squares += off * off;
    }
    float square = NAME(sum)(squares);
    for (int64_t i = whole; i < D; i++) square += (x[i] - mean) * (x[i] - mean);
    float scale = 1 / sqrtf(square / (float)D + epsilon);
    for (int64_t i = 0; i < whole; i += LANES)
        store(y + i, (load(x + i) - mean) * scale * load(weight + i) + load(bias + i));
    for (int64_t i = whole; i < D; i++) y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

/* Scores to probabilities: e^(x - greatest) over their sum for the first `valid`, 0 behind them up to `padded`. */
INLINE void NAME(softmax)(float *scores, int64_t valid, int64_t padded) {
    for (int64_t s = valid; s < padded; s++) scores[s] = scores[0];
    floats most = load(scores);
    for (int64_t s = LANES; s < valid; s += LANES) most = NAME(greater)(load(scores + s), most);
    float greatest = NAME(greatest_lane)(most);
    for (int64_t s = 0; s < valid; s += LANES)
        store(scores + s, NAME(exponential)(load(scores + s) - greatest));
    for (int64_t s = valid; s < padded; s++) scores[s] = 0;
    floats sums = {0};
    for (int64_t s = 0; s < valid; s += LANES) sums += load(scores + s);
    float inverse = 1 / NAME(sum)(sums);
    for (int64_t s = 0; s < valid; s += LANES) store(scores + s, load(scores + s) * inverse);
}

/* Numbers into a cache, `step` apart from a place on, rounded to the nearest where it is narrow. */
INLINE void NAME(put)(void *cache, int64_t step, const float *from, int64_t count, enum kind kind) {
    uint16_t *narrow = cache, halves[LANES];
    float *wide = cache;
    for (int64_t i = 0; i < count && kind == CACHE; i++) wide[i * step] = from[i];
    for (int64_t i = 0, few; i < count && kind == NARROW_CACHE; i += few) {
        few = count - i < LANES ? count - i : LANES;
        NAME(words) bits = {0};
        memcpy(&bits, from + i, few == LANES ? sizeof bits : (size_t)few * sizeof(float));
        NAME(halves) rounded = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, NAME(halves));
        memcpy(halves, &rounded, sizeof halves);
        if (step == 1 && few == LANES)
            memcpy(narrow + i, halves, sizeof halves);
        else
            for (int64_t lane = 0; lane < few; lane++) narrow[(i + lane) * step] = halves[lane];
    }
}

/* Where a number of a cache stands. */
INLINE void *NAME(place)(const void *cache, int64_t index, enum kind kind) {
    return (char *)cache + index * (kind == NARROW_CACHE ? 2 : 4);
}

/* One head of one text. */
struct NAME(head) {
    const struct row *row;
    int64_t K, K16;
    float scale, *q, *out;
    void *keys, *values;
    const void *shared_keys, *shared_values;
};

static TARGET struct NAME(head) NAME(head_of)(const struct call *call, int64_t layer, int64_t item) {
    const struct model *model = call->model;
    const enum kind kind = cache_kind(model);
    int64_t row_index = item % call->num_rows, number = item / call->num_rows, D = model->n_embd;
    const struct row *row = &call->rows[row_index];
    int64_t K = D / model->n_head, first = call->row_starts[row_index];
    struct NAME(head) head = {.row = row, .K = K, .K16 = round_up(K, PANEL)};
    head.scale = (float)model->layers[layer].scale;
    head.q = call->qkv_N3D + first * call->stride_3D + number * K;
    head.out = call->heads_ND + first * call->stride_D + number * K;
    number += layer * model->n_head;
    head.keys = NAME(place)(row->keys, number * row->capacity * K, kind);
    head.values = NAME(place)(row->values, number * row->capacity * head.K16, kind);
    if (row->shared > 0) {
        head.shared_keys = NAME(place)(row->shared_keys, number * row->shared_capacity * K, kind);
        head.shared_values = NAME(place)(row->shared_values, number * row->shared_capacity * head.K16, kind);
    }
    return head;
}

/* Begin to fetch the query, key and value of a token, which another thread may have computed. */
INLINE void NAME(fetch_token)(const float *q, int64_t K, int64_t D) {
    for (int64_t part = 0; part < 3; part++)
        for (int64_t i = 0; i < K; i += PANEL) __builtin_prefetch(q + part * D + i);
}

/* Begin to fetch what a head reads soon: its first tokens, and the cache where one token reads that, which waits for
 * memory more than it computes. */
INLINE void NAME(fetch)(const struct NAME(head) *head, enum kind kind, int64_t D, int64_t stride) {
    const struct row *row = head->row;
    for (int64_t t = 0; t < FETCHED_TOKENS && t < row->count; t++) NAME(fetch_token)(head->q + t * stride, head->K, D);
    int64_t positions = row->past + row->count - row->shared, size = kind == NARROW_CACHE ? 2 : 4;
    if (row->count > 1 || kind == CACHE) return; /* float32 gains nothing */
    for (int64_t byte = 0; byte < round_up(positions, PANEL) * head->K * size; byte += 64)
        __builtin_prefetch((const char *)head->keys + byte);
    for (int64_t panel = 0; panel < head->K16; panel += PANEL)
        for (int64_t byte = 0; byte < positions * PANEL * size; byte += 64)
            __builtin_prefetch((const char *)head->values + panel * row->capacity * size + byte);
}

/* The new keys and values of a head into its cache; its queries times the scale of q k. */
static TARGET void NAME(remember)(const struct NAME(head) *head, enum kind kind, int64_t D, int64_t stride) {
    const struct row *row = head->row;
    int64_t K = head->K;
    float *q = head->q, scale = head->scale;
    for (int64_t t = 0; t < row->count; t++, q += stride) {
        if (t + FETCHED_TOKENS < row->count) NAME(fetch_token)(q + FETCHED_TOKENS * stride, K, D);
        int64_t place = row->past + t - row->shared, key = place / PANEL * K * PANEL + place % PANEL;
        NAME(put)(NAME(place)(head->keys, key, kind), PANEL, q + D, K, kind);
        for (int64_t i = 0; i < K; i += PANEL)
            NAME(put)(NAME(place)(head->values, i * row->capacity + place * PANEL, kind), 1, q + 2 * D + i,
                      K - i < PANEL ? K - i : PANEL, kind);
        for (int64_t i = 0; i < K; i++) q[i] *= scale;
    }
}

INLINE void NAME(score)(int64_t few, int64_t panels, enum kind kind, const float *q, int64_t stride, const void *keys,
                        int64_t K, float *scores, int64_t stride_scores) {
    for (int64_t panel = 0, wide; panel < panels; panel += wide) {
        struct product product = {.x = q, .x_stride = stride, .weights = NAME(place)(keys, panel * K * PANEL, kind),
                                  .step = K * PANEL, .depth = K, .sums = scores + panel * PANEL,
                                  .stride = stride_scores};
        wide = NAME(panels_for)(few, panels - panel);
        NAME(few_tokens)(few, wide, kind, &product);
    }
}

/* softmax(q kᵀ · scale) v for the queries of a head. */
static TARGET void NAME(attend)(const struct call *call, const struct NAME(head) *head, int thread) {
    const struct row *row = head->row;
    const enum kind kind = cache_kind(call->model);
    int64_t K = head->K, K16 = head->K16, C = row->capacity, Cs = row->shared_capacity, shared = row->shared;
    int64_t sS = call->stride_scores, sQ = call->stride_3D;
    float *scores = call->scores + thread * (TILE * sS + TILE * K16), *q = head->q;
    float *merged = scores + TILE * sS;
    for (int64_t t = 0; t < row->count; t += TILE, q += TILE * sQ) {
        int64_t few = row->count - t < TILE ? row->count - t : TILE;
        int64_t all = row->past + t + few, padded = round_up(all, PANEL); /* positions that the last of them sees */
        NAME(score)(few, shared / PANEL, kind, q, sQ, head->shared_keys, K, scores, sS);
        NAME(score)(few, (padded - shared) / PANEL, kind, q, sQ, head->keys, K, scores + shared, sS);
        for (int64_t i = 0; i < few; i++) NAME(softmax)(scores + i * sS, row->past + t + i + 1, padded);
        for (int64_t panel = 0, wide; panel < K16 / PANEL; panel += wide) {
            wide = NAME(panels_for)(few, K16 / PANEL - panel);
            struct product product = {.x = scores, .x_stride = sS, .sums = merged + panel * PANEL, .stride = K16};
            if (shared > 0) {
                product.weights = NAME(place)(head->shared_values, panel * Cs * PANEL, kind);
                product.step = Cs * PANEL, product.depth = shared;
                NAME(few_tokens)(few, wide, kind, &product);
                product.x += shared, product.before = product.sums;
            }
            product.weights = NAME(place)(head->values, panel * C * PANEL, kind);
            product.step = C * PANEL, product.depth = all - shared;
            NAME(few_tokens)(few, wide, kind, &product);
        }
        for (int64_t i = 0; i < few; i++)
            memcpy(head->out + (t + i) * call->stride_D, merged + i * K16, (size_t)K * sizeof(float));
    }
}

/* Heads of texts, one after the other. While one is computed, the next one's new keys and values are stored, which
 * would otherwise be waited for, and the cache of the one behind is fetched. */
static TARGET void NAME(attend_run)(const struct call *call, int64_t layer, int64_t first, int64_t count, int thread) {
    const enum kind kind = cache_kind(call->model);
    int64_t D = call->model->n_embd, sQ = call->stride_3D;
    struct NAME(head) this, next = NAME(head_of)(call, layer, first);
    NAME(fetch)(&next, kind, D, sQ);
    NAME(remember)(&next, kind, D, sQ);
    for (int64_t item = first; item < first + count; item++) {
        this = next;
        if (item + 2 < first + count) {
            struct NAME(head) behind = NAME(head_of)(call, layer, item + 2);
            NAME(fetch)(&behind, kind, D, sQ);
        }
        if (item + 1 < first + count) {
            next = NAME(head_of)(call, layer, item + 1);
            NAME(remember)(&next, kind, D, sQ);
        }
        NAME(attend)(call, &this, thread);
    }
}

/* Embedding of a token: a column of a panel, in 8 bits where other weights have 4. */
static TARGET void NAME(embed)(const struct linear *embedding, int32_t id, float *x) {
    int64_t panel = id / PANEL, lane = id % PANEL, size = group_size(embedding->format);
    const uint8_t *bytes = (const uint8_t *)embedding->weights + panel * panel_bytes(embedding->format, embedding->in);
    int64_t groups = round_up(embedding->in, size) / size;
    for (int64_t i = 0; i < embedding->in; i++) {
        if (embedding->format == FP32) {
            x[i] = ((const float *)bytes)[i * PANEL + lane];
            continue;
        }
        uint32_t bits = (uint32_t)embedding->scales[(panel * groups + i / size) * PANEL + lane] << 16;
        float scale;
        memcpy(&scale, &bits, sizeof scale);
        x[i] = scale * (float)(bytes[i / 64 * 1024 + i % 64 / QUAD * 64 + lane * QUAD + i % QUAD] - 128);
    }
}

/* Wait until all threads are done. */
#define NEXT_PHASE (worker->next++, pool_barrier(worker->call->pool))

/* Give out the numbers from 0 to `total` to the threads, in runs of up to `most`, and wait until all are done. */
#define SHARE_RUNS(first, count, total, most, statement)                                                     \
    do {                                                                                                     \
        int64_t share_total = (total);                                                                       \
        for (int64_t first = 0, count; (count = take_some(worker, &first, share_total, most)) > 0;) statement; \
        NEXT_PHASE;                                                                                          \
    } while (0)

#define SHARE(index, total, statement)          \
    SHARE_RUNS(share_begin, share_count, total, INT64_MAX, \
               for (int64_t index = share_begin; index < share_begin + share_count; index++) statement)

/* The same for work so short that with few tokens each thread rather does all of it, into memory of its own, than
 * wait. */
#define PREPARE(index, total, statement)                                               \
    do {                                                                               \
        if (worker->is_alone) {                                                        \
            for (int64_t index = 0, last = (total); index < last; index++) statement;  \
        } else {                                                                       \
            SHARE(index, total, statement);                                            \
        }                                                                              \
    } while (0)

/* y (=, += or gelu) x W + b for all tokens. In floats and with many of them, a thread takes its next run of panels
 * before it multiplies the one at hand, to know which weights to fetch. */
static TARGET void NAME(linear)(struct worker *worker, const struct linear *linear, int64_t tokens, const float *x,
                                int64_t x_stride, float *y, int64_t y_stride, int finish) {
    int64_t panels = round_up(linear->out, PANEL) / PANEL, size = group_size(linear->format);
    struct quantised q = worker->quantised;
    if (linear->format != FP32) {
        q.groups = round_up(linear->in, size) / size;
        PREPARE(token, tokens, NAME(quantise)(&q, token, tokens, x + token * x_stride, size));
        SHARE(panel, panels, NAME(multiply_quantised)(worker, tokens, &q, linear, panel, y, y_stride, finish));
        return;
    }
    PREPARE(number, (tokens + TILE - 1) / TILE, {
        struct tile tile = tile_at(number * TILE, tokens, TILE);
        NAME(lay_tile)(tile.tokens, x + tile.first * x_stride, x_stride, linear->in,
                       worker->tiles + tile.first * q.stride);
    });
    int64_t pairs = (panels + WIDE - 1) / WIDE, first, behind = 0, more = 0;
    for (int64_t run = take_some(worker, &first, pairs, MOST_PAIRS); run > 0; first = behind, run = more) {
        if (tokens > TILE) more = take_some(worker, &behind, pairs, MOST_PAIRS);
        NAME(multiply)(worker, linear, tokens, y, y_stride, finish, first, run, more > 0 ? behind : -1);
        if (tokens <= TILE) more = take_some(worker, &behind, pairs, MOST_PAIRS);
    }
    NEXT_PHASE;
}

static TARGET void NAME(begin_token)(struct call *call, int64_t row, int64_t t) {
    const struct model *model = call->model;
    int64_t token = call->row_starts[row] + t, position = call->rows[row].past + t;
    float *x = call->x_ND + token * call->stride_D;
    NAME(embed)(&model->embedding, call->ids[token], x);
    for (int64_t i = 0; i < model->n_embd; i++) x[i] += model->positions[position * model->n_embd + i];
}

/* The last norm gathers the tokens of a row whose logits are wanted. */
static TARGET void NAME(end_row)(struct worker *worker, int64_t index) {
    const struct call *call = worker->call;
    const struct model *model = call->model;
    const struct row *row = &call->rows[index];
    int64_t target = 0, stride = call->stride_D;
    for (int64_t before = 0; before < index; before++) target += call->rows[before].scored;
    for (int64_t i = 0; i < row->scored; i++)
        NAME(layer_norm)(call->x_ND + (call->row_starts[index] + row->count - row->scored + i) * stride,
                         model->ln_f_weight, model->ln_f_bias, model->n_embd, (float)model->epsilon,
                         worker->normed_ND + (target + i) * stride);
}

#include "choose.h"
#include "pick.h"

/* What each thread of a call does. */
void NAME(forward)(void *argument, int thread) {
    struct call *call = argument;
    struct worker here = begin_worker(call, thread), *worker = &here;
    const struct model *model = call->model;
    int64_t N = call->num_tokens, D = model->n_embd, sD = call->stride_D;
    float epsilon = (float)model->epsilon, *x = call->x_ND, *normed = worker->normed_ND;
    SHARE(row, call->num_rows,
          for (int64_t t = 0; t < call->rows[row].count; t++) NAME(begin_token)(call, row, t));
    for (int64_t l = 0; l < model->n_layer; l++) {
        const struct layer *layer = &model->layers[l];
        PREPARE(n, N, NAME(layer_norm)(x + n * sD, layer->ln_1_weight, layer->ln_1_bias, D, epsilon, normed + n * sD));
        NAME(linear)(worker, &layer->attention, N, normed, sD, call->qkv_N3D, call->stride_3D, STORE);
        SHARE_RUNS(item, items, call->num_rows * model->n_head, INT64_MAX,
                   NAME(attend_run)(call, l, item, items, thread));
        NAME(linear)(worker, &layer->projection, N, call->heads_ND, sD, x, sD, ADD);
        PREPARE(n, N, NAME(layer_norm)(x + n * sD, layer->ln_2_weight, layer->ln_2_bias, D, epsilon, normed + n * sD));
        NAME(linear)(worker, &layer->expand, N, normed, sD, call->inner_NF, call->stride_F, GELU);
        NAME(linear)(worker, &layer->contract, N, call->inner_NF, call->stride_F, x, sD, ADD);
    }
    PREPARE(row, call->num_rows, NAME(end_row)(worker, row));
    if (call->num_scored == 0) return;
    if (call->picking.picks && NAME(pick_all)(worker, normed)) return;
    NAME(linear)(worker, &model->head, call->num_scored, normed, sD, call->logits, call->logits_stride, STORE);
    if (call->picking.picks) SHARE(token, call->num_scored, NAME(pick_from_scores)(call, token));
}

#include "step.h"
#include "product.h"

#undef PREPARE
#undef SHARE
#undef SHARE_RUNS
#undef NEXT_PHASE
#undef VECTORS
#undef INLINE
#undef floats
#undef ints
#undef load
#undef store
