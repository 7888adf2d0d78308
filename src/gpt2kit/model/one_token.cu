// Reading one token of one text by all multiprocessors at once, for GPUs of compute capability 9 and later.
// `gpt2kit.model.cuda_token` compiles and starts it; `gpt2kit.model.one_token` says what it is for.
//
// Each program is one multiprocessor's, and owns some outputs of every matrix. A warp of it fetches the weights of
// these outputs, far ahead, from the first layer to the scores: it depends on nothing. The others multiply. What a
// program computes, all others need: it is written together with the number of the token it belongs to, 8 bytes at
// once, and whoever needs it looks until it is there. Nobody has to wait for more than that, and no place is written
// twice in a token.
//
// Given when it is compiled: WIDTH of the model, HEADS, INNER width of the MLP, PROGRAMS, SHARES of a cache's columns
// at most, LEAST_SHARE of columns, WARPS that multiply, SPLIT and INNER_SPLIT (parts of a product's inputs, each for
// other warps), SHARED_BYTES of shared memory, SLOT_BYTES of it for weights at a time, IS_BFLOAT16 or float16.
// Functions are a GPU's where nothing else is said.

typedef unsigned int uint;
typedef unsigned long long Word;  // eight bytes: a number with the token it belongs to, or a barrier
typedef unsigned short half;

constexpr int LANES = 32;
constexpr int THREADS = LANES * WARPS;  // that multiply; one more warp fetches
constexpr int HEAD_WIDTH = WIDTH / HEADS;
constexpr int MOST_ROWS = 32;  // of a matrix at a time
constexpr float LOWEST = -1e30f;
// Outputs of a matrix that a program owns; fewer, or none, for the last ones.
constexpr int QKV_SHARE = (3 * WIDTH + PROGRAMS - 1) / PROGRAMS, OUT_SHARE = (WIDTH + PROGRAMS - 1) / PROGRAMS;
constexpr int INNER_SHARE = (INNER + PROGRAMS - 1) / PROGRAMS;

// What the programs tell each other, for each layer.
constexpr int QKV = 0, PARTS = QKV + 3 * WIDTH, PART_LOGS = PARTS + SHARES * WIDTH;
constexpr int ATTENDED = PART_LOGS + (SHARES * HEADS + 1) / 2 * 2, HIDDEN = ATTENDED + WIDTH;
constexpr int LAYER_OUT = HIDDEN + INNER, LAYER_WORDS = LAYER_OUT + WIDTH;

struct alignas(16) Exchange {
    float residual[WIDTH];
    float inputs[INNER > WIDTH ? INNER : WIDTH];
    float qkv[3 * HEAD_WIDTH];
    float share_logs[SHARES * HEADS + 1];
    float sums[2][MOST_ROWS * (SPLIT > INNER_SPLIT ? SPLIT : INNER_SPLIT)];
    float2 moments[WARPS];
    float attended[WARPS][HEAD_WIDTH];
    float2 attended_logs[WARPS];
};

constexpr int SLOTS = (SHARED_BYTES - sizeof(Exchange)) / (SLOT_BYTES + 2 * sizeof(Word));
static_assert(SLOTS >= 2, "no room for weights");

struct alignas(16) Shared : Exchange {
    unsigned char weights[SLOTS][SLOT_BYTES];
    Word is_full[SLOTS], is_empty[SLOTS];
};

// The weights that are in use or come next: the same sequence for the warp that fetches and those that multiply.
struct Ring {
    uint slot = 0, round = 0;
    void advance() {
        if (++slot == SLOTS) slot = 0, round++;
    }
};

#ifndef ON_CPU  // where the tests run this, with all of this by other means

uint shared_address(const void *at) { return static_cast<uint>(__cvta_generic_to_shared(at)); }

// Barriers in shared memory, which count arrivals, and bytes that come by themselves.
void prepare(Word *barrier, uint arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals));
}

void prepared() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

void arrive(Word *barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

void wait_for(Word *barrier, uint parity) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n}" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}

