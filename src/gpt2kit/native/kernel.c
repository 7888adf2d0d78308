/* GPT-2's forward pass on a CPU: what Python calls, and the three instruction sets it is compiled for. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "kernel.h"

/* What body.h takes from here: fetch_line fetches weights that are used soon, at one line of them, the line-th of a run.
 * dot_u8 adds, for each token, the products of 4 activations and 64 bytes, the weights of 16 outputs by 4 inputs. codes_u4
 * makes such bytes of 64 whose low and high bits hold the places in `codes` of two. */

static const int8_t codes[16] = CODES;

typedef float float4 __attribute__((vector_size(16)));
typedef int32_t int4 __attribute__((vector_size(16)));
typedef uint32_t uint4 __attribute__((vector_size(16)));
typedef int16_t short8 __attribute__((vector_size(16)));

/* Four of the eight numbers of two vectors. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define shuffled(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef shuffled
#define shuffled(a, b, ...) __builtin_shuffle(a, b, (int4){__VA_ARGS__})
#endif

/* Take the next numbers of a phase: a share of those that are left, so that a thread has long runs, of weights to read for
 * instance, and none waits long for another at the end; up to `most`. Returns how many, from *begin on. */
static int64_t take_share(atomic_long *next, int64_t threads, int64_t *begin, int64_t total, int64_t most) {
    long first = atomic_load(next);
    int64_t count;
    do {
        count = (total - first) / (2 * threads);
        if (count < 1) count = total - first < 1 ? 0 : 1;
        if (count > most) count = most;
    } while (count > 0 && !atomic_compare_exchange_weak(next, &first, first + count));
    *begin = first;
    return count;
}

static int64_t take_some(struct worker *worker, int64_t *begin, int64_t total, int64_t most) {
    return take_share(worker->next, pool_size(worker->call->pool), begin, total, most);
}

/* A tile of tokens that are multiplied together. */
struct tile {
    int64_t first, tokens;
};

/* The tile that a token is in: `most` tokens each. Of four tiles or more the last two share what is left for them, for a
 * tile of a few takes little less time than one of twice as many. */
static struct tile tile_at(int64_t token, int64_t tokens, int64_t most) {
    int64_t last = (tokens - 1) / most, first = token / most * most;
    struct tile tile = {first, tokens - first < most ? tokens - first : most};
    int64_t shared = (last - 1) * most, half = (tokens - shared + 1) / 2;
    if (last < 3 || token < shared) return tile;
    if (token < shared + half) return (struct tile){shared, half};
    return (struct tile){shared + half, tokens - shared - half};
}

static struct worker begin_worker(struct call *call, int thread) {
    struct worker worker = {call, call->next, call->num_tokens <= FEW_TOKENS, call->normed_ND,
                            call->tiles, call->sums + thread * call->stride_sums,
                            call->panels + thread * call->stride_panels, call->quantised};
    if (worker.is_alone) {
        struct quantised *q = &worker.quantised;
        int64_t first = thread * FEW_TOKENS, most_groups = q->stride / 32 + 1;
        worker.normed_ND += first * call->stride_D;
        worker.tiles += first * q->stride;
        q->values += first * q->stride;
        q->scales += first * most_groups;
        q->sums += first * most_groups;
    }
    return worker;
}

/* The mixing function of SplitMix64 (Steele, Lea & Flood 2014), of a number or of a vector of them. */
#define GOLDEN 0x9E3779B97F4A7C15u
#define mixed(value)                                         \
    ({                                                       \
        __typeof__(value) mixed_z = (value);                 \
        mixed_z = (mixed_z ^ mixed_z >> 30) * 0xBF58476D1CE4E5B9u; \
        mixed_z = (mixed_z ^ mixed_z >> 27) * 0x94D049BB133111EBu; \
        mixed_z ^ mixed_z >> 31;                             \
    })

