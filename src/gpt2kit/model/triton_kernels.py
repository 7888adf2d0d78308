"""The kernels of `kernels`, which says what they do. This module can be imported only where Triton is."""

import triton
import triton.language as tl


@triton.jit
def cross_entropy(
    logits,
    targets,
    nats,
    stride,
    vocabulary,
    columns,
    BLOCK: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
):
    """A row of `kernels.cross_entropy_`."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    target = tl.load(targets + row)
    lane = tl.arange(0, BLOCK)
    is_counted = target >= 0
    highest = -float("inf")
    total = 0.0
    for start in range(0, vocabulary, BLOCK):
        column = start + lane
        score = tl.load(logits + column, mask=column < vocabulary, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(score, 0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(score - higher), 0)
        highest = higher
    target_score = tl.load(logits + tl.maximum(target, 0)).to(tl.float32)
    tl.store(nats + row, tl.where(is_counted, tl.log(total) + highest - target_score, 0.0))
    if WITH_GRADIENT:
        # Every thread has read the target's score before any writes over it.
        tl.debug_barrier()
        factor = tl.where(is_counted, 1.0 / total, 0.0)
        for start in range(0, columns, BLOCK):
            column = start + lane
            score = tl.load(logits + column, mask=column < vocabulary, other=-float("inf")).to(tl.float32)
            error = tl.exp(score - highest) * factor
            error = tl.where((column == target) & is_counted, error - 1.0, error)
            tl.store(logits + column, error.to(logits.dtype.element_ty), mask=column < columns)


@triton.jit
def attended_further(query, keys, values, is_there, highest, total, sum_K):
    """A softmax in powers of two, and the values that it weighs, taken on over some more columns."""
    score = tl.where(is_there, tl.sum(keys * query[None, :], 1), -float("inf"))
    higher = tl.maximum(highest, tl.max(score, 0))
    shrunk = tl.exp2(highest - higher)
    weight = tl.exp2(score - higher)
    total = total * shrunk + tl.sum(weight, 0)
    sum_K = sum_K * shrunk + tl.sum(weight[:, None] * values, 0)
    return higher, total, sum_K


@triton.jit
def attend(
    queries,
    new_keys,
    new_values,
    keys,
    values,
    out,
    first,
    column,
    scale,
    q_row,
    q_head,
    k_row,
    k_head,
    v_row,
    v_head,
    cache_row,
    cache_head,
    cache_column,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A head of a row of `kernels.attend_to_cache`."""
    row = (tl.program_id(0) // HEADS).to(tl.int64)
    head = tl.program_id(0) % HEADS
    lane = tl.arange(0, PADDED_WIDTH)
    is_real = lane < WIDTH
    cache = row * cache_row + head * cache_head
    last = tl.load(column)
    query = tl.load(queries + row * q_row + head * q_head + lane, mask=is_real, other=0.0).to(tl.float32) * scale
    new_key = tl.load(new_keys + row * k_row + head * k_head + lane, mask=is_real, other=0.0)
    new_value = tl.load(new_values + row * v_row + head * v_head + lane, mask=is_real, other=0.0)
    tl.store(keys + cache + last * cache_column + lane, new_key, mask=is_real)
    tl.store(values + cache + last * cache_column + lane, new_value, mask=is_real)
    # The softmax begins with the new token itself, which need not be read again.
    highest = tl.sum(query * new_key.to(tl.float32), 0)
    total = 1.0
    sum_K = new_value.to(tl.float32)
    for start in range(tl.load(first + row), last, COLUMNS):
        place = start + tl.arange(0, COLUMNS)
        is_there = (place < last)[:, None] & is_real[None, :]
        offsets = cache + place[:, None] * cache_column + lane[None, :]
        key = tl.load(keys + offsets, mask=is_there, other=0.0).to(tl.float32)
        value = tl.load(values + offsets, mask=is_there, other=0.0).to(tl.float32)
        highest, total, sum_K = attended_further(query, key, value, place < last, highest, total, sum_K)
    place_out = (row * HEADS + head) * WIDTH + lane
    tl.store(out + place_out, (sum_K / total).to(out.dtype.element_ty), mask=is_real)


@triton.jit
def _distances(logits, bias, column, vocabulary, highest, temperature):
    """How far scores are below the greatest, in units of the temperature; infinity beyond the vocabulary."""
    is_real = column < vocabulary
    score = tl.load(logits + column, mask=is_real, other=-float("inf")).to(tl.float32)
    score += tl.load(bias + column, mask=is_real, other=-float("inf"))
    return (highest - score) / temperature


@triton.jit
def choose(
    logits,
    bias,
    keys,
    ids,
    told,
    rows,
    stride,
    vocabulary,
    temperature,
    top_k,
    top_p,
    farthest,
    GREEDY: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A row of `kernels.choose_tokens`."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    lane = tl.arange(0, BLOCK)
    own_highest = tl.full([BLOCK], -float("inf"), tl.float32)
    highest_lane = tl.full([BLOCK], -float("inf"), tl.float32)
    place_lane = tl.zeros([BLOCK], tl.int32)
    for start in range(0, vocabulary, BLOCK):
        column = start + lane
        is_real = column < vocabulary
        score = tl.load(logits + column, mask=is_real, other=-float("inf")).to(tl.float32)
        own_highest = tl.maximum(own_highest, score)
        score += tl.load(bias + column, mask=is_real, other=-float("inf"))
        place_lane = tl.where(score > highest_lane, column, place_lane)
        highest_lane = tl.maximum(highest_lane, score)
    own = tl.max(own_highest, 0)
    highest = tl.max(highest_lane, 0)
    total_lane = tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocabulary, BLOCK):
        column = start + lane
        score = tl.load(logits + column, mask=column < vocabulary, other=-float("inf")).to(tl.float32)
        total_lane += tl.exp(score - own)
    log_total = tl.log(tl.sum(total_lane, 0)) + own
    if GREEDY:
        chosen = tl.min(tl.where(highest_lane == highest, place_lane, vocabulary), 0)
    else:
        # Infinity as bits is 0x7f800000: what is forbidden is never kept.
        kept = tl.full([], 0x7F7FFFFF, tl.int32)
        if TOP_K:
            kept_k = tl.zeros([], tl.int32)
            for step in range(31):
                trial = kept_k | (1 << (30 - step))
                count_lane = tl.zeros([BLOCK], tl.int32)
                for start in range(0, vocabulary, BLOCK):
                    distance = _distances(logits, bias, start + lane, vocabulary, highest, temperature)
                    count_lane += (distance.to(tl.int32, bitcast=True) < trial).to(tl.int32)
                kept_k = tl.where(tl.sum(count_lane, 0) < top_k, trial, kept_k)
            kept = tl.minimum(kept, kept_k)
        if TOP_P:
            mass_lane = tl.zeros([BLOCK], tl.float32)
            for start in range(0, vocabulary, BLOCK):
                distance = _distances(logits, bias, start + lane, vocabulary, highest, temperature)
                mass_lane += tl.where(distance.to(tl.int32, bitcast=True) <= kept, tl.exp(-distance), 0.0)
            limit = top_p * tl.sum(mass_lane, 0)
            kept_p = tl.zeros([], tl.int32)
            for step in range(31):
                trial = kept_p | (1 << (30 - step))
                mass_lane = tl.zeros([BLOCK], tl.float32)
                for start in range(0, vocabulary, BLOCK):
                    distance = _distances(logits, bias, start + lane, vocabulary, highest, temperature)
                    bits = distance.to(tl.int32, bitcast=True)
                    mass_lane += tl.where((bits < trial) & (bits <= kept), tl.exp(-distance), 0.0)
                kept_p = tl.where(tl.sum(mass_lane, 0) < limit, trial, kept_p)
            kept = tl.minimum(kept, kept_p)
        key = tl.load(keys + row).to(tl.uint64, bitcast=True)
        highest_lane = tl.full([BLOCK], -float("inf"), tl.float32)
        for start in range(0, vocabulary, BLOCK):
            column = start + lane
            distance = _distances(logits, bias, column, vocabulary, highest, temperature)
            is_kept = (distance.to(tl.int32, bitcast=True) <= kept) & (distance <= farthest)
            if tl.max(is_kept.to(tl.int32), 0) > 0:
                # gumbel_noise of generation.sampling
                bits = key + (column + 1).to(tl.uint64) * 0x9E3779B97F4A7C15
                bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9
                bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB
                bits = bits ^ (bits >> 31)
                uniform = ((bits >> 12).to(tl.float64) + 0.5) * 2.220446049250313e-16
                noise = (-tl.log(-tl.log(uniform))).to(tl.float32)
                noisy = tl.where(is_kept, noise - distance, -float("inf"))
                place_lane = tl.where(noisy > highest_lane, column, place_lane)
                highest_lane = tl.maximum(highest_lane, noisy)
        chosen = tl.min(tl.where(highest_lane == tl.max(highest_lane, 0), place_lane, vocabulary), 0)
    tl.store(ids + row, chosen.to(tl.int64))
    tl.store(told + row, chosen.to(tl.float64))
    own_score = tl.load(logits + tl.minimum(chosen, vocabulary - 1)).to(tl.float32)
    tl.store(told + rows + row, (own_score - log_total).to(tl.float64))