// Copy into shared memory in the background; the barrier is told when it is there.
void copy(void *to, const void *from, uint bytes, Word *barrier) {
    const uint told = shared_address(barrier);
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(told), "r"(bytes) : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared_address(to)),
        "l"(from), "r"(bytes), "r"(told)
        : "memory");
}

void bring_near(const char *line) { asm volatile("prefetch.global.L2 [%0];" ::"l"(line)); }

void meet() { asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory"); }  // of the warps that multiply

void add_one(uint *count) { asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(count) : "memory"); }

// Seen by all programs, two at once, each whole.
void store(Word *word, Word value) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

ulonglong2 look(const Word *two) {
    ulonglong2 words;
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(words.x), "=l"(words.y) : "l"(two) : "memory");
    return words;
}

float from_float16(half one) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(one));
    return wide;
}

half to_half(float one) {
    half rounded;
#if IS_BFLOAT16
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(one));
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(rounded) : "f"(one));
#endif
    return rounded;
}

template <typename Kind>
Kind &in_shared_memory() {
    extern __shared__ __align__(128) unsigned char dynamic[];
    return *reinterpret_cast<Kind *>(dynamic);
}

#endif

float lower_float(uint two) {
#if IS_BFLOAT16
    return __uint_as_float(two << 16);
#else
    return from_float16(static_cast<half>(two));
#endif
}

float upper_float(uint two) {
#if IS_BFLOAT16
    return __uint_as_float(two & 0xffff0000u);
#else
    return from_float16(static_cast<half>(two >> 16));
#endif
}

void to_floats(uint4 eight, float *floats) {
    const uint twos[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        floats[2 * i] = lower_float(twos[i]);
        floats[2 * i + 1] = upper_float(twos[i]);
    }
}

float sum_of_warp(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(~0u, x, distance);
    return x;
}

// A number and the token it belongs to.
void tell(Word *word, float value, uint token) {
    store(word, static_cast<Word>(token) << 32 | __float_as_uint(value));
}

bool is_told(ulonglong2 words, uint token) {
    return static_cast<uint>(words.x >> 32) == token && static_cast<uint>(words.y >> 32) == token;
}

float2 told(ulonglong2 words) {
    return make_float2(__uint_as_float(static_cast<uint>(words.x)), __uint_as_float(static_cast<uint>(words.y)));
}

// Wait for pairs of numbers, those that `place` gives; what is not there yet is looked for again, all at once.
template <int COUNT, typename Place>
void hear(ulonglong2 (&words)[COUNT], uint token, Place place) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) words[i] = make_ulonglong2(0, 0);
    for (bool is_missing = true; is_missing;) {
        is_missing = false;
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const Word *two = place(i);
            if (two == nullptr || is_told(words[i], token)) continue;
            words[i] = look(two);
            is_missing = true;
        }
    }
}

// Where a vector's element lies in shared memory, so that each lane reads eight in a row without a conflict.
template <int COUNT>
int in_shared(int at) {
    return at / 4 % 2 * (COUNT / 2) + at / 8 * 4 + at % 4;
}

// Numbers that all programs told, into shared memory; sum and sum of squares of those that this thread saw.
template <int COUNT>
float2 gather(const Word *words, uint token, float *to) {
    constexpr int EACH = (COUNT / 2 + THREADS - 1) / THREADS;
    ulonglong2 seen[EACH];
    float2 moments = {0.0f, 0.0f};
    hear(seen, token, [&](int i) {
        const int pair = threadIdx.x + i * THREADS;
        return pair < COUNT / 2 ? words + 2 * pair : nullptr;
    });
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int pair = threadIdx.x + i * THREADS;
        if (pair >= COUNT / 2) break;
        const float2 values = told(seen[i]);
        *reinterpret_cast<float2 *>(to + in_shared<COUNT>(2 * pair)) = values;
        moments.x += values.x + values.y;
        moments.y += values.x * values.x + values.y * values.y;
    }
    return moments;
}