static float noise(uint64_t key, int64_t id) {
    double u = ((double)(mixed((uint64_t)(id + 1) * GOLDEN + key) >> 12) + 0.5) * 0x1p-52;
    return (float)-log(-log(u));
}

/* The float that comes at a place in the order of floats, from the least at INT32_MIN on. */
static float float_in_order(int64_t place) {
    int32_t bits = (int32_t)(place < 0 ? place ^ INT32_MAX : place);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#define NAME(x) x##_portable
#define TARGET
#define LANES 4
#define TILE 3
#define WIDE 1
#define QTILE 3
#if defined(__ARM_FEATURE_DOTPROD)
#define OFFSET 0
#else
#define OFFSET 128
#endif
typedef float4 floats_portable;
static inline floats_portable greater_portable(floats_portable v, floats_portable most) {
    int4 larger = v > most;
    return (floats_portable)(((int4)v & larger) | ((int4)most & ~larger));
}
static inline floats_portable lesser_portable(floats_portable v, floats_portable least) {
    int4 smaller = v < least;
    return (floats_portable)(((int4)v & smaller) | ((int4)least & ~smaller));
}
static inline void add_products_portable(int vectors, floats_portable *sums, const floats_portable *w, const float *x,
                                         int is_direct) {
    (void)is_direct;
    for (int v = 0; v < vectors; v++) sums[v] += *x * w[v];
}
static inline __attribute__((always_inline)) void fetch_line_portable(const void *weights, int64_t line) {
    (void)line;
    __builtin_prefetch((const char *)weights + 2048);
}
typedef int32_t dots_portable __attribute__((vector_size(16)));
#if defined(__ARM_FEATURE_DOTPROD)
static inline __attribute__((always_inline)) void dot_u8_portable(int tokens, dots_portable dots[][4], const uint8_t *w,
                                                                  const int8_t *x) {
    for (int part = 0; part < 4; part++) {
        int8x16_t weights = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + part * 16), vdupq_n_u8(128)));
        for (int t = 0; t < tokens; t++) {
            int32_t four;
            memcpy(&four, x + t * QUAD, sizeof four);
            int8x16_t all = vreinterpretq_s8_s32(vdupq_n_s32(four));
            dots[t][part] = (dots_portable)vdotq_s32((int32x4_t)dots[t][part], weights, all);
        }
    }
}
#else
/* Two products are added in 16 bits, which `quantise` keeps from overflowing. */
static inline __attribute__((always_inline)) void dot_u8_portable(int tokens, dots_portable dots[][4], const uint8_t *w,
                                                                  const int8_t *x) {
    for (int part = 0; part < 4; part++) {
        short8 both;
        memcpy(&both, w + part * 16, sizeof both);
        short8 even = both & 255, odd = both >> 8 & 255;
        for (int t = 0; t < tokens; t++) {
            const int8_t *four = x + t * QUAD;
            uint4 even_x = (uint4){0} + ((uint16_t)four[0] | (uint32_t)four[2] << 16);
            uint4 odd_x = (uint4){0} + ((uint16_t)four[1] | (uint32_t)four[3] << 16);
            uint4 pairs = (uint4)(even * (short8)even_x + odd * (short8)odd_x);
            dots[t][part] += ((int4)pairs >> 16) + ((int4)(pairs << 16) >> 16);
        }
    }
}
#endif
#if defined(__aarch64__)
static inline void codes_u4_portable(const uint8_t *w, uint8_t *low, uint8_t *high) {
    const uint8x16_t table = veorq_u8(vld1q_u8((const uint8_t *)codes), vdupq_n_u8(128));
    for (int i = 0; i < PANEL * QUAD; i += 16) {
        uint8x16_t both = vld1q_u8(w + i);
        vst1q_u8(low + i, vqtbl1q_u8(table, vandq_u8(both, vdupq_n_u8(15))));
        vst1q_u8(high + i, vqtbl1q_u8(table, vshrq_n_u8(both, 4)));
    }
}
#else
static inline void codes_u4_portable(const uint8_t *w, uint8_t *low, uint8_t *high) {
    for (int i = 0; i < PANEL * QUAD; i++) {
        low[i] = (uint8_t)(codes[w[i] & 15] + 128);
        high[i] = (uint8_t)(codes[w[i] >> 4] + 128);
    }
}
#endif
#include "body.h"
#undef NAME
#undef TARGET
#undef LANES
#undef TILE
#undef WIDE
#undef QTILE
#undef OFFSET

