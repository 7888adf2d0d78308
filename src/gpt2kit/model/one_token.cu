// Reading one token of one text by all multiprocessors at once, for GPUs of compute capability 9 and later.
// `gpt2kit.model.cuda_token` compiles and starts it; `gpt2kit.model.one_token` says what it is for.
//
// Each program is one multiprocessor's, and owns some outputs of every matrix. A warp of it fetches the weights of
// these outputs, far ahead, from the first layer to the scores: it depends on nothing. The others multiply, each its
// part of the inputs. What a program computes, all others need: it is written together with the number of the token it
// belongs to, 8 bytes at once, and whoever needs it looks until it is there. Nobody has to wait for more than that, and
// no place is written twice in a token.
//
// A norm needs no step of its own. With its weight g and bias b, the mean m and the deviation s of x, a row w gives
//     w ((x - m) / s g + b) = (w (g x) - m (w g)) / s + w b
// where w g and w b, its `folds`, do not depend on the token.
//
// Given when it is compiled: WIDTH of the model, HEADS, INNER width of the MLP, PROGRAMS, SHARES of a cache's columns
// at most, LEAST_SHARE of columns, WARPS that multiply, SHARED_BYTES of shared memory, SLOT_BYTES of it for weights at
// a time, IN_FLIGHT of which are asked for at a time, IS_BFLOAT16 or float16. Functions are a GPU's where nothing else
// is said.

typedef unsigned int uint;
typedef unsigned long long Word;  // eight bytes: a number with the token it belongs to, or a barrier
typedef unsigned short half;

constexpr int LANES = 32;
constexpr int THREADS = LANES * WARPS;  // that multiply; one more warp fetches
constexpr int HEAD_WIDTH = WIDTH / HEADS;
constexpr int NEIGHBOURS = HEAD_WIDTH / 8;  // lanes for a head's eights
constexpr float LOWEST = -1e30f;

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

constexpr int shared_out(int among, int count) { return (count + among - 1) / among; }
constexpr int greater(int a, int b) { return a > b ? a : b; }

// Outputs of a matrix that a program owns; fewer, or none, for the last ones.
constexpr int QKV_SHARE = shared_out(PROGRAMS, 3 * WIDTH), OUT_SHARE = shared_out(PROGRAMS, WIDTH);
constexpr int INNER_SHARE = shared_out(PROGRAMS, INNER), HEAD_SHARE = 24;  // of the head so many at a time

// What the programs tell each other, for each layer.
constexpr int QKV = 0, PARTS = QKV + 3 * WIDTH, PART_LOGS = PARTS + SHARES * WIDTH;
constexpr int ATTENDED = PART_LOGS + 2 * SHARES * HEADS, HIDDEN = ATTENDED + WIDTH, LAYER_OUT = HIDDEN + INNER;
constexpr int LAYER_WORDS = LAYER_OUT + WIDTH;

// The folds of a layer, by output: w g and w b with the bias; without a norm 0 and the bias.
constexpr int OUT_FOLDS = 3 * WIDTH, LAYER_FOLDS = OUT_FOLDS + WIDTH + INNER + WIDTH;

// Lanes that take so many eights in turns: a power of two, with few left without.
constexpr int lanes_for(int eights) {
    if (eights <= 4) return eights > 2 ? 4 : eights;
    return eights > 8 && shared_out(16, eights) * 2 <= shared_out(8, eights) ? 16 : 8;
}

// How the inputs of a product are divided: a part for each warp, eight for each lane at a time, and the lanes that are
// left take other rows.
template <int COUNT>
struct Part {
    static constexpr int EIGHTS = COUNT / 8 / WARPS, ACROSS = lanes_for(EIGHTS);
    static constexpr int STEPS = shared_out(ACROSS, EIGHTS), DOWN = LANES / ACROSS;
    static constexpr int ROWS = SLOT_BYTES / (2 * COUNT), EACH = shared_out(DOWN, ROWS);  // of a slot; of a lane
    static_assert(COUNT % (8 * WARPS) == 0 && ROWS > 0, "a product cannot be divided so");