// Inputs of a product: the part that a lane of this warp multiplies, eight at a time.
template <int COUNT, int PARTS_OF_IT>
struct Slice {
    static constexpr int LENGTH = COUNT / PARTS_OF_IT, EIGHTS = LENGTH / 8, STEPS = (EIGHTS + LANES - 1) / LANES;
    static_assert(LENGTH % 8 == 0 && WARPS % PARTS_OF_IT == 0, "inputs or warps cannot be divided so");
    float values[STEPS * 8];

    static bool has(int step) {
        return EIGHTS % LANES == 0 || threadIdx.x % LANES + step * LANES < EIGHTS;
    }
    // Which eight of all inputs.
    static int place(int step) {
        return threadIdx.x / LANES % PARTS_OF_IT * EIGHTS + threadIdx.x % LANES + step * LANES;
    }
    void read(const float *inputs) {
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            float4 four[2] = {make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
            if (has(step)) {
                four[0] = *reinterpret_cast<const float4 *>(inputs + place(step) * 4);
                four[1] = *reinterpret_cast<const float4 *>(inputs + COUNT / 2 + place(step) * 4);
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                values[step * 8 + i * 4] = four[i].x;
                values[step * 8 + i * 4 + 1] = four[i].y;
                values[step * 8 + i * 4 + 2] = four[i].z;
                values[step * 8 + i * 4 + 3] = four[i].w;
            }
        }
    }
};

typedef Slice<WIDTH, SPLIT> ModelSlice;
typedef Slice<INNER, INNER_SPLIT> InnerSlice;

// Weight and bias of a norm, for the inputs of a lane; asked for before they are needed.
struct Norm {
    uint4 scale[ModelSlice::STEPS], shift[ModelSlice::STEPS];

    void fetch(const half *weights) {
#pragma unroll
        for (int step = 0; step < ModelSlice::STEPS; step++) {
            if (!ModelSlice::has(step)) continue;
            scale[step] = reinterpret_cast<const uint4 *>(weights)[ModelSlice::place(step)];
            shift[step] = reinterpret_cast<const uint4 *>(weights + WIDTH)[ModelSlice::place(step)];
        }
    }

    // The residual, which has just been gathered, after the norm. All threads of the program that multiply meet.
    void apply(Shared &shared, float2 moments, float epsilon, ModelSlice &normed) const {
        moments.x = sum_of_warp(moments.x);
        moments.y = sum_of_warp(moments.y);
        if (threadIdx.x % LANES == 0) shared.moments[threadIdx.x / LANES] = moments;
        meet();
        float2 total = {0.0f, 0.0f};
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) {
            total.x += shared.moments[warp].x;
            total.y += shared.moments[warp].y;
        }
        const float mean = total.x / WIDTH;
        const float inverse = rsqrtf(total.y / WIDTH - mean * mean + epsilon);
        normed.read(shared.residual);
#pragma unroll
        for (int step = 0; step < ModelSlice::STEPS; step++) {
            float scales[8], shifts[8];
            if (!ModelSlice::has(step)) continue;
            to_floats(scale[step], scales);
            to_floats(shift[step], shifts);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float &value = normed.values[step * 8 + i];
                value = (value - mean) * inverse * scales[i] + shifts[i];
            }
        }
    }
};

constexpr int least(int a, int b) { return a < b ? a : b; }

// A matrix of so many inputs, of which each program owns SHARE outputs: how many of these fit into a slot.
template <int COUNT, int SHARE>
constexpr int rows_at_a_time() {
    return least(least(SHARE, MOST_ROWS), SLOT_BYTES / (2 * COUNT));
}

// Ask for the rows of a matrix that this program owns, as fast as there is room.
template <int COUNT, int SHARE>
void fetch_rows(Shared &shared, Ring &ring, const half *matrix, int first, int last) {
    constexpr int ROWS = rows_at_a_time<COUNT, SHARE>();
    for (int start = first; start < last; start += ROWS) {
        const uint bytes = min(ROWS, last - start) * COUNT * 2;
        if (ring.round > 0) wait_for(&shared.is_empty[ring.slot], (ring.round - 1) & 1);
        const half *from = matrix + static_cast<size_t>(start) * COUNT;
        copy(shared.weights[ring.slot], from, bytes, &shared.is_full[ring.slot]);
        ring.advance();
    }
}

