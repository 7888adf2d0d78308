/* Choosing tokens, included by body.h: the greatest score, or a draw by the Gumbel-max trick (Gumbel 1954): the greatest
 * of score + noise, noise = -log(-log u), u in (0, 1) a function of key and id. `array_sampling` says the same in numpy.
 */

/* Greatest of V numbers, and the first place that has it. */
static TARGET float NAME(greatest)(const float *x, int64_t V, int64_t *place) {
    floats most = (floats){0} - INFINITY;
    ints places = {0}, here;
    for (int lane = 0; lane < LANES; lane++) here[lane] = lane;
    int64_t whole = V / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES, here += LANES) {
        floats v = load(x + i);
        ints larger = v > most;
        most = NAME(greater)(v, most);
        places = (here & larger) | (places & ~larger);
    }
    float greatest = -INFINITY;
    *place = 0;
    for (int lane = 0; lane < LANES; lane++)
        if (most[lane] > greatest || (most[lane] == greatest && places[lane] < *place))
            greatest = most[lane], *place = places[lane];
    for (int64_t i = whole; i < V; i++)
        if (x[i] > greatest) greatest = x[i], *place = i;
    return greatest;
}

/* Log of the sum of e^x. */
static TARGET float NAME(log_sum)(const float *x, int64_t V, float greatest) {
    int64_t whole = V / LANES * LANES;
    floats sums = {0};
    for (int64_t i = 0; i < whole; i += LANES) sums += NAME(exponential)(load(x + i) - greatest);
    double total = 0;
    for (int lane = 0; lane < LANES; lane++) total += (double)sums[lane];
    for (int64_t i = whole; i < V; i++) total += exp((double)(x[i] - greatest));
    return greatest + (float)log(total);
}

/* Which of the tokens from `first` on may win a draw over the best so far, b: one wins if h - log(-log u) > b, so if
 * u > e^-r with r = e^(h - b); then 1 - u < r too, as 1 - e^-r < r. That is quick to see for many tokens at a time, and
 * rules out nearly all; the noise of the others is then computed exactly. h is a score, the greatest made 0, over the
 * temperature; `allowed` is e^-b, and a little more for rounding. */
INLINE ints NAME(may_win)(int64_t first, uint64_t key, floats heated, float allowed) {
    NAME(longs) ids;
    for (int lane = 0; lane < LANES; lane++) ids[lane] = (uint64_t)lane + 1;
    floats rest = __builtin_convertvector(
        __builtin_convertvector(~mixed((ids + (uint64_t)first) * GOLDEN + key) >> 40, ints), floats);
    return rest * 0x1p-24f < NAME(exponential)(heated) * allowed;
}

/* The greatest of h + noise, of the tokens whose h is from `floor` on. */
static TARGET int64_t NAME(draw)(const float *scores, int64_t V, uint64_t key, float temperature, float greatest,
                                 int64_t best_id, float floor) {
    int64_t whole = V / LANES * LANES;
    float best = noise(key, best_id); /* its h is 0 */
    float allowed = 1.001f * expf(-best);
    for (int64_t i = 0; i < V; i += LANES) {
        int64_t end = i < whole ? LANES : V - i;
        ints may_win = {0};
        may_win -= 1;
        if (i < whole) {
            floats heated = (load(scores + i) - greatest) / temperature;
            may_win = NAME(may_win)(i, key, heated, allowed) & (heated >= floor);
            if (NAME(none)(may_win)) continue;
        }
        for (int64_t lane = 0; lane < end; lane++) {
            float heated = (scores[i + lane] - greatest) / temperature;
            if (!may_win[lane] || !(heated >= floor)) continue;
            float value = heated + noise(key, i + lane);
            if (value < best || (value == best && i + lane > best_id) || i + lane == best_id) continue;
            best = value, best_id = i + lane;
            allowed = 1.001f * expf(-best);
        }
    }
    return best_id;
}

/* How many numbers are above a threshold. */
static TARGET int64_t NAME(num_above)(const float *x, int64_t V, float threshold) {
    int64_t whole = V / LANES * LANES;
    ints counts = {0};
    for (int64_t i = 0; i < whole; i += LANES) counts -= load(x + i) > threshold;
    int64_t count = NAME(sum_of_lanes)(counts);
    for (int64_t i = whole; i < V; i++) count += x[i] > threshold;
    return count;
}

