/* What a training step computes beside its matrix products, included by body.h: attention with its gradients, and what is
 * done row by row. Sums are made in one order, however many threads there are: a step can be computed again, bit for bit.
 */

/* Whether numbers are kept by a dropout, -1 or 0: a hash of their place in the row and of the row's key (the constants
 * are Wellons's, "lowbias32", 2018), against the share that is dropped of all 32-bit numbers. */
INLINE ints NAME(kept)(uint64_t key, NAME(words) places, uint32_t dropped) {
    NAME(words) h = places * 0x9E3779B9u + (uint32_t)key;
    h = (h ^ h >> 16) * 0x7FEB352Du;
    h = (h ^ h >> 15 ^ (uint32_t)(key >> 32)) * 0x846CA68Bu;
    h ^= h >> 16;
    return h >= dropped;
}

INLINE NAME(words) NAME(first_places)(void) {
    NAME(words) places;
    for (int lane = 0; lane < LANES; lane++) places[lane] = (uint32_t)lane;
    return places;
}

/* The numbers where a mask is -1, else 0. */
INLINE floats NAME(only)(ints mask, floats v) { return (floats)((ints)v & mask); }

/* sums[rows][vectors] (= or +=) a[rows][depth] b[depth][vectors], a number of `a` standing at row · a_row + i · a_step. */
INLINE void NAME(step_tile)(int rows, int vectors, int64_t depth, const float *a, int64_t a_row, int64_t a_step,
                            const float *b, int64_t b_stride, float *c, int64_t c_stride, int adds) {
    floats sums[TILE][2];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++)
            sums[r][v] = adds ? load(c + r * c_stride + v * LANES) : (floats){0};
    for (int64_t i = 0; i < depth; i++, a += a_step, b += b_stride) {
        floats w[2];
        UNROLL for (int v = 0; v < vectors; v++) w[v] = load(b + v * LANES);
        UNROLL for (int r = 0; r < rows; r++) NAME(add_products)(vectors, sums[r], w, a + r * a_row, r % 4 == 1);
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) store(c + r * c_stride + v * LANES, sums[r][v]);
}

/* The same for `rows`, a multiple of TILE, and `columns`, a multiple of LANES. */
static TARGET __attribute__((noinline)) void NAME(step_product)(int64_t rows, int64_t columns, int64_t depth,
                                                                const float *a, int64_t a_row, int64_t a_step,
                                                                const float *b, int64_t b_stride, float *c,
                                                                int64_t c_stride, int adds) {
    for (int64_t column = 0; column < columns; column += 2 * LANES)
        for (int64_t row = 0; row < rows; row += TILE) {
            const float *from = a + row * a_row, *with = b + column;
            float *to = c + row * c_stride + column;
            if (columns - column >= 2 * LANES) {
                if (adds)
                    NAME(step_tile)(TILE, 2, depth, from, a_row, a_step, with, b_stride, to, c_stride, 1);
                else
                    NAME(step_tile)(TILE, 2, depth, from, a_row, a_step, with, b_stride, to, c_stride, 0);
            } else {
                NAME(step_tile)(TILE, 1, depth, from, a_row, a_step, with, b_stride, to, c_stride, adds);
            }
        }
}

/* `count` rows of K numbers, times a factor, into rows of `width`, with zeros behind each and up to `padded` rows. */
static TARGET void NAME(copy_rows)(const float *from, int64_t stride, int64_t count, int64_t K, float factor, float *to,
                                   int64_t padded, int64_t width) {
    for (int64_t row = 0; row < padded; row++, from += stride, to += width) {
        int64_t i = 0, some = row < count ? K : 0;
        for (; i + LANES <= some; i += LANES) store(to + i, load(from + i) * factor);
        for (; i < some; i++) to[i] = from[i] * factor;
        for (; i < width; i++) to[i] = 0;
    }
}

/* A head of a row, as a thread has it in its scratch memory. */
struct NAME(step_head) {
    const struct attention *attention;
    int64_t row, head, T, K, padded_T, padded_K, D;
    float *keys, *turned_keys, *values, *grad_keys, *grad_values; /* [T][K], keys turned [K][T]; values turned, backward */
    float *scores, *grads;               /* [QUERIES][T] */
    float *queries, *grad_outs, *result; /* [QUERIES][K] */
};