    static bool has(int step) { return threadIdx.x % ACROSS + step * ACROSS < EIGHTS; }
    // Which eight of all inputs.
    static int place(int step) {
        return threadIdx.x / LANES * EIGHTS + threadIdx.x % ACROSS + step * ACROSS;
    }
    static int row(int each) { return threadIdx.x % LANES / ACROSS + each * DOWN; }
};

constexpr int slots_of(int rows, int at_a_time) { return shared_out(at_a_time, rows) * at_a_time; }
constexpr int MOST_ROWS = greater(
    greater(slots_of(greater(QKV_SHARE, HEAD_SHARE), Part<WIDTH>::ROWS), slots_of(INNER_SHARE, Part<WIDTH>::ROWS)),
    slots_of(OUT_SHARE, Part<INNER>::ROWS));

struct alignas(16) Exchange {
    float sums[2][WARPS][MOST_ROWS];
    float2 moments[2][WARPS];
    float attended[WARPS][HEAD_WIDTH];
    float2 attended_logs[WARPS];
};

static_assert(greater(QKV_SHARE, INNER_SHARE) <= THREADS, "too few programs");

constexpr int SLOTS = (SHARED_BYTES - sizeof(Exchange)) / (SLOT_BYTES + 2 * sizeof(Word));
static_assert(SLOTS > IN_FLIGHT, "no room for weights");

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

void to_floats(uint4 eight, float *floats) {
    const uint twos[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        floats[2 * i] = lower_float(twos[i]);
        floats[2 * i + 1] = upper_float(twos[i]);
    }
}