// Each of the rows that this program owns times the inputs, with its bias: `finish(row, sum)` by one thread each.
template <int SHARE, int COUNT, int PARTS_OF_IT, typename Finish>
void multiply(
    Shared &shared, Ring &ring, const Slice<COUNT, PARTS_OF_IT> &inputs, const half *biases, int first, int last,
    Finish finish) {
    typedef Slice<COUNT, PARTS_OF_IT> Part;
    constexpr int ROWS = rows_at_a_time<COUNT, SHARE>(), GROUPS = WARPS / PARTS_OF_IT;
    constexpr int EACH = (ROWS + GROUPS - 1) / GROUPS;
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int part = warp % PARTS_OF_IT, group = warp / PARTS_OF_IT;
    int turn = 0;
    for (int start = first; start < last; start += ROWS) {
        const int rows = min(ROWS, last - start);
        const uint4 *weights = reinterpret_cast<const uint4 *>(shared.weights[ring.slot]);
        const int own = start + static_cast<int>(threadIdx.x);
        const bool has_own = threadIdx.x < rows;
        const float bias = has_own && biases != nullptr ? lower_float(biases[own]) : 0.0f;
        float sum[EACH] = {};
        wait_for(&shared.is_full[ring.slot], ring.round & 1);
#pragma unroll
        for (int step = 0; step < Part::STEPS; step++) {
            if (!Part::has(step)) continue;
#pragma unroll
            for (int each = 0; each < EACH; each++) {
                // Beyond the rows there is room, or the last one again; what comes of it is left out.
                const int row = min(group + each * GROUPS, ROWS - 1);
                float eight[8];
                to_floats(weights[row * (COUNT / 8) + Part::place(step)], eight);
#pragma unroll
                for (int i = 0; i < 8; i++) sum[each] += eight[i] * inputs.values[step * 8 + i];
            }
        }
        __syncwarp();
        if (lane == 0) arrive(&shared.is_empty[ring.slot]);
        ring.advance();
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) {
#pragma unroll
            for (int each = 0; each < EACH; each++) sum[each] += __shfl_xor_sync(~0u, sum[each], distance);
        }
#pragma unroll
        for (int each = 0; each < EACH; each++) {
            const int row = group + each * GROUPS;
            if (lane == each && row < rows) shared.sums[turn][row * PARTS_OF_IT + part] = sum[each];
        }
        meet();
        if (has_own) {
            float of_all = bias;
#pragma unroll
            for (int i = 0; i < PARTS_OF_IT; i++) of_all += shared.sums[turn][threadIdx.x * PARTS_OF_IT + i];
            finish(own, of_all);
        }
        turn ^= 1;
    }
}