#if defined(__x86_64__)
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define TILE 6
#define WIDE 1
#define QTILE 6
#define OFFSET 128
typedef float floats_avx2 __attribute__((vector_size(32)));
TARGET static inline floats_avx2 greater_avx2(floats_avx2 v, floats_avx2 most) {
    return (floats_avx2)_mm256_max_ps((__m256)v, (__m256)most);
}
TARGET static inline floats_avx2 lesser_avx2(floats_avx2 v, floats_avx2 least) {
    return (floats_avx2)_mm256_min_ps((__m256)v, (__m256)least);
}
TARGET static inline __attribute__((always_inline)) void add_products_avx2(int vectors, floats_avx2 *sums,
                                                                           const floats_avx2 *w, const float *x,
                                                                           int is_direct) {
    (void)is_direct;
    for (int v = 0; v < vectors; v++) sums[v] += *x * w[v];
}
/* The processor fetches on of its own accord up to the end of a page; so a few lines of the next one are asked for. */
TARGET static inline __attribute__((always_inline)) void fetch_line_avx2(const void *weights, int64_t line) {
    if (line % 16 < 4) __builtin_prefetch((const char *)weights + 4096, 0, 2);
}
typedef int32_t dots_avx2 __attribute__((vector_size(32)));
/* maddubs adds two products in 16 bits, which `quantise` keeps from overflowing. GCC would keep the activations of all
 * tokens for the other half, and put the sums away. */
TARGET static inline __attribute__((always_inline)) void dot_u8_avx2(int tokens, dots_avx2 dots[][2], const uint8_t *w,
                                                                     const int8_t *x) {
    for (int half = 0; half < 2; half++) {
        __m256i weights = _mm256_loadu_si256((const __m256i *)w + half);
        UNROLL for (int t = 0; t < tokens; t++) {
            __m256i pairs;
            __asm__ volatile("vpbroadcastd %1, %0" : "=x"(pairs) : "m"(*(const int8_t(*)[QUAD])(x + t * QUAD)));
            pairs = _mm256_maddubs_epi16(weights, pairs);
            dots[t][half] += (dots_avx2)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        }
    }
}
TARGET static inline __attribute__((always_inline)) void codes_u4_avx2(const uint8_t *w, uint8_t *low, uint8_t *high) {
    const __m256i four_bits = _mm256_set1_epi8(15);
    /* The codes and 128: adding that is flipping the highest bit. */
    const __m256i table = _mm256_xor_si256(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codes)),
                                           _mm256_set1_epi8((char)0x80));
    for (int half = 0; half < 2; half++) {
        __m256i both = _mm256_loadu_si256((const __m256i *)w + half);
        __m256i behind = _mm256_srli_epi16(both, 4);
        _mm256_storeu_si256((__m256i *)low + half, _mm256_shuffle_epi8(table, _mm256_and_si256(both, four_bits)));
        _mm256_storeu_si256((__m256i *)high + half, _mm256_shuffle_epi8(table, _mm256_and_si256(behind, four_bits)));
    }
}
#include "body.h"
#undef NAME
#undef TARGET
#undef LANES
#undef TILE
#undef WIDE
#undef QTILE
#undef OFFSET