static TARGET void NAME(begin_head)(struct NAME(step_head) *h, const struct attention *a, int64_t item, float *scratch) {
    int64_t T = round_up(a->length, QUERIES) + PANEL, K = round_up(a->width, PANEL);
    *h = (struct NAME(step_head)){.attention = a, .row = item / a->heads, .head = item % a->heads, .T = a->length,
                                  .K = a->width, .padded_T = T, .padded_K = K, .D = a->heads * a->width, .keys = scratch};
    h->turned_keys = h->keys + T * K;
    h->values = h->turned_keys + T * K;
    h->grad_keys = h->values + T * K;
    h->grad_values = h->grad_keys + T * K;
    h->scores = h->grad_values + T * K;
    h->grads = h->scores + QUERIES * T;
    h->queries = h->grads + QUERIES * T;
    h->grad_outs = h->queries + QUERIES * K;
    h->result = h->grad_outs + QUERIES * K;
    const float *from = a->qkv + h->row * h->T * 3 * h->D + h->head * h->K;
    NAME(lay_tile)(h->T, from + h->D, 3 * h->D, h->K, h->turned_keys);
    if (a->grad_out) {
        NAME(copy_rows)(from + h->D, 3 * h->D, h->T, h->K, 1, h->keys, T, K);
        NAME(lay_tile)(h->T, from + 2 * h->D, 3 * h->D, h->K, h->values);
        memset(h->grad_keys, 0, (size_t)(2 * T * K) * sizeof(float));
    } else {
        NAME(copy_rows)(from + 2 * h->D, 3 * h->D, h->T, h->K, 1, h->values, T, K);
    }
}

INLINE int64_t NAME(first_seen)(const struct NAME(step_head) *h, int64_t query) {
    return h->attention->first ? h->attention->first[h->row * h->T + query] : 0;
}

INLINE uint64_t NAME(row_key)(uint64_t seed, int64_t row) { return mixed((uint64_t)(row + 1) * GOLDEN + seed); }

INLINE uint64_t NAME(query_key)(const struct NAME(step_head) *h, int64_t query) {
    const struct attention *a = h->attention;
    return NAME(row_key)(a->seed, (h->row * a->heads + h->head) * h->T + query);
}

/* Below which hashes numbers are dropped, and what the others are multiplied by. */
static inline uint32_t NAME(dropped_below)(double dropout) {
    return dropout < 1 ? (uint32_t)(dropout * 4294967296.0) : UINT32_MAX;
}
static inline float NAME(kept_factor)(double dropout) { return dropout < 1 ? (float)(1 / (1 - dropout)) : 0; }

/* Scores of QUERIES queries and the keys from `start` to before `end`, both of which are whole panels. */
static TARGET void NAME(step_score)(const struct NAME(step_head) *h, int64_t query, int64_t count, int64_t start, int64_t end) {
    const struct attention *a = h->attention;
    const float *from = a->qkv + (h->row * h->T + query) * 3 * h->D + h->head * h->K;
    NAME(copy_rows)(from, 3 * h->D, count, h->K, (float)a->scale, h->queries, QUERIES, h->padded_K);
    NAME(step_product)(QUERIES, end - start, h->K, h->queries, h->padded_K, 1, h->turned_keys + start, h->T,
                       h->scores + start, h->padded_T, 0);
}

/* Make 0 what stands before `first` and behind `last`, in the panels from `start` to before `end`. */
INLINE void NAME(clear_outside)(float *x, int64_t start, int64_t first, int64_t last, int64_t end) {
    for (int64_t s = start; s < first; s++) x[s] = 0;
    for (int64_t s = last + 1; s < end; s++) x[s] = 0;
}

