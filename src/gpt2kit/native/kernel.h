/* Types shared by the parts of the native engine. Shapes are written behind names as in the Python code:
 *
 *     N  tokens of a call, of all rows together    D  n_embd            K  D / H, width of a head
 *     S  positions attended to                     F  n_inner           V  vocab_size
 *
 * Weights are packed in panels of 16 outputs, so that a vector lane is an output and sums need no reduction:
 *
 *     fp32  panel[in][16]
 *     int8  panel[group][16 quads][16 outputs][4]   a byte is weight / scale + 128, groups of 64 inputs
 *     int4  panel[group][4][16 outputs][4]          quad j in the low bits of a byte, quad j + 4 in the high ones, each
 *                                                   the place in CODES of weight / scale, groups of 32 inputs
 *
 * Scales are bfloat16, scales[panel][group][16].
 */
#ifndef GPT2KIT_KERNEL_H
#define GPT2KIT_KERNEL_H

#include <stdatomic.h>
#include <stdint.h>

/* Loops that are unrolled, whole ones so that their arrays are registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define UNROLL_4 _Pragma("GCC unroll 4")
#endif

enum { PANEL = 16, QUAD = 4, FEW_TOKENS = 4, ALONE = 4 }; /* ALONE: panels computed together with one token */
enum { DEPTH = 384, MOST_PAIRS = 4 }; /* inputs, and pairs of panels, of a part of a product of many tokens */
enum { MOST_CANDIDATES = 1024, MOST_BEFORE = 256 }; /* tokens that may be picked; that come before one in top-p */
enum { BOUNDED = 4 };                               /* tokens whose bounds are made together */
enum { FETCHED_TOKENS = 4 }; /* of a head, before their keys and values are stored */
enum { QUERIES = 24 }; /* of a head, scored together in a training step; a multiple of every TILE */
enum format { FP32 = 0, INT8 = 1, INT4 = 2 };
enum finish { STORE = 0, GELU = 1, ADD = 2 };
/* What is multiplied with: weights that are fetched while they are used; that are there, while others are fetched; that
 * are there. Or a cache in float32 or in bfloat16. */
enum kind { WEIGHTS, WEIGHTS_FETCHING, WEIGHTS_FETCHED, CACHE, NARROW_CACHE };
enum isa { PORTABLE = 0, AVX2 = 1, AVX512 = 2 };

/* What 4 bits stand for: closer together where weights are many (the values of llama.cpp's IQ4_NL). */
#define CODES {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

/* y = x W + b with W [in, out]; the arrays reach to whole panels, filled up with zeros. */
struct linear {
    int64_t in, out;
    int64_t format;
    const void *weights;
    const uint16_t *scales;
    const float *bias;
};

struct layer {
    const float *ln_1_weight, *ln_1_bias, *ln_2_weight, *ln_2_bias;
    struct linear attention, projection, expand, contract;
    double scale; /* of q k */
};

struct model {
    int64_t n_embd, n_layer, n_head, n_inner, n_positions;
    int64_t narrow; /* keys and values are kept in bfloat16 */
    double epsilon;
    const float *positions, *ln_f_weight, *ln_f_bias;
    struct linear embedding, head;
    struct linear rounded_head; /* of a head in float32 the same in 8 bits, see pick.h; else without weights */
    const struct layer *layers;
};

/* A text's cache: keys[layer][head][S / 16][K][16], values[layer][head][K / 16][capacity][16], float32 or bfloat16. Its
 * first positions may be in another text's cache, laid out in the same way; then its own begins behind them. */
struct row {
    void *keys, *values;
    int64_t capacity; /* a multiple of 16 */
    int64_t past;     /* positions filled, those shared too */
    int64_t count;    /* tokens read by this call */
    int64_t scored;   /* of the last so many of them logits are wanted */
    const void *shared_keys, *shared_values;
    int64_t shared, shared_capacity; /* multiples of 16 */
};