/* The k-th greatest of V numbers, of which none is NaN: fewer than k are above it, and above any lesser one k or more.
 * Found bit by bit, in the order that floats have as integers. */
static TARGET float NAME(kth_greatest)(const float *x, int64_t V, int64_t k) {
    int64_t low = INT32_MIN, high = INT32_MAX;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        float threshold = float_in_order(middle);
        int is_reached = isnan(threshold) ? middle > 0 : NAME(num_above)(x, V, threshold) < k;
        if (is_reached)
            high = middle;
        else
            low = middle + 1;
    }
    return float_in_order(low);
}

/* The sum of e^h of the tokens whose h is from `floor` on. */
static TARGET double NAME(mass_from)(const float *scores, int64_t V, float temperature, float greatest, float floor) {
    int64_t whole = V / LANES * LANES;
    double total = 0;
    for (int64_t begin = 0, end; begin < whole; begin = end) { /* in parts, so that sums stay exact */
        end = whole - begin < 4096 ? whole : begin + 4096;
        floats sums = {0};
        for (int64_t i = begin; i < end; i += LANES) {
            floats heated = (load(scores + i) - greatest) / temperature;
            ints mass = (ints)NAME(exponential)(heated) & (heated >= floor) & (heated > -87.0f);
            sums += (floats)mass;
        }
        total += (double)NAME(sum)(sums);
    }
    for (int64_t i = whole; i < V; i++) {
        float heated = (scores[i] - greatest) / temperature;
        if (heated >= floor) total += exp((double)heated);
    }
    return total;
}

/* Draw among the tokens that top-k, top-p and min-p leave. A token is in top-p if those before it, whose scores are
 * greater, hold less than that of the probability that top-k leaves; so where the draw falls on one that is not, it is
 * made again among those before it. */
static TARGET int64_t NAME(draw_by)(const struct drawing *drawing, const float *scores, int64_t V, uint64_t key,
                                    float greatest, int64_t greatest_id) {
    float T = (float)drawing->temperature, floor = -INFINITY;
    if (drawing->top_k > 0 && drawing->top_k < V)
        floor = (NAME(kth_greatest)(scores, V, drawing->top_k) - greatest) / T;
    double limit = drawing->top_p < 1 ? drawing->top_p * NAME(mass_from)(scores, V, T, greatest, floor) : INFINITY;
    if (drawing->min_p > 0) floor = fmaxf(floor, fminf(logf((float)drawing->min_p), 0));
    for (;;) {
        int64_t id = NAME(draw)(scores, V, key, T, greatest, greatest_id, floor);
        float heated = (scores[id] - greatest) / T, above = nextafterf(heated, INFINITY);
        if (!(heated < 0) || limit == INFINITY || NAME(mass_from)(scores, V, T, greatest, above) < limit) return id;
        floor = above;
    }
}

/* The token of a row. Scores that are the logits themselves get back what stood at the forbidden places. */
static TARGET void NAME(choose_one)(struct choice *choice, int64_t V, const struct drawing *drawing) {
    float *scores = choice->scores;
    int64_t id;
    float greatest = NAME(greatest)(choice->logits, V, &id), sum = NAME(log_sum)(choice->logits, V, greatest);
    for (int64_t i = 0; i < choice->num_forbidden; i++) {
        choice->kept[i] = scores[choice->forbidden[i]];
        scores[choice->forbidden[i]] = -INFINITY;
    }
    if (scores != choice->logits || choice->num_forbidden > 0) greatest = NAME(greatest)(scores, V, &id);
    if (drawing->temperature > 0) id = NAME(draw_by)(drawing, scores, V, choice->key, greatest, id);
    for (int64_t i = choice->num_forbidden - 1; i >= 0; i--) scores[choice->forbidden[i]] = choice->kept[i];
    choice->id = id;
    choice->log_probability = choice->logits[id] - sum;
}

/* What each thread does: one row after the other. */
void NAME(choose)(void *argument, int thread) {
    (void)thread;
    struct choices *choices = argument;
    for (long row; (row = atomic_fetch_add(&choices->next, 1)) < choices->num_rows;)
        NAME(choose_one)(&choices->rows[row], choices->vocab_size, &choices->drawing);
}