/* A query's scores into probabilities, those that are dropped into 0; returns the log of the sum of e^score. */
static TARGET float NAME(attend_query)(float *scores, int64_t start, int64_t first, int64_t last, int64_t end,
                                       uint64_t key, uint32_t dropped) {
    floats most = (floats){0} - INFINITY, sums = {0};
    NAME(words) places = NAME(first_places)() + (uint32_t)start;
    for (int64_t s = start; s < first; s++) scores[s] = -INFINITY;
    for (int64_t s = last + 1; s < end; s++) scores[s] = -INFINITY;
    for (int64_t s = start; s < end; s += LANES) most = NAME(greater)(load(scores + s), most);
    float greatest = NAME(greatest_lane)(most);
    for (int64_t s = start; s < end; s += LANES) {
        floats v = NAME(exponential)(load(scores + s) - greatest);
        store(scores + s, v);
    }
    NAME(clear_outside)(scores, start, first, last, end);
    for (int64_t s = start; s < end; s += LANES) sums += load(scores + s);
    float sum = NAME(sum)(sums), inverse = 1 / sum;
    for (int64_t s = start; s < end; s += LANES, places += LANES) {
        floats v = load(scores + s) * inverse;
        if (dropped) v = NAME(only)(NAME(kept)(key, places, dropped), v);
        store(scores + s, v);
    }
    return greatest + logf(sum);
}

/* The first panel that some of these queries see. */
static TARGET int64_t NAME(first_panel)(const struct NAME(step_head) *h, int64_t query, int64_t count) {
    int64_t least = query;
    for (int64_t q = query; q < query + count; q++)
        if (NAME(first_seen)(h, q) < least) least = NAME(first_seen)(h, q);
    return least / PANEL * PANEL;
}

static TARGET void NAME(attend_forward)(const struct NAME(step_head) *h) {
    const struct attention *a = h->attention;
    uint32_t dropped = NAME(dropped_below)(a->dropout);
    for (int64_t query = 0; query < h->T; query += QUERIES) {
        int64_t count = h->T - query < QUERIES ? h->T - query : QUERIES;
        int64_t start = NAME(first_panel)(h, query, count), end = round_up(query + count, PANEL);
        NAME(step_score)(h, query, count, start, end);
        for (int64_t q = 0; q < count; q++)
            a->log_sums[(h->row * a->heads + h->head) * h->T + query + q] =
                NAME(attend_query)(h->scores + q * h->padded_T, start, NAME(first_seen)(h, query + q), query + q, end,
                                   NAME(query_key)(h, query + q), dropped);
        NAME(step_product)(QUERIES, h->padded_K, query + count - start, h->scores + start, h->padded_T, 1,
                           h->values + start * h->padded_K, h->padded_K, h->result, h->padded_K, 0);
        NAME(copy_rows)(h->result, h->padded_K, count, h->K, NAME(kept_factor)(a->dropout), h->queries, QUERIES,
                        h->padded_K);
        for (int64_t q = 0; q < count; q++)
            memcpy(a->out + (h->row * h->T + query + q) * h->D + h->head * h->K, h->queries + q * h->padded_K,
                   (size_t)h->K * sizeof(float));
    }
}

/* From a query's scores and the gradients of its probabilities the probabilities that were kept, and the gradients of its
 * scores: p (g - Σ p g), where the sum over keys is that of o · ∂o over the head (Dao et al. 2022, appendix B.2). */
static TARGET void NAME(attend_query_backward)(float *scores, float *grads, int64_t start, int64_t first, int64_t last,
                                               int64_t end, float log_sum, float common, uint64_t key, uint32_t dropped,
                                               float factor) {
    NAME(words) places = NAME(first_places)() + (uint32_t)start;
    for (int64_t s = start; s < end; s += LANES, places += LANES) {
        floats p = NAME(exponential)(load(scores + s) - log_sum), kept = p, g = load(grads + s);
        if (dropped) {
            ints mask = NAME(kept)(key, places, dropped);
            kept = NAME(only)(mask, p) * factor;
            g = NAME(only)(mask, g) * factor;
        }
        store(grads + s, p * (g - common));
        store(scores + s, kept);
    }
    NAME(clear_outside)(scores, start, first, last, end);
    NAME(clear_outside)(grads, start, first, last, end);
}