// A head's attention to some columns, up to `end`, of which the last one of all has just been computed.
void attend(
    Shared &shared, const Word *qkv, Word *part, Word *part_log, uint token, const half *keys, const half *values,
    int head, int begin, int end, int column, long long cache_column, float scale) {
    constexpr int NEIGHBOURS = HEAD_WIDTH / 8, AT_A_TIME = THREADS / NEIGHBOURS, DEPTH = 4;
    static_assert(HEAD_WIDTH % 8 == 0 && LANES % NEIGHBOURS == 0, "a head's width is none that can be divided so");
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, eighth = lane % NEIGHBOURS;
    float query[8], sum[8] = {}, highest = LOWEST, total = 0.0f;
    for (int base = begin; base < end; base += DEPTH * AT_A_TIME) {
        uint4 key[DEPTH], value[DEPTH];
        float score[DEPTH];
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            const int at = base + i * AT_A_TIME + static_cast<int>(threadIdx.x) / NEIGHBOURS;
            key[i] = value[i] = make_uint4(0, 0, 0, 0);
            if (at >= end || at == column) continue;
            key[i] = *reinterpret_cast<const uint4 *>(keys + at * cache_column + eighth * 8);
            value[i] = *reinterpret_cast<const uint4 *>(values + at * cache_column + eighth * 8);
        }
        if (base == begin) {
            constexpr int EACH = (3 * HEAD_WIDTH / 2 + THREADS - 1) / THREADS;
            ulonglong2 seen[EACH];
            hear(seen, token, [&](int i) {
                const int at = 2 * (threadIdx.x + i * THREADS);
                const Word *word = qkv + at / HEAD_WIDTH * WIDTH + head * HEAD_WIDTH + at % HEAD_WIDTH;
                return at < 3 * HEAD_WIDTH ? word : nullptr;
            });
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                const int at = 2 * (threadIdx.x + i * THREADS);
                if (at < 3 * HEAD_WIDTH) *reinterpret_cast<float2 *>(shared.qkv + at) = told(seen[i]);
            }
            meet();
#pragma unroll
            for (int i = 0; i < 8; i++) query[i] = shared.qkv[eighth * 8 + i] * scale;
        }
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            const int at = base + i * AT_A_TIME + static_cast<int>(threadIdx.x) / NEIGHBOURS;
            float eight[8];
            score[i] = LOWEST;
            if (base + i * AT_A_TIME >= end) continue;
            to_floats(key[i], eight);
            score[i] = 0.0f;
#pragma unroll
            for (int j = 0; j < 8; j++)
                score[i] += query[j] * (at == column ? shared.qkv[HEAD_WIDTH + eighth * 8 + j] : eight[j]);
#pragma unroll
            for (int distance = 1; distance < NEIGHBOURS; distance *= 2)
                score[i] += __shfl_xor_sync(~0u, score[i], distance);
            if (at >= end) score[i] = LOWEST;
        }
        float higher = highest;
#pragma unroll
        for (int i = 0; i < DEPTH; i++) higher = fmaxf(higher, score[i]);
        const float shrink = exp2f(highest - higher);
        total *= shrink;
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] *= shrink;
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            const int at = base + i * AT_A_TIME + static_cast<int>(threadIdx.x) / NEIGHBOURS;
            if (at >= end) continue;
            const float weight = exp2f(score[i] - higher);
            float eight[8];
            to_floats(value[i], eight);
            total += weight;
#pragma unroll
            for (int j = 0; j < 8; j++)
                sum[j] += weight * (at == column ? shared.qkv[2 * HEAD_WIDTH + eighth * 8 + j] : eight[j]);
        }
        highest = higher;
    }
    // Lanes that had other columns, then warps.
#pragma unroll
    for (int distance = NEIGHBOURS; distance < LANES; distance *= 2) {
        const float other = __shfl_xor_sync(~0u, highest, distance), higher = fmaxf(highest, other);
        const float own_share = exp2f(highest - higher), share = exp2f(other - higher);
        total = total * own_share + __shfl_xor_sync(~0u, total, distance) * share;
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] = sum[j] * own_share + __shfl_xor_sync(~0u, sum[j], distance) * share;
        highest = higher;
    }
    if (lane < NEIGHBOURS) {
#pragma unroll
        for (int j = 0; j < 8; j++) shared.attended[warp][eighth * 8 + j] = sum[j];
    }
    if (lane == 0) shared.attended_logs[warp] = make_float2(highest, total);
    meet();
    for (int at = threadIdx.x; at < HEAD_WIDTH; at += THREADS) {
        float of_all = LOWEST, all_total = 0.0f, all_sum = 0.0f;
#pragma unroll
        for (int i = 0; i < WARPS; i++) of_all = fmaxf(of_all, shared.attended_logs[i].x);
#pragma unroll
        for (int i = 0; i < WARPS; i++) {
            const float share = exp2f(shared.attended_logs[i].x - of_all);
            all_total += share * shared.attended_logs[i].y;
            all_sum += share * shared.attended[i][at];
        }
        tell(part + at, all_sum / all_total, token);
        if (at == 0) tell(part_log, of_all + log2f(all_total), token);
    }
}

