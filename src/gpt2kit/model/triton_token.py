"""The kernels of `one_token`, which says what they do. This module can be imported only where Triton is.

All programs of `read_token` run at once, one on each multiprocessor, and go through the layers together. What one
computes, the others read after a meeting of all (`_arrive`, `_wait`). The weights that a program needs next do not
depend on that, so they are asked for before it waits.
"""

import triton
import triton.language as tl

from gpt2kit.model.triton_kernels import attended_further


@triton.jit
def _arrive(counter):
    """Tell the others that what this program wrote can be read."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def _wait(counter, goal):
    """Wait until so many arrived. What they wrote has to be read from the second-level cache (".cg")."""
    while tl.atomic_add(counter, 0, sem="relaxed", scope="gpu") < goal:
        pass


@triton.jit
def _tile(weights, start, last, WIDTH: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Some rows of a matrix [..., WIDTH], up to `last`; 0 beyond: [ROWS, LANES]."""
    row = start + tl.arange(0, ROWS)
    lane = tl.arange(0, LANES)
    is_real = (row < last)[:, None] & (lane < WIDTH)[None, :]
    place = weights + row[:, None] * WIDTH + lane[None, :]
    return tl.load(place, mask=is_real, other=0.0, eviction_policy="evict_first")


@triton.jit
def _product(tile, x):
    """Each row of a tile times a vector: [ROWS]."""
    return tl.sum(tile.to(tl.float32) * x[None, :], 1)


@triton.jit
def _norm(x, scale_and_shift, epsilon, WIDTH: tl.constexpr, LANES: tl.constexpr):
    """Layer norm of a vector that is 0 beyond WIDTH."""
    lane = tl.arange(0, LANES)
    is_real = lane < WIDTH
    scale = tl.load(scale_and_shift + lane, mask=is_real, other=0.0).to(tl.float32)
    shift = tl.load(scale_and_shift + WIDTH + lane, mask=is_real, other=0.0).to(tl.float32)
    centred = tl.where(is_real, x - tl.sum(x, 0) / WIDTH, 0.0)
    return centred * tl.rsqrt(tl.sum(centred * centred, 0) / WIDTH + epsilon) * scale + shift