static TARGET void NAME(attend_backward)(const struct NAME(step_head) *h) {
    const struct attention *a = h->attention;
    uint32_t dropped = NAME(dropped_below)(a->dropout);
    int64_t T = h->padded_T, K = h->padded_K;
    for (int64_t query = 0; query < h->T; query += QUERIES) {
        int64_t count = h->T - query < QUERIES ? h->T - query : QUERIES, place = h->row * h->T + query;
        int64_t start = NAME(first_panel)(h, query, count), end = round_up(query + count, PANEL);
        int64_t first_tile = start / QUERIES * QUERIES;
        const float *out = a->out + place * h->D + h->head * h->K, *grad_out = a->grad_out + place * h->D + h->head * h->K;
        NAME(step_score)(h, query, count, start, end);
        NAME(copy_rows)(grad_out, h->D, count, h->K, 1, h->grad_outs, QUERIES, K);
        NAME(step_product)(QUERIES, end - start, h->K, h->grad_outs, K, 1, h->values + start, h->T, h->grads + start, T, 0);
        for (int64_t q = 0; q < QUERIES; q++) {
            float *scores = h->scores + q * T, *grads = h->grads + q * T, common = 0;
            if (q >= count) {
                memset(scores + first_tile, 0, (size_t)(T - first_tile) * sizeof(float));
                memset(grads + first_tile, 0, (size_t)(T - first_tile) * sizeof(float));
                continue;
            }
            floats commons = {0};
            int64_t i = 0;
            for (; i + LANES <= h->K; i += LANES) commons += load(out + q * h->D + i) * load(grad_out + q * h->D + i);
            for (; i < h->K; i++) common += out[q * h->D + i] * grad_out[q * h->D + i];
            common += NAME(sum)(commons);
            NAME(attend_query_backward)(scores, grads, start, NAME(first_seen)(h, query + q), query + q, end,
                                        a->log_sums[(h->row * a->heads + h->head) * h->T + query + q], common,
                                        NAME(query_key)(h, query + q), dropped, NAME(kept_factor)(a->dropout));
            memset(scores + first_tile, 0, (size_t)(start - first_tile) * sizeof(float));
            memset(grads + first_tile, 0, (size_t)(start - first_tile) * sizeof(float));
            for (int64_t s = end; s < query + QUERIES; s++) scores[s] = grads[s] = 0;
        }
        int64_t seen = query + QUERIES - first_tile;
        NAME(step_product)(seen, K, QUERIES, h->scores + first_tile, 1, T, h->grad_outs, K, h->grad_values + first_tile * K,
                           K, 1);
        NAME(step_product)(seen, K, QUERIES, h->grads + first_tile, 1, T, h->queries, K, h->grad_keys + first_tile * K, K, 1);
        NAME(step_product)(QUERIES, K, query + count - start, h->grads + start, T, 1, h->keys + start * K, K, h->result, K, 0);
        float *grad_query = a->grad_qkv + place * 3 * h->D + h->head * h->K;
        for (int64_t q = 0; q < count; q++)
            for (int64_t i = 0; i < h->K; i++) grad_query[q * 3 * h->D + i] = h->result[q * K + i] * (float)a->scale;
    }
    float *grad_keys = a->grad_qkv + h->row * h->T * 3 * h->D + h->D + h->head * h->K;
    for (int64_t s = 0; s < h->T; s++, grad_keys += 3 * h->D) {
        memcpy(grad_keys, h->grad_keys + s * K, (size_t)h->K * sizeof(float));
        memcpy(grad_keys + h->D, h->grad_values + s * K, (size_t)h->K * sizeof(float));
    }
}

/* What each thread does: one head of a row after the other. */
TARGET void NAME(attend_all)(void *argument) {
    struct attention *a = argument;
    float *scratch = a->scratch + atomic_fetch_add(&a->next_thread, 1) * a->stride_scratch;
    for (long item; (item = atomic_fetch_add(&a->next, 1)) < a->rows * a->heads;) {
        struct NAME(step_head) head;
        NAME(begin_head)(&head, a, item, scratch);
        if (a->grad_out)
            NAME(attend_backward)(&head);
        else
            NAME(attend_forward)(&head);
    }
}

/* Some numbers, up to LANES of them; zeros behind them. */
INLINE floats NAME(load_some)(const float *from, int64_t count) {
    floats v = {0};
    if (count >= LANES) return load(from);
    memcpy(&v, from, (size_t)count * sizeof(float));
    return v;
}

INLINE void NAME(store_some)(float *to, floats v, int64_t count) {
    if (count >= LANES)
        store(to, v);
    else
        memcpy(to, &v, (size_t)count * sizeof(float));
}

/* x += bias, y = gelu(x). */
INLINE void NAME(gelu_row)(const struct rows *r, float *x, float *y) {
    for (int64_t i = 0, left = r->width; left > 0; i += LANES, left -= LANES) {
        floats v = NAME(load_some)(x + i, left) + NAME(load_some)(r->bias + i, left);
        NAME(store_some)(x + i, v, left);
        NAME(store_some)(y + i, NAME(gelu)(v), left);
    }
}