// The heads' attention to all columns, from that to shares of them, into shared memory.
void gather_attended(Shared &shared, const Word *parts, const Word *logs, uint token, int num_shares) {
    if (num_shares == 1) {
        gather<WIDTH>(parts, token, shared.inputs);
        return;
    }
    constexpr int LOG_PAIRS = (SHARES * HEADS + 1) / 2, LOG_EACH = (LOG_PAIRS + THREADS - 1) / THREADS;
    constexpr int EACH = (WIDTH / 2 + THREADS - 1) / THREADS;
    ulonglong2 seen[EACH * SHARES + LOG_EACH];
    hear(seen, token, [&](int i) -> const Word * {
        if (i < EACH * SHARES) {
            const int pair = threadIdx.x + i / SHARES * THREADS, share = i % SHARES;
            return pair < WIDTH / 2 && share < num_shares ? parts + share * WIDTH + 2 * pair : nullptr;
        }
        const int pair = threadIdx.x + (i - EACH * SHARES) * THREADS;
        return 2 * pair < num_shares * HEADS ? logs + 2 * pair : nullptr;
    });
#pragma unroll
    for (int i = 0; i < LOG_EACH; i++) {
        const int pair = threadIdx.x + i * THREADS;
        if (2 * pair < num_shares * HEADS)
            *reinterpret_cast<float2 *>(shared.share_logs + 2 * pair) = told(seen[EACH * SHARES + i]);
    }
    meet();
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int at = 2 * (threadIdx.x + i * THREADS);
        if (at >= WIDTH) break;
        const float *own_logs = shared.share_logs + at / HEAD_WIDTH;
        float highest = LOWEST, total = 0.0f;
        float2 sum = {0.0f, 0.0f};
        for (int share = 0; share < num_shares; share++) highest = fmaxf(highest, own_logs[share * HEADS]);
#pragma unroll
        for (int share = 0; share < SHARES; share++) {
            if (share >= num_shares) break;
            const float weight = exp2f(own_logs[share * HEADS] - highest);
            const float2 part = told(seen[i * SHARES + share]);
            total += weight;
            sum.x += weight * part.x;
            sum.y += weight * part.y;
        }
        *reinterpret_cast<float2 *>(shared.inputs + in_shared<WIDTH>(at)) = make_float2(sum.x / total, sum.y / total);
    }
}

struct Arguments {
    const long long *ids;  // the token
    long long *place;      // its column, and its position; grows by one
    uint *state;           // the number of the token, from 1; programs that have read it
    const half *token_embedding, *position_embedding, *norms, *biases;
    const half *attention_in, *attention_out, *mlp_in, *mlp_out, *head;
    const float *vocabulary_bias, *scales;
    half *keys, *values;
    Word *words;
    float *logits, *summaries;
    int num_layers, vocabulary;
    float epsilon;
    long long cache_layer, cache_head, cache_column;
};

// What is small is read when it is needed: by then it should be near.
void bring_near(const half *begin, size_t bytes, int program) {
    for (size_t at = program * 128; at < bytes; at += PROGRAMS * 128)
        bring_near(reinterpret_cast<const char *>(begin) + at);
}