@triton.jit
def _attend(
    query,
    keys,
    values,
    parts,
    part_logs,
    unit,
    share,
    num_columns,
    scale,
    cache_head,
    cache_column,
    HEADS: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A head's attention to a share of the columns, and the base-2 logarithm of what its softmax divided by."""
    head = unit % HEADS
    begin = unit // HEADS * share
    end = tl.minimum(begin + share, num_columns)
    lane = tl.arange(0, HEAD_WIDTH)
    query_K = tl.load(query + head * HEAD_WIDTH + lane, cache_modifier=".cg") * scale
    highest = -float("inf")
    total = 0.0
    sum_K = tl.zeros([HEAD_WIDTH], tl.float32)
    for start in range(begin, end, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        is_there = column < end
        place = head * cache_head + column[:, None] * cache_column + lane[None, :]
        key = tl.load(keys + place, mask=is_there[:, None], other=0.0, cache_modifier=".cg").to(tl.float32)
        value = tl.load(values + place, mask=is_there[:, None], other=0.0, cache_modifier=".cg").to(tl.float32)
        highest, total, sum_K = attended_further(query_K, key, value, is_there, highest, total, sum_K)
    tl.store(parts + unit * HEAD_WIDTH + lane, sum_K / total)
    tl.store(part_logs + unit, highest + tl.log2(total))


@triton.jit
def _attended(
    parts,
    part_logs,
    num_shares,
    SHARES: tl.constexpr,
    HEADS: tl.constexpr,
    PADDED_HEADS: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
):
    """The heads' attention to all columns, from that to shares of them: [PADDED_HEADS * HEAD_WIDTH]."""
    share = tl.arange(0, SHARES)
    head = tl.arange(0, PADDED_HEADS)
    lane = tl.arange(0, HEAD_WIDTH)
    is_there = (share < num_shares)[:, None] & (head < HEADS)[None, :]
    unit = share[:, None] * HEADS + head[None, :]
    # Far below any, but finite: heads that are not there have no part at all.
    log = tl.load(part_logs + unit, mask=is_there, other=-1e30, cache_modifier=".cg")
    weight = tl.exp2(log - tl.max(log, 0)[None, :])
    weight = weight / tl.sum(weight, 0)[None, :]
    place = parts + unit[:, :, None] * HEAD_WIDTH + lane[None, None, :]
    part = tl.load(place, mask=is_there[:, :, None], other=0.0, cache_modifier=".cg")
    return tl.reshape(tl.sum(part * weight[:, :, None], 0), [PADDED_HEADS * HEAD_WIDTH])


@triton.jit
def _add_product(
    residual,
    bias,
    weights,
    tile,
    x,
    first,
    last,
    SHARE: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Add some rows of a matrix times a vector, and their bias, to the residual; `tile` holds the first rows."""
    for start in range(first, last, ROWS):
        next_tile = tile
        if SHARE > ROWS:
            next_tile = _tile(weights, start + ROWS, last, WIDTH, ROWS, LANES)
        row = start + tl.arange(0, ROWS)
        is_real = row < last
        out = tl.load(residual + row, mask=is_real, other=0.0, cache_modifier=".cg")
        out += tl.load(bias + row, mask=is_real, other=0.0).to(tl.float32)
        tl.store(residual + row, out + _product(tile, x), mask=is_real)
        tile = next_tile


@triton.jit
def read_token(
    ids,
    place,
    counter,
    token_embedding,
    position_embedding,
    norms,
    biases,
    attention_in,
    attention_out,
    mlp_in,
    mlp_out,
    head,
    vocabulary_bias,
    scales,
    keys,
    values,
    residual,
    query,
    parts,
    part_logs,
    hidden,
    logits,
    summaries,
    num_layers,
    vocabulary,
    epsilon,
    cache_layer,
    cache_head,
    cache_column,
    PROGRAMS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    INNER: tl.constexpr,
    SHARES: tl.constexpr,
    PADDED_SHARES: tl.constexpr,
    PADDED_HEADS: tl.constexpr,
    INNER_LANES: tl.constexpr,
    COLUMNS: tl.constexpr,
    IN_ROWS: tl.constexpr,
    OUT_ROWS: tl.constexpr,
    INNER_ROWS: tl.constexpr,
    LEAST_SHARE: tl.constexpr,
):
    """`one_token.TokenReader.read`."""
    WIDTH: tl.constexpr = HEADS * HEAD_WIDTH
    LANES: tl.constexpr = PADDED_HEADS * HEAD_WIDTH
    program = tl.program_id(0)
    qkv_share: tl.constexpr = (3 * WIDTH + PROGRAMS - 1) // PROGRAMS
    out_share: tl.constexpr = (WIDTH + PROGRAMS - 1) // PROGRAMS
    inner_share: tl.constexpr = (INNER + PROGRAMS - 1) // PROGRAMS
    head_share = tl.cdiv(vocabulary, PROGRAMS)
    qkv_first = program * qkv_share
    qkv_last = tl.minimum(qkv_first + qkv_share, 3 * WIDTH)
    out_first = program * out_share
    out_last = tl.minimum(out_first + out_share, WIDTH)
    inner_first = program * inner_share
    inner_last = tl.minimum(inner_first + inner_share, INNER)
    lane = tl.arange(0, LANES)
    is_lane = lane < WIDTH
    in_row = tl.arange(0, IN_ROWS)
    inner_lane = tl.arange(0, INNER_LANES)

    qkv_tile = _tile(attention_in, qkv_first, qkv_last, WIDTH, IN_ROWS, LANES)
    column = tl.load(place)
    token = tl.load(ids)
    num_columns = (column + 1).to(tl.int32)
    columns_share = tl.maximum(tl.cdiv(num_columns, SHARES), LEAST_SHARE)
    num_shares = tl.cdiv(num_columns, columns_share)
    x = tl.load(token_embedding + token * WIDTH + lane, mask=is_lane, other=0.0).to(tl.float32)
    x += tl.load(position_embedding + column * WIDTH + lane, mask=is_lane, other=0.0).to(tl.float32)
    if program == 0:
        tl.store(residual + lane, x, mask=is_lane)
    goal = 0
    for layer in range(num_layers):
        layer_norms = norms + layer * 4 * WIDTH
        layer_biases = biases + layer * (5 * WIDTH + INNER)
        layer_keys = keys + layer * cache_layer
        layer_values = values + layer * cache_layer
        far = tl.cast(layer, tl.int64)

        # Queries, keys and values. Those of the token go into the cache.
        layer_attention_in = attention_in + far * (3 * WIDTH * WIDTH)
        normed = _norm(x, layer_norms, epsilon, WIDTH, LANES)
        for start in range(qkv_first, qkv_last, IN_ROWS):
            next_tile = qkv_tile
            if qkv_share > IN_ROWS:
                next_tile = _tile(layer_attention_in, start + IN_ROWS, qkv_last, WIDTH, IN_ROWS, LANES)
            row = start + in_row
            is_real = row < qkv_last
            out = _product(qkv_tile, normed) + tl.load(layer_biases + row, mask=is_real, other=0.0).to(tl.float32)
            tl.store(query + row, out, mask=is_real & (row < WIDTH))
            within = row % WIDTH
            at = within // HEAD_WIDTH * cache_head + column * cache_column + within % HEAD_WIDTH
            out = out.to(keys.dtype.element_ty)
            tl.store(layer_keys + at, out, mask=is_real & (row >= WIDTH) & (row < 2 * WIDTH))
            tl.store(layer_values + at, out, mask=is_real & (row >= 2 * WIDTH))
            qkv_tile = next_tile
        goal += PROGRAMS
        _arrive(counter)
        layer_attention_out = attention_out + far * (WIDTH * WIDTH)
        out_tile = _tile(layer_attention_out, out_first, out_last, WIDTH, OUT_ROWS, LANES)
        scale = tl.load(scales + layer)
        _wait(counter, goal)

        for unit in range(program, HEADS * num_shares, PROGRAMS):
            _attend(
                query,
                layer_keys,
                layer_values,
                parts,
                part_logs,
                unit,
                columns_share,
                num_columns,
                scale,
                cache_head,
                cache_column,
                HEADS,
                HEAD_WIDTH,
                COLUMNS,
            )
        goal += PROGRAMS
        _arrive(counter)
        layer_mlp_in = mlp_in + far * (INNER * WIDTH)
        in_tile = _tile(layer_mlp_in, inner_first, inner_last, WIDTH, IN_ROWS, LANES)
        _wait(counter, goal)

        attended = _attended(parts, part_logs, num_shares, PADDED_SHARES, HEADS, PADDED_HEADS, HEAD_WIDTH)
        _add_product(
            residual,
            layer_biases + 3 * WIDTH,
            layer_attention_out,
            out_tile,
            attended,
            out_first,
            out_last,
            out_share,
            WIDTH,
            OUT_ROWS,
            LANES,
        )
        goal += PROGRAMS
        _arrive(counter)
        layer_mlp_out = mlp_out + far * (INNER * WIDTH)
        inner_tile = _tile(layer_mlp_out, out_first, out_last, INNER, INNER_ROWS, INNER_LANES)
        _wait(counter, goal)

        x = tl.load(residual + lane, mask=is_lane, other=0.0, cache_modifier=".cg")
        normed = _norm(x, layer_norms + 2 * WIDTH, epsilon, WIDTH, LANES)
        for start in range(inner_first, inner_last, IN_ROWS):
            next_tile = in_tile
            if inner_share > IN_ROWS:
                next_tile = _tile(layer_mlp_in, start + IN_ROWS, inner_last, WIDTH, IN_ROWS, LANES)
            row = start + in_row
            is_real = row < inner_last
            out = tl.load(layer_biases + 4 * WIDTH + row, mask=is_real, other=0.0).to(tl.float32)
            out += _product(in_tile, normed)
            # 1 + tanh(z) is 2 sigmoid(2 z): GELU as GPT-2 has it.
            out *= tl.sigmoid(1.5957691216057308 * (out + 0.044715 * out * out * out))
            tl.store(hidden + row, out, mask=is_real)
            in_tile = next_tile
        goal += PROGRAMS
        _arrive(counter)
        # The next layer's queries, keys and values; behind the last one comes the head.
        following = attention_in + (far + 1) * (3 * WIDTH * WIDTH)
        if layer == num_layers - 1:
            following = head
            qkv_first = program * head_share
            qkv_last = tl.minimum(qkv_first + head_share, vocabulary)
        qkv_tile = _tile(following, qkv_first, qkv_last, WIDTH, IN_ROWS, LANES)
        _wait(counter, goal)

        hidden_F = tl.load(hidden + inner_lane, mask=inner_lane < INNER, other=0.0, cache_modifier=".cg")
        _add_product(
            residual,
            layer_biases + 4 * WIDTH + INNER,
            layer_mlp_out,
            inner_tile,
            hidden_F,
            out_first,
            out_last,
            out_share,
            INNER,
            INNER_ROWS,
            INNER_LANES,
        )
        goal += PROGRAMS
        _arrive(counter)
        _wait(counter, goal)
        x = tl.load(residual + lane, mask=is_lane, other=0.0, cache_modifier=".cg")

    normed = _norm(x, norms + num_layers * 4 * WIDTH, epsilon, WIDTH, LANES)
    own_highest = tl.full([IN_ROWS], -1e30, tl.float32)
    own_total = tl.zeros([IN_ROWS], tl.float32)
    highest = tl.full([IN_ROWS], -float("inf"), tl.float32)
    best = tl.zeros([IN_ROWS], tl.int32)
    for start in range(qkv_first, qkv_last, IN_ROWS):
        next_tile = _tile(head, start + IN_ROWS, qkv_last, WIDTH, IN_ROWS, LANES)
        row = start + in_row
        is_real = row < qkv_last
        score = _product(qkv_tile, normed)
        tl.store(logits + row, score, mask=is_real)
        score = tl.where(is_real, score, -float("inf"))
        higher = tl.maximum(own_highest, score)
        own_total = own_total * tl.exp(own_highest - higher) + tl.exp(score - higher)
        own_highest = higher
        score += tl.load(vocabulary_bias + row, mask=is_real, other=0.0)
        best = tl.where(score > highest, row, best)
        highest = tl.maximum(highest, score)
        qkv_tile = next_tile
    of_all = tl.max(own_highest, 0)
    highest_of_all = tl.max(highest, 0)
    tl.store(summaries + program, of_all)
    tl.store(summaries + PROGRAMS + program, tl.sum(own_total * tl.exp(own_highest - of_all), 0))
    tl.store(summaries + 2 * PROGRAMS + program, highest_of_all)
    first_best = tl.min(tl.where(highest == highest_of_all, best, vocabulary), 0)
    tl.store(summaries + 3 * PROGRAMS + program, first_best.to(tl.float32, bitcast=True))
    if program == 0:
        tl.store(place, column + 1)


@triton.jit
def choose_best(logits, summaries, ids, told, counter, vocabulary, PROGRAMS: tl.constexpr, LANES: tl.constexpr):
    """`one_token.TokenReader.choose_best`."""
    lane = tl.arange(0, LANES)
    is_real = lane < PROGRAMS
    own_highest = tl.load(summaries + lane, mask=is_real, other=-1e30)
    own_total = tl.load(summaries + PROGRAMS + lane, mask=is_real, other=0.0)
    highest = tl.load(summaries + 2 * PROGRAMS + lane, mask=is_real, other=-float("inf"))
    best = tl.load(summaries + 3 * PROGRAMS + lane, mask=is_real, other=0.0).to(tl.int32, bitcast=True)
    of_all = tl.max(own_highest, 0)
    log_total = tl.log(tl.sum(own_total * tl.exp(own_highest - of_all), 0)) + of_all
    chosen = tl.min(tl.where(is_real & (highest == tl.max(highest, 0)), best, vocabulary), 0)
    tl.store(ids, chosen.to(tl.int64))
    tl.store(told, chosen.to(tl.float64))
    own_score = tl.load(logits + tl.minimum(chosen, vocabulary - 1))
    tl.store(told + 1, (own_score - log_total).to(tl.float64))
    tl.store(counter, 0)