/* y *= gelu'(x), which is added to sums if there are any; x = gelu(x). With s = 1 / (1 + e), e = e^-2u, it is s + 2 x u' e s². */
INLINE void NAME(gelu_gradient_row)(const struct rows *r, float *x, float *y, float *sums) {
    for (int64_t i = 0, left = r->width; left > 0; i += LANES, left -= LANES) {
        floats v = NAME(load_some)(x + i, left), square = v * v;
        floats e = NAME(exponential)(-1.5957691216f * (v + 0.044715f * v * square)), s = 1.0f / (1.0f + e);
        floats slope = s + v * (1.5957691216f + 0.2140644488f * square) * (e * s) * s;
        floats grad = NAME(load_some)(y + i, left) * slope;
        NAME(store_some)(x + i, v * s, left);
        NAME(store_some)(y + i, grad, left);
        if (sums) NAME(store_some)(sums + i, NAME(load_some)(sums + i, left) + grad, left);
    }
}

/* y = dropout(y + bias) + input. */
INLINE void NAME(add_onto_row)(const struct rows *r, const float *input, float *y, uint64_t key, uint32_t dropped) {
    NAME(words) places = NAME(first_places)();
    float factor = NAME(kept_factor)(r->dropout);
    for (int64_t i = 0, left = r->width; left > 0; i += LANES, left -= LANES, places += LANES) {
        floats v = NAME(load_some)(y + i, left) + NAME(load_some)(r->bias + i, left);
        if (dropped) v = NAME(only)(NAME(kept)(key, places, dropped), v) * factor;
        NAME(store_some)(y + i, v + NAME(load_some)(input + i, left), left);
    }
}

/* The gradient of what went into that dropout, which is added to sums, and y if there is any, from that of what came
 * out. */
INLINE void NAME(drop_gradient_row)(const struct rows *r, const float *input, float *y, float *sums, uint64_t key,
                                    uint32_t dropped) {
    NAME(words) places = NAME(first_places)();
    float factor = NAME(kept_factor)(r->dropout);
    for (int64_t i = 0, left = r->width; left > 0; i += LANES, left -= LANES, places += LANES) {
        floats v = NAME(load_some)(input + i, left);
        if (dropped) v = NAME(only)(NAME(kept)(key, places, dropped), v) * factor;
        if (y) NAME(store_some)(y + i, v, left);
        if (sums) NAME(store_some)(sums + i, NAME(load_some)(sums + i, left) + v, left);
    }
}

/* y = (input - mean) / deviation · gain + bias; statistics are the mean and one over the deviation. */
INLINE void NAME(norm_row)(const struct rows *r, const float *input, float *y, float *statistics) {
    float width = (float)r->width;
    floats sums = {0}, squares = {0};
    for (int64_t i = 0, left = r->width; left > 0; i += LANES, left -= LANES) sums += NAME(load_some)(input + i, left);
    float mean = NAME(sum)(sums) / width, square = 0;
    int64_t i = 0;
    for (; i + LANES <= r->width; i += LANES) {
        floats off = load(input + i) - mean;
        squares += off * off;
    }
    for (; i < r->width; i++) square += (input[i] - mean) * (input[i] - mean);
    float scale = 1 / sqrtf((NAME(sum)(squares) + square) / width + (float)r->epsilon);
    for (int64_t j = 0, left = r->width; left > 0; j += LANES, left -= LANES) {
        floats v = (NAME(load_some)(input + j, left) - mean) * scale;
        NAME(store_some)(y + j, v * NAME(load_some)(r->gain + j, left) + NAME(load_some)(r->bias + j, left), left);
    }
    statistics[0] = mean;
    statistics[1] = scale;
}

/* y = x + the gradient of the norm's input, from y, that of its output; sums get those of gain and bias. With n the
 * normed numbers and h = y · gain it is (h - mean(h) - n mean(h n)) / deviation. */
