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

static const int8_t codes[16] = CODES;

/* The places in `codes` that are nearest to weights / scale. */
static void nearest_codes(const float *weights, int64_t size, float scale, int8_t *places) {
    float inverse = scale == 0 ? 0 : 1 / scale;
    int32_t found[64] = {0};
    for (int code = 1; code < 16; code++) {
        float middle = 0.5f * (float)(codes[code - 1] + codes[code]);
        for (int64_t i = 0; i < size; i++) found[i] += weights[i] * inverse > middle;
    }
    for (int64_t i = 0; i < size; i++) places[i] = (int8_t)found[i];
}

/* Quantise a group to places in `codes`. The error of codes c with the best scale for them, Σwc / Σc², is
 * Σw² - (Σwc)² / Σc²: of some scales, the one whose codes have the least. */
static float quantise_to_4_bits(const float *weights, int64_t size, int8_t *places) {
    float greatest = 0, best_scale = 0, best_gain = -1;
    for (int64_t i = 0; i < size; i++)
        if (fabsf(weights[i]) > fabsf(greatest)) greatest = weights[i];
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int step = -8; step <= 8; step++) {
            nearest_codes(weights, size, greatest / ((float)sign * (120.0f + 4 * (float)step)), places);
            float product = 0, square = 0;
            for (int64_t i = 0; i < size; i++) {
                float code = codes[places[i]];
                product += weights[i] * code;
                square += code * code;
            }
            float gain = product * product / square; /* no code is 0 */
            if (gain > best_gain) best_gain = gain, best_scale = product / square;
        }
    }
    best_scale = from_bfloat16(to_bfloat16(best_scale));
    nearest_codes(weights, size, best_scale, places);
    return best_scale;
}

/* The scale of a group with a number that is infinite or none (NaN) is infinite. Greatest as integers, numbers come in
 * the same order, and compilers compute many at a time. */
static float quantise_to_8_bits(const float *weights, int64_t size, int8_t *quantised) {
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves no bits behind the point */
    const int32_t infinite = 0x7f800000;
    int32_t bits[64], most = 0;
    memcpy(bits, weights, (size_t)size * sizeof *bits);
    for (int64_t i = 0; i < size; i++) {
        int32_t magnitude = bits[i] & 0x7fffffff;
        most = magnitude > most ? magnitude : most;
    }
    float greatest;
    memcpy(&greatest, most > infinite ? &infinite : &most, sizeof greatest);
    float scale = from_bfloat16(to_bfloat16(greatest / 127));
    if (scale == 0 || most >= infinite) {
        memset(quantised, 0, (size_t)size);
        return scale;
    }
    for (int64_t i = 0; i < size; i++) {
        float rounded = weights[i] / scale + round - round;
        rounded = rounded < -127 ? -127 : rounded;
        quantised[i] = (int8_t)(rounded > 127 ? 127 : rounded);
    }
    return scale;
}

/* A few inputs at a time, so that the lines which all lanes take from or write to stay in the nearest cache. */
static void pack_fp32(const struct packing *packing, int64_t panel) {
    const struct linear *linear = packing->linear;
    float *target = (float *)linear->weights + panel * linear->in * PANEL;
    int64_t first = panel * PANEL, lanes = linear->out - first < PANEL ? linear->out - first : PANEL;
    for (int64_t begin = 0; begin < linear->in; begin += PANEL) {
        int64_t end = begin + PANEL < linear->in ? begin + PANEL : linear->in;
        for (int64_t lane = 0; lane < PANEL; lane++) {
            const float *source = packing->source + (first + lane) * packing->step_out;
            for (int64_t i = begin; i < end; i++)
                target[i * PANEL + lane] = lane < lanes ? source[i * packing->step_in] : 0;
        }
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
            int8_t quantised[64];
            float scale = linear->format == INT8 ? quantise_to_8_bits(weights, size, quantised)
                                                 : quantise_to_4_bits(weights, size, quantised);
            scales[group * PANEL + lane] = to_bfloat16(scale);
            for (int64_t i = 0; i < size; i++) {
                int64_t quad = i / QUAD, place = lane * QUAD + i % QUAD;
                if (linear->format == INT8)
                    target[quad * 64 + place] = (uint8_t)(quantised[i] + 128);
                else if (quad < 4)
                    target[quad * 64 + place] = (uint8_t)quantised[i];
                else
                    target[(quad - 4) * 64 + place] |= (uint8_t)(quantised[i] << 4);
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