#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")))
#define LANES 16
#define TILE 12
#define WIDE 2
#define QTILE 12
#define OFFSET 128
typedef float floats_avx512 __attribute__((vector_size(64)));
TARGET static inline floats_avx512 greater_avx512(floats_avx512 v, floats_avx512 most) {
    return (floats_avx512)_mm512_max_ps((__m512)v, (__m512)most);
}
TARGET static inline floats_avx512 lesser_avx512(floats_avx512 v, floats_avx512 least) {
    return (floats_avx512)_mm512_min_ps((__m512)v, (__m512)least);
}
/* GCC 12 writes a sum into the register of a factor now and then, and moves it back; and never takes x from memory in
 * the same instruction where several need it. If all did, they would wait for the loads; if none, for the decoding. */
TARGET static inline __attribute__((always_inline)) void add_products_avx512(int vectors, floats_avx512 *sums,
                                                                             const floats_avx512 *w, const float *x,
                                                                             int is_direct) {
    floats_avx512 all;
    if (!is_direct) __asm__("vbroadcastss %1, %0" : "=v"(all) : "m"(*x));
    UNROLL for (int v = 0; v < vectors; v++)
        if (is_direct)
            __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sums[v]) : "v"(w[v]), "m"(*x));
        else
            __asm__("vfmadd231ps %2, %1, %0" : "+v"(sums[v]) : "v"(w[v]), "v"(all));
}
TARGET static inline __attribute__((always_inline)) void fetch_line_avx512(const void *weights, int64_t line) {
    (void)line;
    __builtin_prefetch((const char *)weights + 2048);
}
typedef int32_t dots_avx512 __attribute__((vector_size(64)));
/* VNNI's product with 4 bytes for all lanes. GCC 12 has no pattern that takes them from memory in the same
 * instruction, and a third more instructions without. */
TARGET static inline __attribute__((always_inline)) dots_avx512 multiply_add(dots_avx512 sums, __m512i weights,
                                                                             const int8_t *four) {
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(weights), "m"(*(const int8_t(*)[QUAD])four));
    return sums;
}
TARGET static inline __attribute__((always_inline)) void dot_u8_avx512(int tokens, dots_avx512 dots[][1],
                                                                       const uint8_t *w, const int8_t *x) {
    __m512i weights = _mm512_loadu_si512(w);
    UNROLL for (int t = 0; t < tokens; t++)
        dots[t][0] = multiply_add(dots[t][0], weights, x + t * QUAD);
}
TARGET static inline __attribute__((always_inline)) void codes_u4_avx512(const uint8_t *w, uint8_t *low, uint8_t *high) {
    const __m512i four_bits = _mm512_set1_epi8(15);
    const __m512i table = _mm512_xor_si512(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)codes)),
                                           _mm512_set1_epi8((char)0x80));
    __m512i both = _mm512_loadu_si512(w);
    _mm512_storeu_si512(low, _mm512_shuffle_epi8(table, _mm512_and_si512(both, four_bits)));
    _mm512_storeu_si512(high, _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(both, 4), four_bits)));
}
#include "body.h"
#endif

/* A function as compiled for an instruction set. */
#if defined(__x86_64__)
#define FOR_ISA(name, isa) ((isa) == AVX512 ? name##_avx512 : (isa) == AVX2 ? name##_avx2 : name##_portable)
#else
#define FOR_ISA(name, isa) ((void)(isa), name##_portable)
#endif

/* The best instruction set of this processor and its system. Compilers have a function for that, but Zig's answers no. */
int gk_best_isa(void) {
#if defined(__x86_64__)
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    unsigned eax, ebx, ecx, edx, kept, high; /* kept: the registers that the system saves for a thread */
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE) || !(ecx & bit_FMA)) return PORTABLE;
    __asm__("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(ebx & bit_AVX2) || (kept & 0x06) != 0x06) return PORTABLE;
    if ((ebx & avx512) == avx512 && (ecx & bit_AVX512VNNI) && (kept & 0xe6) == 0xe6) return AVX512;
    return AVX2;
#else
    return PORTABLE;
#endif
}