INLINE void NAME(norm_gradient_row)(const struct rows *r, const float *input, const float *x, float *y,
                                    const float *statistics, float *sums) {
    float mean = statistics[0], scale = statistics[1], width = (float)r->width;
    floats all = {0}, along = {0};
    for (int64_t i = 0, left = r->width; left > 0; i += LANES, left -= LANES) {
        floats grad = NAME(load_some)(y + i, left), normed = (NAME(load_some)(input + i, left) - mean) * scale;
        floats h = grad * NAME(load_some)(r->gain + i, left);
        all += h;
        along += h * normed;
        if (sums == NULL) continue;
        float *shift_sums = sums + r->width + i;
        NAME(store_some)(sums + i, NAME(load_some)(sums + i, left) + grad * normed, left);
        NAME(store_some)(shift_sums, NAME(load_some)(shift_sums, left) + grad, left);
    }
    float all_mean = NAME(sum)(all) / width, along_mean = NAME(sum)(along) / width;
    for (int64_t i = 0, left = r->width; left > 0; i += LANES, left -= LANES) {
        floats normed = (NAME(load_some)(input + i, left) - mean) * scale;
        floats h = NAME(load_some)(y + i, left) * NAME(load_some)(r->gain + i, left);
        NAME(store_some)(y + i, NAME(load_some)(x + i, left) + (h - all_mean - normed * along_mean) * scale, left);
    }
}

/* Scores y into their error, softmax - onehot(target); statistics[0] is the target's nats. */
INLINE void NAME(cross_entropy_row)(const struct rows *r, float *y, int64_t target, float *statistics) {
    int64_t whole = r->width / LANES * LANES, place;
    float greatest = NAME(greatest)(y, r->width, &place), score = y[target], rest = 0;
    double total = 0;
    for (int64_t begin = 0, end; begin < whole; begin = end) { /* in parts, so that sums stay exact */
        end = whole - begin < 4096 ? whole : begin + 4096;
        floats sums = {0};
        for (int64_t i = begin; i < end; i += LANES) {
            floats v = NAME(exponential)(load(y + i) - greatest);
            store(y + i, v);
            sums += v;
        }
        total += (double)NAME(sum)(sums);
    }
    for (int64_t i = whole; i < r->width; i++) rest += y[i] = expf(y[i] - greatest);
    total += (double)rest;
    float inverse = (float)(1 / total);
    for (int64_t i = 0; i < whole; i += LANES) store(y + i, load(y + i) * inverse);
    for (int64_t i = whole; i < r->width; i++) y[i] *= inverse;
    y[target] -= 1;
    statistics[0] = (float)(log(total) + (double)greatest - (double)score);
}

static TARGET void NAME(one_row)(const struct rows *r, int64_t row, float *sums, uint32_t dropped) {
    int64_t begin = row * r->stride;
    uint64_t key = NAME(row_key)(r->seed, row);
    switch ((enum row_operation)r->operation) {
        case GELU_ROWS: NAME(gelu_row)(r, r->x + begin, r->y + begin); break;
        case GELU_GRADIENT: NAME(gelu_gradient_row)(r, r->x + begin, r->y + begin, sums); break;
        case ADD_ONTO: NAME(add_onto_row)(r, r->input + begin, r->y + begin, key, dropped); break;
        case DROP_GRADIENT:
            NAME(drop_gradient_row)(r, r->input + begin, r->y ? r->y + begin : NULL, sums, key, dropped);
            break;
        case NORM: NAME(norm_row)(r, r->input + begin, r->y + begin, r->statistics + 2 * row); break;
        case NORM_GRADIENT:
            NAME(norm_gradient_row)(r, r->input + begin, r->x + begin, r->y + begin, r->statistics + 2 * row, sums);
            break;
        case CROSS_ENTROPY: NAME(cross_entropy_row)(r, r->y + begin, r->targets[row], r->statistics + 2 * row); break;
    }
}

/* What each thread does: one chunk of rows after the other. */
TARGET void NAME(all_rows)(void *argument) {
    struct rows *r = argument;
    uint32_t dropped = NAME(dropped_below)(r->dropout);
    for (long chunk; (chunk = atomic_fetch_add(&r->next, 1)) * CHUNK < r->num_rows;) {
        int64_t end = (chunk + 1) * CHUNK < r->num_rows ? (chunk + 1) * CHUNK : r->num_rows;
        float *sums = r->sums ? r->sums + chunk * 2 * r->width : NULL;
        if (sums) memset(sums, 0, (size_t)(2 * r->width) * sizeof(float));
        for (int64_t row = chunk * CHUNK; row < end; row++) NAME(one_row)(r, row, sums, dropped);
    }
}
