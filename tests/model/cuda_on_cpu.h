// Runs a CUDA kernel on a CPU, a thread for each of the GPU's: what `one_token.cu` needs of CUDA, and its `ON_CPU` part.
// Slow, and only to see that it computes the right numbers and that nobody waits for ever.

#include <algorithm>
#include <atomic>
#include <barrier>
#include <bit>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#define ON_CPU
#define __global__
#define __launch_bounds__(...)

using std::max;
using std::min;

struct uint4 {
    unsigned int x, y, z, w;
};
struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
struct ulonglong2 {
    unsigned long long x, y;
};
struct Index {
    unsigned int x;
};

inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

struct Warp {
    std::barrier<> together{32};
    float lanes[32];
};

// What the threads of a program share.
struct Program {
    Program(int threads, size_t bytes)
        : all(threads), multiplying(threads - 32), warps(threads / 32), memory(new (std::align_val_t(128)) char[bytes]) {}
    ~Program() { operator delete[](memory, std::align_val_t(128)); }

    struct Counter {
        uint64_t arrivals = 0, missing = 0, phase = 0;
    };
    std::barrier<> all, multiplying;
    std::vector<Warp> warps;
    char *memory;
    std::mutex lock;
    std::condition_variable changed;
    std::map<const void *, Counter> counters;
};

inline thread_local Program *own_program;
inline thread_local Index threadIdx, blockIdx;

inline void __syncthreads() { own_program->all.arrive_and_wait(); }
inline void __syncwarp() { own_program->warps[threadIdx.x / 32].together.arrive_and_wait(); }

inline float __shfl_xor_sync(unsigned int, float value, int distance) {
    Warp &warp = own_program->warps[threadIdx.x / 32];
    warp.lanes[threadIdx.x % 32] = value;
    warp.together.arrive_and_wait();
    const float other = warp.lanes[threadIdx.x % 32 ^ distance];
    warp.together.arrive_and_wait();
    return other;
}

inline int __shfl_xor_sync(unsigned int all, int value, int distance) {
    return std::bit_cast<int>(__shfl_xor_sync(all, std::bit_cast<float>(value), distance));
}

inline float __uint_as_float(unsigned int bits) { return std::bit_cast<float>(bits); }
inline unsigned int __float_as_uint(float number) { return std::bit_cast<unsigned int>(number); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }

inline void prepare(unsigned long long *barrier, unsigned int arrivals) {
    std::lock_guard guard(own_program->lock);
    own_program->counters[barrier] = {arrivals, arrivals, 0};
}

inline void prepared() {}

inline void arrive(unsigned long long *barrier) {
    std::lock_guard guard(own_program->lock);
    Program::Counter &counter = own_program->counters.at(barrier);
    if (--counter.missing == 0) {
        counter.missing = counter.arrivals;
        counter.phase ^= 1;
        own_program->changed.notify_all();
    }
}

inline void wait_for(unsigned long long *barrier, unsigned int parity) {
    std::unique_lock guard(own_program->lock);
    own_program->changed.wait(guard, [&] { return own_program->counters.at(barrier).phase != parity; });
}

inline void copy(void *to, const void *from, unsigned int bytes, unsigned long long *barrier) {
    std::memcpy(to, from, bytes);
    arrive(barrier);
}

inline void bring_near(const char *) {}
inline void meet() { own_program->multiplying.arrive_and_wait(); }
inline void add_one(unsigned int *count) { std::atomic_ref(*count).fetch_add(1); }
inline void store(unsigned long long *word, unsigned long long value) { std::atomic_ref(*word).store(value); }

inline ulonglong2 look(const unsigned long long *two) {
    unsigned long long *words = const_cast<unsigned long long *>(two);
    std::this_thread::yield();
    return {std::atomic_ref(words[0]).load(), std::atomic_ref(words[1]).load()};
}

inline float from_float16(unsigned short bits) { return std::bit_cast<_Float16>(bits); }

inline unsigned short to_half(float one) {
#if IS_BFLOAT16
    const unsigned int bits = std::bit_cast<unsigned int>(one);
    return static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);  // to the nearest, ties to even
#else
    return std::bit_cast<unsigned short>(static_cast<_Float16>(one));
#endif
}

template <typename Kind>
Kind &in_shared_memory() {
    return *reinterpret_cast<Kind *>(own_program->memory);
}

struct Arguments;
extern "C" void read_token(const Arguments given);

// Defined behind the kernel, where its arguments are known.
template <typename Given>
void run_on_cpu(const Given *given, int programs, int threads, size_t bytes) {
    std::vector<std::unique_ptr<Program>> all;
    std::vector<std::thread> running;
    for (int program = 0; program < programs; program++) all.push_back(std::make_unique<Program>(threads, bytes));
    for (int program = 0; program < programs; program++) {
        for (int thread = 0; thread < threads; thread++) {
            running.emplace_back([=, own = all[program].get()] {
                own_program = own;
                blockIdx.x = program;
                threadIdx.x = thread;
                read_token(*given);
            });
        }
    }
    for (std::thread &each : running) each.join();
}