/* Memory for a call, 64-byte aligned parts of one block. */
struct arena {
    char *memory;
    size_t used;
};

static void *take(struct arena *arena, int64_t bytes) {
    void *part = arena->memory ? arena->memory + arena->used : NULL;
    arena->used += (size_t)round_up(bytes, 64);
    return part;
}

/* Rows are a cache line longer than they need to be, or those of a tile would fall into the same set of the cache. */
static int64_t stride_of(int64_t width) { return round_up(width, 64) + PANEL; }

static void lay_out(struct call *call, struct arena *arena, int64_t *row_starts) {
    const struct model *model = call->model;
    int64_t N = call->num_tokens, widest = call->stride_F > call->stride_D ? call->stride_F : call->stride_D;
    int64_t K16 = round_up(model->n_embd / model->n_head, PANEL), threads = pool_size(call->pool);
    int64_t prepared = N <= FEW_TOKENS ? FEW_TOKENS * threads : N; /* tokens, see struct worker */
    struct quantised *q = &call->quantised;
    call->x_ND = take(arena, N * call->stride_D * 4);
    call->normed_ND = take(arena, prepared * call->stride_D * 4);
    call->heads_ND = take(arena, N * call->stride_D * 4);
    call->qkv_N3D = take(arena, N * call->stride_3D * 4);
    call->inner_NF = take(arena, N * call->stride_F * 4);
    call->scores = take(arena, threads * 12 * (call->stride_scores + K16) * 4);
    q->stride = widest;
    call->tiles = take(arena, model->head.format == FP32 ? prepared * widest * 4 : 0);
    q->values = take(arena, prepared * widest);
    q->scales = take(arena, prepared * (widest / 32 + 1) * 4);
    q->sums = take(arena, prepared * (widest / 32 + 1) * 4);
    call->stride_sums = N > 3 && model->head.format == FP32 ? N * MOST_PAIRS * 2 * PANEL : 0;
    call->sums = take(arena, threads * call->stride_sums * 4);
    call->stride_panels = N > 3 && model->layers->attention.format == INT4 ? PANEL * widest : 0;
    call->panels = take(arena, threads * call->stride_panels);
    call->next = take(arena, (model->n_layer * 11 + 8) * (int64_t)sizeof(atomic_long));
    if (call->picking.is_screened) {
        struct quantised *digits = &call->picking.digits;
        int64_t in = round_up(model->n_embd, group_size(INT8)), most = FEW_TOKENS * 2 + call->num_scored;
        digits->stride = in, digits->groups = in / group_size(INT8);
        digits->values = take(arena, most * in);
        digits->scales = take(arena, most * digits->groups * 4);
        digits->sums = take(arena, most * digits->groups * 4);
        call->picking.factors = take(arena, call->num_scored * digits->groups * 4);
    }
    call->row_starts = row_starts = take(arena, call->num_rows * 8);
    for (int64_t row = 0, start = 0; arena->memory && row < call->num_rows; start += call->rows[row++].count)
        row_starts[row] = start;
}

/* Read some tokens of several texts: fills their caches, and `logits` with the scores behind the last of them; or, if
 * there are `picks`, picks a token from the scores, and `logits` is room for two rows for each, see pick.h.
 *
 * ids holds the tokens of the first row, then those of the second, and so on; logits [scored, logits_stride]. Returns 0;
 * 1 if the rounded head was asked in vain; or -1 without memory. */