extern "C" __global__ void __launch_bounds__(THREADS + LANES, 1) read_token(const Arguments given) {
    Shared &shared = in_shared_memory<Shared>();
    const int program = blockIdx.x, head_share = (given.vocabulary + PROGRAMS - 1) / PROGRAMS;
    const int qkv_first = program * QKV_SHARE, qkv_last = min(qkv_first + QKV_SHARE, 3 * WIDTH);
    const int out_first = program * OUT_SHARE, out_last = min(out_first + OUT_SHARE, WIDTH);
    const int inner_first = program * INNER_SHARE, inner_last = min(inner_first + INNER_SHARE, INNER);
    const int head_first = program * head_share, head_last = min(head_first + head_share, given.vocabulary);
    constexpr size_t NORMS = 4 * WIDTH, BIASES = 5 * WIDTH + INNER;

    if (threadIdx.x == 0) {
        for (int slot = 0; slot < SLOTS; slot++) {
            prepare(&shared.is_full[slot], 1);
            prepare(&shared.is_empty[slot], WARPS);
        }
        prepared();
    }
    __syncthreads();

    Ring ring;
    if (threadIdx.x >= THREADS) {
        if (threadIdx.x > THREADS) return;
        for (int layer = 0; layer < given.num_layers; layer++) {
            bring_near(given.norms + layer * NORMS, 2 * NORMS, program);
            bring_near(given.biases + layer * BIASES, 2 * BIASES, program);
            const size_t square = static_cast<size_t>(layer) * WIDTH * WIDTH;
            const size_t oblong = static_cast<size_t>(layer) * WIDTH * INNER;
            fetch_rows<WIDTH, QKV_SHARE>(shared, ring, given.attention_in + 3 * square, qkv_first, qkv_last);
            fetch_rows<WIDTH, OUT_SHARE>(shared, ring, given.attention_out + square, out_first, out_last);
            fetch_rows<WIDTH, INNER_SHARE>(shared, ring, given.mlp_in + oblong, inner_first, inner_last);
            fetch_rows<INNER, OUT_SHARE>(shared, ring, given.mlp_out + oblong, out_first, out_last);
        }
        fetch_rows<WIDTH, MOST_ROWS>(shared, ring, given.head, head_first, head_last);
        return;
    }

    const long long column = *given.place;
    const uint token = *reinterpret_cast<volatile uint *>(given.state);
    const int num_columns = static_cast<int>(column) + 1;
    const int share = max((num_columns + SHARES - 1) / SHARES, LEAST_SHARE);
    const int num_shares = (num_columns + share - 1) / share;
    const bool attends = program < HEADS * num_shares;
    const int head = program % HEADS, begin = program / HEADS * share, end = min(begin + share, num_columns);
    float2 moments = {0.0f, 0.0f};
    {
        const half *of_token = given.token_embedding + *given.ids * WIDTH;
        const half *of_position = given.position_embedding + column * WIDTH;
        for (int at = threadIdx.x; at < WIDTH; at += THREADS) {
            const float value = lower_float(of_token[at]) + lower_float(of_position[at]);
            shared.residual[in_shared<WIDTH>(at)] = value;
            moments.x += value;
            moments.y += value * value;
        }
    }
    meet();
    // The token's number is known to all of this program.
    if (threadIdx.x == 0) add_one(given.state + 1);

    for (int layer = 0; layer < given.num_layers; layer++) {
        Word *words = given.words + static_cast<size_t>(layer) * LAYER_WORDS;
        const half *norms = given.norms + layer * NORMS, *biases = given.biases + layer * BIASES;
        half *keys = given.keys + layer * given.cache_layer, *values = given.values + layer * given.cache_layer;
        const float scale = given.scales[layer];
        Norm norm;
        ModelSlice inputs;

        norm.fetch(norms);
        if (layer > 0) moments = gather<WIDTH>(words - LAYER_WORDS + LAYER_OUT, token, shared.residual);
        norm.apply(shared, moments, given.epsilon, inputs);
        multiply<QKV_SHARE>(shared, ring, inputs, biases, qkv_first, qkv_last, [&](int row, float out) {
            const int within = row % WIDTH;
            if (row < WIDTH) {
                tell(words + QKV + row, out, token);
                return;
            }
            const half rounded = to_half(out);
            tell(words + QKV + row, lower_float(rounded), token);
            half *cache = row < 2 * WIDTH ? keys : values;
            cache[within / HEAD_WIDTH * given.cache_head + column * given.cache_column + within % HEAD_WIDTH] = rounded;
        });

        if (attends) {
            attend(shared, words + QKV, words + PARTS + program * HEAD_WIDTH, words + PART_LOGS + program, token,
                   keys + head * given.cache_head, values + head * given.cache_head, head, begin, end, column,
                   given.cache_column, scale);
            // Numbers are heard in pairs.
            if (program % 2 == 0 && program == HEADS * num_shares - 1 && threadIdx.x == 0)
                tell(words + PART_LOGS + program + 1, LOWEST, token);
        }

        gather_attended(shared, words + PARTS, words + PART_LOGS, token, num_shares);
        meet();
        inputs.read(shared.inputs);
        multiply<OUT_SHARE>(shared, ring, inputs, biases + 3 * WIDTH, out_first, out_last, [&](int row, float out) {
            tell(words + ATTENDED + row, shared.residual[in_shared<WIDTH>(row)] + out, token);
        });

        norm.fetch(norms + 2 * WIDTH);
        moments = gather<WIDTH>(words + ATTENDED, token, shared.residual);
        norm.apply(shared, moments, given.epsilon, inputs);
        biases += 4 * WIDTH;
        multiply<INNER_SHARE>(shared, ring, inputs, biases, inner_first, inner_last, [&](int row, float out) {
            // 1 + tanh(z) is 2 sigmoid(2 z): GELU as GPT-2 has it.
            const float inner = 1.5957691216057308f * (out + 0.044715f * out * out * out);
            tell(words + HIDDEN + row, out / (1.0f + __expf(-inner)), token);
        });

        gather<INNER>(words + HIDDEN, token, shared.inputs);
        meet();
        InnerSlice hidden;
        hidden.read(shared.inputs);
        biases += INNER;
        multiply<OUT_SHARE>(shared, ring, hidden, biases, out_first, out_last, [&](int row, float out) {
            tell(words + LAYER_OUT + row, shared.residual[in_shared<WIDTH>(row)] + out, token);
        });
    }

    Norm norm;
    ModelSlice inputs;
    norm.fetch(given.norms + given.num_layers * NORMS);
    const Word *last = given.words + static_cast<size_t>(given.num_layers - 1) * LAYER_WORDS + LAYER_OUT;
    moments = gather<WIDTH>(last, token, shared.residual);
    norm.apply(shared, moments, given.epsilon, inputs);
    float own_highest = LOWEST, own_total = 0.0f, highest = -__int_as_float(0x7f800000);
    int best = given.vocabulary;
    multiply<MOST_ROWS>(shared, ring, inputs, nullptr, head_first, head_last, [&](int row, float sum) {
        given.logits[row] = sum;
        const float higher = fmaxf(own_highest, sum);
        own_total = own_total * __expf(own_highest - higher) + __expf(sum - higher);
        own_highest = higher;
        const float score = sum + given.vocabulary_bias[row];
        if (score > highest) highest = score, best = row;
    });
    if (threadIdx.x >= LANES) return;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(~0u, own_highest, distance), higher = fmaxf(own_highest, other);
        const float other_total = __shfl_xor_sync(~0u, own_total, distance);
        own_total = own_total * __expf(own_highest - higher) + other_total * __expf(other - higher);
        own_highest = higher;
        const float other_score = __shfl_xor_sync(~0u, highest, distance);
        const int other_best = __shfl_xor_sync(~0u, best, distance);
        if (other_score > highest || (other_score == highest && other_best < best))
            highest = other_score, best = other_best;
    }
    if (threadIdx.x > 0) return;
    given.summaries[program] = own_highest;
    given.summaries[PROGRAMS + program] = own_total;
    given.summaries[2 * PROGRAMS + program] = highest;
    given.summaries[3 * PROGRAMS + program] = __int_as_float(best);
    if (program > 0) return;
    // What all programs read at their beginning changes when all have read it.
    while (*reinterpret_cast<volatile uint *>(given.state + 1) < PROGRAMS) {
    }
    given.state[1] = 0;
    given.state[0] = token + 1;
    *given.place = column + 1;
}