/* Activations as small integers; for each group a scale, and what the weights' offset has added to a product, negated.
 * A tile's tokens lie side by side: values[in / 4][tokens of the tile][4], scales[group][tokens of the tile]. */
struct quantised {
    int8_t *values;
    float *scales;
    int32_t *sums;
    int64_t stride, groups;
};

/* How tokens are drawn; 0 in all of it takes the greatest score. The rules are those of `array_sampling`. */
struct drawing {
    double temperature, top_p, min_p; /* top_p: 1 or more is none */
    int64_t top_k;                    /* 0: none */
};

/* A token to be picked: greedily or by a draw, without asking for scores. */
struct pick {
    const int32_t *forbidden; /* ids that are not picked */
    int64_t num_forbidden;
    uint64_t key; /* of the draw */
    int64_t id;   /* what was picked, or -1: the scores are no numbers */
};

/* What is found out on the way, see pick.h. */
struct picking {
    struct pick *picks; /* of each token scored; or NULL: all scores are wanted */
    struct drawing drawing;
    int is_screened; /* by the rounded head */
    struct quantised digits;
    float *factors, *uppers;
    atomic_int has_failed; /* the rounded head left too many tokens */
};

/* One call: what its threads share. */
struct call {
    const struct model *model;
    struct pool *pool;
    const struct row *rows;
    const int32_t *ids;
    int64_t num_rows, num_tokens, num_scored, logits_stride;
    float *logits;
    float *x_ND, *normed_ND, *qkv_N3D, *heads_ND, *inner_NF; /* each with its stride, longer than the row */
    float *tiles; /* what a product in floats multiplies, see struct product */
    int64_t stride_D, stride_3D, stride_F, stride_scores;
    struct quantised quantised;
    float *scores, *sums; /* of each thread */
    uint8_t *panels;      /* of each thread, a panel of 4 bits in 8 */
    int64_t stride_sums, stride_panels;
    struct picking picking;
    const int64_t *row_starts;
    atomic_long *next; /* for each phase, the next piece of work that no thread has taken */
};

/* What a thread of a call has for itself. Of few tokens it keeps the norms and the quantised activations alone. */
struct worker {
    struct call *call;
    atomic_long *next; /* of the phase it is in */
    int is_alone;
    float *normed_ND, *tiles, *sums;
    uint8_t *panel;
    struct quantised quantised;
};

/* The product of a tile of tokens and of panels that are `step` numbers apart. With weights the tokens lie side by
 * side, x[depth][tokens of the tile], and with a cache in rows. */
struct product {
    const float *x;
    int64_t x_stride;
    const void *weights;
    int64_t step, depth;
    const float *before; /* the sums of earlier inputs, or NULL; to put them away and go on keeps every bit */
    float *sums;
    int64_t stride;      /* of both */
    const float *ahead;  /* `depth` by 16 weights that are used soon */
};

/* A token to be chosen from `scores`: the model's own, `logits`, or what penalties made of them. */
struct choice {
    const float *logits;
    float *scores;
    const int32_t *forbidden; /* ids that are not chosen */
    float *kept;              /* room for as many scores */
    int64_t num_forbidden;
    uint64_t key;           /* of the draw */
    int64_t id;             /* what was chosen */
    double log_probability; /* in the model's own distribution; not finite where the logits are no numbers */
};

struct choices {
    struct choice *rows;
    int64_t num_rows, vocab_size;
    struct drawing drawing;
    atomic_long next;
};

/* Attention of a training step, forward or backward. Queries, keys and values are a third of a row of `qkv` each, heads
 * side by side; a query sees the positions of its row from `first` to itself. */