int gk_forward(struct pool *pool, const struct model *model, int isa, const struct row *rows, int64_t num_rows,
               const int32_t *ids, float *logits, int64_t logits_stride, struct pick *picks,
               const struct drawing *drawing, int is_screened) {
    struct call call = {.model = model, .pool = pool, .rows = rows, .ids = ids, .num_rows = num_rows,
                        .logits = logits, .logits_stride = logits_stride};
    for (int64_t row = 0; row < num_rows; row++) {
        int64_t length = round_up(rows[row].past + rows[row].count, PANEL);
        call.num_tokens += rows[row].count;
        call.num_scored += rows[row].scored;
        if (call.stride_scores < length + PANEL) call.stride_scores = length + PANEL;
    }
    call.stride_D = stride_of(model->n_embd);
    call.stride_3D = stride_of(3 * model->n_embd);
    call.stride_F = stride_of(model->n_inner);
    if (picks)
        call.picking = (struct picking){.picks = picks, .drawing = *drawing, .is_screened = is_screened,
                                        .uppers = logits + call.num_scored * logits_stride};
    struct arena arena = {0};
    lay_out(&call, &arena, NULL);
    arena.memory = aligned_alloc(64, arena.used);
    if (arena.memory == NULL) return -1;
    memset(arena.memory, 0, arena.used);
    arena.used = 0;
    lay_out(&call, &arena, NULL);
    pool_run(pool, FOR_ISA(forward, isa), &call);
    free(arena.memory);
    return atomic_load(&call.picking.has_failed);
}

/* Choose a token of each row. */
void gk_choose(struct pool *pool, int isa, struct choice *rows, int64_t num_rows, int64_t vocab_size,
               const struct drawing *drawing) {
    struct choices choices = {rows, num_rows, vocab_size, *drawing, 0};
    pool_run(pool, FOR_ISA(choose, isa), &choices);
}

/* How many floats of scratch a thread needs for a head of that many positions and numbers. */
int64_t gk_attention_scratch(int64_t length, int64_t width) {
    int64_t T = round_up(length, QUERIES) + PANEL, K = round_up(width, PANEL);
    return 5 * T * K + 2 * QUERIES * T + 3 * QUERIES * K;
}

/* Work on the caller's threads, or where there is no `run` on this one alone. */
static void on_threads(run_on_threads *run, unsigned num_threads, void (*work)(void *), void *argument) {
    if (run)
        run(work, argument, num_threads, 0);
    else
        work(argument);
}

/* Attention of a training step, see `on_threads`. */
void gk_attend(run_on_threads *run, unsigned num_threads, int isa, struct attention *attention) {
    on_threads(run, num_threads, FOR_ISA(attend_all, isa), attention);
}

/* An operation on rows of a training step, likewise. */
void gk_rows(run_on_threads *run, unsigned num_threads, int isa, struct rows *rows) {
    on_threads(run, num_threads, FOR_ISA(all_rows, isa), rows);
}

/* The depth in parts of one size, but for the last. */
static int64_t part_of(int64_t depth) {
    int64_t parts = (depth + PART - 1) / PART;
    return round_up((depth + parts - 1) / parts, 8);
}

/* How many floats `rows_laid` has to have room for. */
int64_t gk_product_room(int64_t rows, int64_t depth) {
    return round_up(rows < MOST_ROWS ? rows : MOST_ROWS, 12) * part_of(depth);
}

/* A product of large matrices, likewise. */
void gk_multiply(run_on_threads *run, unsigned num_threads, int isa, struct large_product *p) {
    int64_t part = part_of(p->depth);
    p->threads = run ? num_threads : 1;
    for (p->first_row = 0; p->first_row < p->rows; p->first_row += MOST_ROWS) {
        p->num_rows = p->rows - p->first_row < MOST_ROWS ? p->rows - p->first_row : MOST_ROWS;
        for (p->start = 0; p->start < p->depth; p->start += part) {
            p->part = p->depth - p->start < part ? p->depth - p->start : part;
            atomic_store(&p->next, 0);
            on_threads(run, num_threads, FOR_ISA(lay_rows, isa), p);
            atomic_store(&p->next, 0);
            atomic_store(&p->next_thread, 0);
            on_threads(run, num_threads, FOR_ISA(multiply_large, isa), p);
        }
    }
}