// Where a vector's element is told: what the lanes ask for at once lies side by side.
template <int COUNT>
int in_words(int at) {
    return at % 8 / 2 * (COUNT / 4) + at / 8 * 2 + at % 2;
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

// An eight of a vector.
template <int COUNT>
void hear_eight(const Word *words, uint token, int place, float *floats) {
    ulonglong2 seen[4];
    hear(seen, token, [&](int i) { return words + i * (COUNT / 4) + place * 2; });
#pragma unroll
    for (int i = 0; i < 4; i++) *reinterpret_cast<float2 *>(floats + 2 * i) = told(seen[i]);
}

// A lane's inputs of a product.
template <int COUNT>
struct Inputs {
    typedef Part<COUNT> Divided;
    float values[Divided::STEPS * 8];

    void hear_all(const Word *words, uint token) {
        ulonglong2 seen[Divided::STEPS * 4];
        hear(seen, token, [&](int i) {
            const Word *two = words + i % 4 * (COUNT / 4) + Divided::place(i / 4) * 2;
            return Divided::has(i / 4) ? two : nullptr;
        });
#pragma unroll
        for (int i = 0; i < Divided::STEPS * 4; i++) {
            const float2 two = told(seen[i]);
            values[2 * i] = two.x;
            values[2 * i + 1] = two.y;
        }
    }

    // The heads' attention to all columns, from that to shares of them.
    void hear_attended(const Word *parts, const Word *logs, uint token, int num_shares) {
        constexpr int AT_ONCE = 3, EACH = 5;  // shares; pairs of numbers of each
#pragma unroll
        for (int step = 0; step < Divided::STEPS; step++) {
            float highest = LOWEST, total = 0.0f, *sum = values + step * 8;
            const int head = Divided::place(step) / NEIGHBOURS;
#pragma unroll
            for (int i = 0; i < 8; i++) sum[i] = 0.0f;
            if (!Divided::has(step)) continue;
            for (int first = 0; first < num_shares; first += AT_ONCE) {
                ulonglong2 seen[AT_ONCE * EACH];
                hear(seen, token, [&](int i) -> const Word * {
                    const int share = first + i / EACH, pair = i % EACH;
                    if (share >= num_shares) return nullptr;
                    if (pair == 4) return logs + 2 * (share * HEADS + head);
                    return parts + share * WIDTH + pair * (WIDTH / 4) + Divided::place(step) * 2;
                });
#pragma unroll
                for (int share = 0; share < AT_ONCE; share++) {
                    if (first + share >= num_shares) break;
                    const float log = told(seen[share * EACH + 4]).x, higher = fmaxf(highest, log);
                    const float shrink = exp2f(highest - higher), weight = exp2f(log - higher);
                    highest = higher;
                    total = total * shrink + weight;
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const float2 part = told(seen[share * EACH + i]);
                        sum[2 * i] = sum[2 * i] * shrink + weight * part.x;
                        sum[2 * i + 1] = sum[2 * i + 1] * shrink + weight * part.y;
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < 8; i++) sum[i] /= total;
        }
    }

    // Sum and sum of squares; and each input times the norm's weight.
    float2 scale(const uint4 (&weights)[Divided::STEPS]) {
        float2 moments = {0.0f, 0.0f};
#pragma unroll
        for (int step = 0; step < Divided::STEPS; step++) {
            float eight[8];
            to_floats(weights[step], eight);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float &value = values[step * 8 + i];
                moments.x += value;
                moments.y += value * value;
                value *= eight[i];
            }
        }
        return moments;
    }
};

typedef uint4 NormWeights[Part<WIDTH>::STEPS];

void fetch_norm(const half *weights, NormWeights &to) {
#pragma unroll
    for (int step = 0; step < Part<WIDTH>::STEPS; step++) {
        to[step] = make_uint4(0, 0, 0, 0);
        if (Part<WIDTH>::has(step)) to[step] = reinterpret_cast<const uint4 *>(weights)[Part<WIDTH>::place(step)];
    }
}

// The warp that fetches.
struct Fetcher {
    Shared &shared;
    Ring next, landing;
    int num_in_flight = 0;

    // Ask for the rows of a matrix that this program owns, as fast as there is room. More in flight than memory needs
    // to be busy would only make the words of the other programs late.
    template <int COUNT>
    void fetch(const half *matrix, int first, int last) {
        constexpr int ROWS = Part<COUNT>::ROWS;
        for (int start = first; start < last; start += ROWS) {
            const uint bytes = min(ROWS, last - start) * COUNT * 2;
            if (num_in_flight++ >= IN_FLIGHT) {
                wait_for(&shared.is_full[landing.slot], landing.round & 1);
                landing.advance();
            }
            if (next.round > 0) wait_for(&shared.is_empty[next.slot], (next.round - 1) & 1);
            const half *from = matrix + static_cast<size_t>(start) * COUNT;
            copy(shared.weights[next.slot], from, bytes, &shared.is_full[next.slot]);
            next.advance();
        }
    }
};

// A warp that multiplies.
struct Multiplier {
    Shared &shared;
    float epsilon;
    Ring ring;
    int turn = 0;

    // Rows first to last of a matrix, SHARE at most, times the inputs; with folds: `finish(row, sum)` by a thread each.
    template <int SHARE, bool IS_NORMED, int COUNT, typename Finish>
    void multiply(
        const Inputs<COUNT> &inputs, float2 moments, const float2 *folds, int first, int last, Finish finish) {
        typedef Part<COUNT> Divided;
        constexpr int SLOTS_NEEDED = shared_out(Divided::ROWS, SHARE), EACH = Divided::EACH;
        const int warp = threadIdx.x / LANES, own = first + static_cast<int>(threadIdx.x);
        const float2 fold = own < last ? folds[own] : make_float2(0.0f, 0.0f);
        float sum[SLOTS_NEEDED][EACH] = {};
#pragma unroll
        for (int i = 0; i < SLOTS_NEEDED; i++) {
            if (first + i * Divided::ROWS >= last) break;
            const uint4 *weights = reinterpret_cast<const uint4 *>(shared.weights[ring.slot]);
            wait_for(&shared.is_full[ring.slot], ring.round & 1);
#pragma unroll
            for (int step = 0; step < Divided::STEPS; step++) {
#pragma unroll
                for (int each = 0; each < EACH; each++) {
                    // Beyond the rows is something else, or the last one again; it is left out in the end.
                    const int row = min(Divided::row(each), Divided::ROWS - 1);
                    uint4 weight = make_uint4(0, 0, 0, 0);
                    float eight[8];
                    if (Divided::has(step)) weight = weights[row * (COUNT / 8) + Divided::place(step)];
                    to_floats(weight, eight);
#pragma unroll
                    for (int j = 0; j < 8; j++) sum[i][each] += eight[j] * inputs.values[step * 8 + j];
                }
            }
            __syncwarp();
            if (threadIdx.x % LANES == 0) arrive(&shared.is_empty[ring.slot]);
            ring.advance();
        }
#pragma unroll
        for (int distance = Divided::ACROSS / 2; distance > 0; distance /= 2) {
#pragma unroll
            for (int i = 0; i < SLOTS_NEEDED; i++) {
#pragma unroll
                for (int each = 0; each < EACH; each++) sum[i][each] += __shfl_xor_sync(~0u, sum[i][each], distance);
            }
            if (IS_NORMED) {
                moments.x += __shfl_xor_sync(~0u, moments.x, distance);
                moments.y += __shfl_xor_sync(~0u, moments.y, distance);
            }
        }
        if (threadIdx.x % Divided::ACROSS == 0) {
#pragma unroll
            for (int i = 0; i < SLOTS_NEEDED; i++) {
#pragma unroll
                for (int each = 0; each < EACH; each++) {
                    const int row = Divided::row(each);
                    if (row < Divided::ROWS) shared.sums[turn][warp][i * Divided::ROWS + row] = sum[i][each];
                }
            }
            if (IS_NORMED && threadIdx.x % LANES == 0) shared.moments[turn][warp] = moments;
        }
        meet();
        if (own < last) {
            float of_all = 0.0f;
            float2 total = {0.0f, 0.0f};
#pragma unroll
            for (int i = 0; i < WARPS; i++) {
                of_all += shared.sums[turn][i][threadIdx.x];
                if (IS_NORMED) {
                    total.x += shared.moments[turn][i].x;
                    total.y += shared.moments[turn][i].y;
                }
            }
            if (IS_NORMED) {
                const float mean = total.x / WIDTH;
                of_all = (of_all - mean * fold.x) * rsqrtf(total.y / WIDTH - mean * mean + epsilon);
            }
            finish(own, of_all + fold.y);
        }
        turn ^= 1;  // some warps may be about to read those sums yet
    }
};

// A head's attention to some columns, up to `end`; the last one of all has just been computed, and may be among them.
void attend(
    Shared &shared, const Word *qkv, Word *parts, Word *part_log, uint token, const half *keys, const half *values,
    int head, int begin, int end, int column, long cache_column, float scale) {
    constexpr int AT_A_TIME = THREADS / NEIGHBOURS, DEPTH = 2;
    static_assert(HEAD_WIDTH % 8 == 0 && LANES % NEIGHBOURS == 0, "a head's width is none that can be divided so");
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, eighth = lane % NEIGHBOURS;
    const int place = head * NEIGHBOURS + eighth;
    float query[8], sum[8] = {}, highest = LOWEST, total = 0.0f;
    for (int base = begin; base < end; base += DEPTH * AT_A_TIME) {
        uint4 key[DEPTH], value[DEPTH];
        float score[DEPTH], higher = highest;
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            const int at = base + i * AT_A_TIME + static_cast<int>(threadIdx.x) / NEIGHBOURS;
            key[i] = value[i] = make_uint4(0, 0, 0, 0);
            if (at >= end || at == column) continue;
            key[i] = *reinterpret_cast<const uint4 *>(keys + at * cache_column + eighth * 8);
            value[i] = *reinterpret_cast<const uint4 *>(values + at * cache_column + eighth * 8);
        }
        if (base == begin) {
            hear_eight<WIDTH>(qkv, token, place, query);
#pragma unroll
            for (int i = 0; i < 8; i++) query[i] *= scale;
        }
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            const int at = base + i * AT_A_TIME + static_cast<int>(threadIdx.x) / NEIGHBOURS;
            float key_eight[8], value_eight[8];
            score[i] = LOWEST;
            if (base + i * AT_A_TIME >= end) continue;
            to_floats(key[i], key_eight);
            if (at == column) {
                hear_eight<WIDTH>(qkv + WIDTH, token, place, key_eight);
                hear_eight<WIDTH>(qkv + 2 * WIDTH, token, place, value_eight);
                uint *twos = reinterpret_cast<uint *>(&value[i]);
#pragma unroll
                for (int j = 0; j < 4; j++)
                    twos[j] = to_half(value_eight[2 * j]) | static_cast<uint>(to_half(value_eight[2 * j + 1])) << 16;
            }
            score[i] = 0.0f;
#pragma unroll
            for (int j = 0; j < 8; j++) score[i] += query[j] * key_eight[j];
#pragma unroll
            for (int distance = 1; distance < NEIGHBOURS; distance *= 2)
                score[i] += __shfl_xor_sync(~0u, score[i], distance);
            if (at >= end) score[i] = LOWEST;
            higher = fmaxf(higher, score[i]);
        }
        const float shrink = exp2f(highest - higher);
        highest = higher;
        total *= shrink;
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] *= shrink;
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            const int at = base + i * AT_A_TIME + static_cast<int>(threadIdx.x) / NEIGHBOURS;
            if (at >= end) continue;
            const float weight = exp2f(score[i] - highest);
            float eight[8];
            to_floats(value[i], eight);
            total += weight;
