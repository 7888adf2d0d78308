/* Weights into panels, as they are or quantised. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

struct packing {
    struct linear *linear;
    const float *source;
    int64_t step_in, step_out; /* between two inputs, two outputs of the source */
    atomic_long next;
};

static uint16_t to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* to nearest, ties to even; never NaN here */
}

static float from_bfloat16(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static float squared_error(const float *weights, int64_t size, float scale, float least, float most) {
    float sum = 0;
    for (int64_t i = 0; i < size; i++) {
        float rounded = rintf(weights[i] / scale);
        rounded = rounded < least ? least : rounded > most ? most : rounded;
        float error = weights[i] - rounded * scale;
        sum += error * error;
    }
    return sum;
}

/* The bfloat16 scale of a group. With 4 bits, the one of some candidates that is nearest to the weights: the weight of
 * the greatest magnitude may become -8, there being no 8, or be cut off for the good of the others. */
static float best_scale(const float *weights, int64_t size, int64_t format) {
    float greatest = 0;
    for (int64_t i = 0; i < size; i++)
        if (fabsf(weights[i]) > fabsf(greatest)) greatest = weights[i];
    if (greatest == 0) return 0;
    if (format == INT8) return from_bfloat16(to_bfloat16(fabsf(greatest) / 127));
    float best = 0, least_error = INFINITY;
    for (int step = 0; step <= 12; step++) {
        float scale = from_bfloat16(to_bfloat16(-greatest / (6.6f + 0.2f * (float)step)));
        float error = scale == 0 ? INFINITY : squared_error(weights, size, scale, -8, 7);
        if (error < least_error) best = scale, least_error = error;
    }
    return best;
}

static void quantise_group(const float *weights, int64_t size, float scale, int64_t format, int8_t *quantised) {
    float least = format == INT8 ? -127 : -8, most = format == INT8 ? 127 : 7;
    for (int64_t i = 0; i < size; i++) {
        float rounded = scale == 0 ? 0 : rintf(weights[i] / scale);
        quantised[i] = (int8_t)(rounded < least ? least : rounded > most ? most : rounded);
    }
}

static void pack_fp32(const struct packing *packing, int64_t panel) {
    const struct linear *linear = packing->linear;
    float *target = (float *)linear->weights + panel * linear->in * PANEL;
    for (int64_t lane = 0; lane < PANEL; lane++) {
        int64_t output = panel * PANEL + lane;
        for (int64_t i = 0; i < linear->in; i++)
            target[i * PANEL + lane] =
                output < linear->out ? packing->source[i * packing->step_in + output * packing->step_out] : 0;
    }
}

static void pack_quantised(const struct packing *packing, int64_t panel) {
    const struct linear *linear = packing->linear;
    int64_t size = group_size(linear->format), groups = round_up(linear->in, size) / size;
    uint8_t *target = (uint8_t *)linear->weights + panel * panel_bytes(linear->format, linear->in);
    uint16_t *scales = (uint16_t *)linear->scales + panel * groups * PANEL;
    for (int64_t group = 0; group < groups; group++) {
        for (int64_t lane = 0; lane < PANEL; lane++) {
            int64_t output = panel * PANEL + lane;
            float weights[64] = {0};
            for (int64_t i = 0; i < size && group * size + i < linear->in && output < linear->out; i++)
                weights[i] = packing->source[(group * size + i) * packing->step_in + output * packing->step_out];
            float scale = best_scale(weights, size, linear->format);
            int8_t quantised[64];
            quantise_group(weights, size, scale, linear->format, quantised);
            scales[group * PANEL + lane] = to_bfloat16(scale);
            for (int64_t i = 0; i < size; i++) {
                int64_t quad = i / QUAD, place = lane * QUAD + i % QUAD;
                if (linear->format == INT8)
                    target[quad * 64 + place] = (uint8_t)(quantised[i] + 128);
                else if (quad < 4)
                    target[quad * 64 + place] = (uint8_t)(quantised[i] + 8);
                else
                    target[(quad - 4) * 64 + place] |= (uint8_t)((quantised[i] + 8) << 4);
            }
        }
        target += size * PANEL / (linear->format == INT4 ? 2 : 1);
    }
}

static void pack_some(void *argument, int thread) {
    (void)thread;
    struct packing *packing = argument;
    int64_t panels = round_up(packing->linear->out, PANEL) / PANEL;
    for (int64_t panel; (panel = atomic_fetch_add(&packing->next, 1)) < panels;)
        packing->linear->format == FP32 ? pack_fp32(packing, panel) : pack_quantised(packing, panel);
}

/* Fill `linear->weights` and `linear->scales` from a float32 matrix. */
void gk_pack(struct pool *pool, struct linear *linear, const float *source, int64_t step_in, int64_t step_out) {
    struct packing packing = {linear, source, step_in, step_out, 0};
    pool_run(pool, pack_some, &packing);
}