struct attention {
    const float *qkv;        /* [B T][3 D] */
    float *out;              /* [B T][D]; read by the backward pass */
    float *log_sums;         /* [B][H][T] logs of the sums of e^score; kept for the backward pass */
    const float *grad_out;   /* [B T][D], or NULL: the forward pass */
    float *grad_qkv;         /* [B T][3 D] */
    const int32_t *first;    /* [B T], or NULL: 0 */
    float *scratch;          /* of each thread, aligned to 64 bytes */
    int64_t stride_scratch;  /* see gk_attention_scratch */
    int64_t rows, heads, length, width; /* B, H, T, K */
    double scale, dropout;   /* of q k; the share of probabilities that become 0 */
    uint64_t seed;           /* of the dropout */
    atomic_long next, next_thread;
};

/* What is done with the rows of matrices in a training step; which fields it takes is said where it is done. */
enum row_operation { GELU_ROWS, GELU_GRADIENT, ADD_ONTO, DROP_GRADIENT, NORM, NORM_GRADIENT, CROSS_ENTROPY };
enum { CHUNK = 32 }; /* rows whose sums are added up together */
struct rows {
    int64_t operation, num_rows, width, stride; /* from row to row, of all three */
    const float *input;    /* [N][width] */
    float *x, *y;          /* [N][width] */
    const float *gain, *bias; /* [width] */
    float *statistics;     /* [N][2] */
    float *sums;           /* [N / CHUNK][2][width] sums over the rows of a chunk */
    const int64_t *targets; /* [N] */
    double epsilon, dropout;
    uint64_t seed;
    atomic_long next;
};

/* c (=, +=) scale · a b + bias with c [rows][columns]. The numbers of a and b stand at row · row's step + column · column's
 * step, so either may be turned; the columns of c are side by side. */
enum { PART = 768, MOST_ROWS = 3072, BLOCK = 1 << 16 }; /* of the depth and of the rows at a time; floats of 256 KB */
struct large_product {
    int64_t rows, columns, depth;
    const float *a, *b, *bias; /* bias [columns], or NULL */
    float *c;
    int64_t a_row, a_column, b_row, b_column, c_row;
    int64_t adds;
    double scale;
    float *rows_laid;    /* room for the rows at a time by the part of the depth, see gk_product_room */
    float *columns_laid; /* BLOCK of each thread */
    int64_t threads;
    int64_t first_row, num_rows, start, part; /* what is multiplied at the moment */
    atomic_long next, next_thread;
};

/* How the caller's threads are all made to do something: OpenMP's entry in GCC's runtime, whose threads are those of
 * PyTorch, so that none has to give way to another. */
typedef void run_on_threads(void (*work)(void *), void *argument, unsigned num_threads, unsigned flags);

struct pool *gk_pool_new(int num_threads);
void gk_pool_free(struct pool *pool);
int pool_size(const struct pool *pool);
void pool_run(struct pool *pool, void (*work)(void *argument, int thread), void *argument);
void pool_barrier(struct pool *pool);

static inline enum kind cache_kind(const struct model *model) { return model->narrow ? NARROW_CACHE : CACHE; }
static inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
static inline int64_t group_size(int64_t format) { return format == INT8 ? 64 : format == INT4 ? 32 : 1; }
static inline int64_t panel_bytes(int64_t format, int64_t in) {
    return format == FP32 ? in * PANEL * 4 : round_up(in, group_size(format)) * PANEL / (format == INT4 ? 2 : 1);
}

void forward_portable(void *call, int thread);
void choose_portable(void *choices, int thread);
void attend_all_portable(void *attention);
void all_rows_portable(void *rows);
void lay_rows_portable(void *product);
void multiply_large_portable(void *product);
#if defined(__x86_64__)
void forward_avx2(void *call, int thread);
void choose_avx2(void *choices, int thread);
void attend_all_avx2(void *attention);
void all_rows_avx2(void *rows);
void lay_rows_avx2(void *product);
void multiply_large_avx2(void *product);
void forward_avx512(void *call, int thread);
void choose_avx512(void *choices, int thread);
void attend_all_avx512(void *attention);
void all_rows_avx512(void *rows);
void lay_rows_avx512(void *product);
void multiply_large_avx512(void *product);
#endif

#endif