#pragma unroll
            for (int j = 0; j < 8; j++) sum[j] += weight * eight[j];
        }
    }
    // Lanes that had other columns, then warps.
#pragma unroll
    for (int distance = NEIGHBOURS; distance < LANES; distance *= 2) {
        const float other = __shfl_xor_sync(~0u, highest, distance), higher = fmaxf(highest, other);
        const float own_share = exp2f(highest - higher), share = exp2f(other - higher);
        highest = higher;
        total = total * own_share + __shfl_xor_sync(~0u, total, distance) * share;
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] = sum[j] * own_share + __shfl_xor_sync(~0u, sum[j], distance) * share;
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
        tell(parts + in_words<WIDTH>(head * HEAD_WIDTH + at), all_sum / all_total, token);
        if (at < 2) tell(part_log + at, of_all + log2f(all_total), token);
    }
}

struct Arguments {
    const long *ids;  // the token
    long *place;      // its column, and its position; grows by one
    uint *state;      // the number of the token, from 1; programs that have read it
    const half *token_embedding, *position_embedding, *norms;
    const half *attention_in, *attention_out, *mlp_in, *mlp_out, *head;
    const float2 *folds, *head_folds;
    const float *vocabulary_bias, *scales;
    half *keys, *values;
    Word *words;
    float *logits, *summaries;
    int num_layers, vocabulary;
    float epsilon;
    long cache_layer, cache_head, cache_column;
};

// What is small is read when it is needed: by then it should be near.
void bring_near(const void *begin, size_t bytes, int first, int stride) {
    for (size_t at = first * 128; at < bytes; at += stride * 128) bring_near(static_cast<const char *>(begin) + at);
}

extern "C" __global__ void __launch_bounds__(THREADS + LANES, 1) read_token(const Arguments given) {
    Shared &shared = in_shared_memory<Shared>();
    const int program = blockIdx.x, head_share = shared_out(PROGRAMS, given.vocabulary);
    const int qkv_first = program * QKV_SHARE, qkv_last = min(qkv_first + QKV_SHARE, 3 * WIDTH);
    const int out_first = program * OUT_SHARE, out_last = min(out_first + OUT_SHARE, WIDTH);
    const int inner_first = program * INNER_SHARE, inner_last = min(inner_first + INNER_SHARE, INNER);
    const int head_first = program * head_share, head_last = min(head_first + head_share, given.vocabulary);

    if (threadIdx.x == 0) {
        for (int slot = 0; slot < SLOTS; slot++) {
            prepare(&shared.is_full[slot], 1);
            prepare(&shared.is_empty[slot], WARPS);
        }
        prepared();
    }
    __syncthreads();

    if (threadIdx.x >= THREADS) {
        if (threadIdx.x > THREADS) return;
        Fetcher fetcher{shared};
        for (int layer = 0; layer < given.num_layers; layer++) {
            const size_t square = static_cast<size_t>(layer) * WIDTH * WIDTH;
            const size_t oblong = static_cast<size_t>(layer) * WIDTH * INNER;
            const float2 *folds = given.folds + static_cast<size_t>(layer) * LAYER_FOLDS;
            bring_near(given.norms + layer * 2 * WIDTH, 4 * WIDTH, program, PROGRAMS);
            bring_near(folds, sizeof(float2) * LAYER_FOLDS, program, PROGRAMS);
            fetcher.fetch<WIDTH>(given.attention_in + 3 * square, qkv_first, qkv_last);
            fetcher.fetch<WIDTH>(given.attention_out + square, out_first, out_last);
            fetcher.fetch<WIDTH>(given.mlp_in + oblong, inner_first, inner_last);
            fetcher.fetch<INNER>(given.mlp_out + oblong, out_first, out_last);
        }
        for (int start = head_first; start < head_last; start += HEAD_SHARE) {
            const int stop = min(start + HEAD_SHARE, head_last);
            bring_near(given.head_folds + start, sizeof(float2) * HEAD_SHARE, 0, 1);
            fetcher.fetch<WIDTH>(given.head, start, stop);
        }
        return;
    }

    const long column = *given.place;
    const uint token = *reinterpret_cast<volatile uint *>(given.state);
    const int num_columns = static_cast<int>(column) + 1, head = program % HEADS;
    const int share = max(shared_out(SHARES, num_columns), LEAST_SHARE), num_shares = shared_out(share, num_columns);
    const int begin = program / HEADS * share, end = min(begin + share, num_columns);
    const half *of_token = given.token_embedding + *given.ids * WIDTH;
    const half *of_position = given.position_embedding + column * WIDTH;
    Multiplier with{shared, given.epsilon};
    Inputs<WIDTH> inputs;
    NormWeights norm;
    const int own = out_first + static_cast<int>(threadIdx.x);
    float own_residual = 0.0f;  // of the output that this thread finishes
    if (own < out_last) own_residual = lower_float(of_token[own]) + lower_float(of_position[own]);
#pragma unroll
    for (int step = 0; step < Part<WIDTH>::STEPS; step++) {
        uint4 eights[2] = {make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)};
        float floats[16];
        if (Part<WIDTH>::has(step)) {
            eights[0] = reinterpret_cast<const uint4 *>(of_token)[Part<WIDTH>::place(step)];
            eights[1] = reinterpret_cast<const uint4 *>(of_position)[Part<WIDTH>::place(step)];
        }
        to_floats(eights[0], floats);
        to_floats(eights[1], floats + 8);
#pragma unroll
        for (int i = 0; i < 8; i++) inputs.values[step * 8 + i] = floats[i] + floats[8 + i];
    }
    meet();
    // The token's number is known to all of this program.
    if (threadIdx.x == 0) add_one(given.state + 1);

    for (int layer = 0; layer < given.num_layers; layer++) {
        Word *words = given.words + static_cast<size_t>(layer) * LAYER_WORDS;
        const float2 *folds = given.folds + static_cast<size_t>(layer) * LAYER_FOLDS;
        const half *norms = given.norms + layer * 2 * WIDTH;
        half *keys = given.keys + layer * given.cache_layer, *values = given.values + layer * given.cache_layer;
        const float scale = given.scales[layer];

        fetch_norm(norms, norm);
        if (layer > 0) inputs.hear_all(words - LAYER_WORDS + LAYER_OUT, token);
        float2 moments = inputs.scale(norm);
        with.multiply<QKV_SHARE, true>(inputs, moments, folds, qkv_first, qkv_last, [&](int row, float out) {
            const int within = row % WIDTH;
            Word *word = words + QKV + row - within + in_words<WIDTH>(within);
            if (row < WIDTH) {
                tell(word, out, token);
                return;
            }
            const half rounded = to_half(out);
            tell(word, lower_float(rounded), token);
            half *cache = row < 2 * WIDTH ? keys : values;
            cache[within / HEAD_WIDTH * given.cache_head + column * given.cache_column + within % HEAD_WIDTH] = rounded;
        });

        if (program < HEADS * num_shares) {
            attend(shared, words + QKV, words + PARTS + program / HEADS * WIDTH, words + PART_LOGS + 2 * program, token,
                   keys + head * given.cache_head, values + head * given.cache_head, head, begin, end, column,
                   given.cache_column, scale);
        }

        if (num_shares == 1) {
            inputs.hear_all(words + PARTS, token);
        } else {
            inputs.hear_attended(words + PARTS, words + PART_LOGS, token, num_shares);
        }
        folds += OUT_FOLDS;
        with.multiply<OUT_SHARE, false>(inputs, moments, folds, out_first, out_last, [&](int row, float out) {
            tell(words + ATTENDED + in_words<WIDTH>(row), own_residual += out, token);
        });

        fetch_norm(norms + WIDTH, norm);
        inputs.hear_all(words + ATTENDED, token);
        moments = inputs.scale(norm);
        folds += WIDTH;
        with.multiply<INNER_SHARE, true>(inputs, moments, folds, inner_first, inner_last, [&](int row, float out) {
            // 1 + tanh(z) is 2 sigmoid(2 z): GELU as GPT-2 has it.
            const float inner = 1.5957691216057308f * (out + 0.044715f * out * out * out);
            tell(words + HIDDEN + in_words<INNER>(row), out / (1.0f + __expf(-inner)), token);
        });

        Inputs<INNER> hidden;
        hidden.hear_all(words + HIDDEN, token);
        folds += INNER;
        with.multiply<OUT_SHARE, false>(hidden, moments, folds, out_first, out_last, [&](int row, float out) {
            tell(words + LAYER_OUT + in_words<WIDTH>(row), own_residual += out, token);
        });
    }

    fetch_norm(given.norms + given.num_layers * 2 * WIDTH, norm);
    inputs.hear_all(given.words + static_cast<size_t>(given.num_layers) * LAYER_WORDS - WIDTH, token);
    const float2 moments = inputs.scale(norm);
    float own_highest = LOWEST, own_total = 0.0f, highest = -__int_as_float(0x7f800000);
    int best = given.vocabulary;
    for (int start = head_first; start < head_last; start += HEAD_SHARE) {
        const int stop = min(start + HEAD_SHARE, head_last);
        with.multiply<HEAD_SHARE, true>(inputs, moments, given.head_folds, start, stop, [&](int row, float out) {
            given.logits[row] = out;
            const float higher = fmaxf(own_highest, out);
            own_total = own_total * __expf(own_highest - higher) + __expf(out - higher);
            own_highest = higher;
            const float score = out + given.vocabulary_bias[row];
            if (score > highest) highest = score, best = row;
        });
    }
    if (threadIdx.x >= LANES) return;
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2) {
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
