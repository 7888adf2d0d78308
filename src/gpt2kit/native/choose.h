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

/* A token wins over the best so far, b, if s - log(-log u) > b, so if u > e^-r with r = e^(s - b); then 1 - u < r too, as
 * 1 - e^-r < r. That is quick to see for many tokens at a time, and rules out nearly all; the noise of the others is
 * then computed exactly. A thousandth is left for rounding. */
static TARGET int64_t NAME(draw)(const float *scores, int64_t V, uint64_t key, float temperature, float greatest,
                                 int64_t best_id) {
    int64_t whole = V / LANES * LANES;
    float best = noise(key, best_id); /* its score is made 0 */
    float allowed = 1.001f * expf(-best);
    NAME(longs) counting;
    for (int lane = 0; lane < LANES; lane++) counting[lane] = (uint64_t)lane + 1;
    for (int64_t i = 0; i < V; i += LANES) {
        int64_t end = i < whole ? LANES : V - i;
        ints may_win = {0};
        may_win -= 1;
        if (i < whole) {
            floats rest = __builtin_convertvector(
                __builtin_convertvector(~mixed((counting + (uint64_t)i) * GOLDEN + key) >> 40, ints), floats);
            may_win = rest * 0x1p-24f < NAME(exponential)((load(scores + i) - greatest) / temperature) * allowed;
            if (NAME(none)(may_win)) continue;
        }
        for (int64_t lane = 0; lane < end; lane++) {
            if (!may_win[lane]) continue;
            float value = (scores[i + lane] - greatest) / temperature + noise(key, i + lane);
            if (value < best || (value == best && i + lane > best_id) || i + lane == best_id) continue;
            best = value, best_id = i + lane;
            allowed = 1.001f * expf(-best);
        }
    }
    return best_id;
}

/* The token of a row. Scores that are the logits themselves get back what stood at the forbidden places. */
static TARGET void NAME(choose_one)(struct choice *choice, int64_t V, float temperature) {
    float *scores = choice->scores;
    int64_t id;
    float greatest = NAME(greatest)(choice->logits, V, &id), sum = NAME(log_sum)(choice->logits, V, greatest);
    for (int64_t i = 0; i < choice->num_forbidden; i++) {
        choice->kept[i] = scores[choice->forbidden[i]];
        scores[choice->forbidden[i]] = -INFINITY;
    }
    if (scores != choice->logits || choice->num_forbidden > 0) greatest = NAME(greatest)(scores, V, &id);
    if (temperature > 0) id = NAME(draw)(scores, V, choice->key, temperature, greatest, id);
    for (int64_t i = choice->num_forbidden - 1; i >= 0; i--) scores[choice->forbidden[i]] = choice->kept[i];
    choice->id = id;
    choice->log_probability = choice->logits[id] - sum;
}

/* What each thread does: one row after the other. */
void NAME(choose)(void *argument, int thread) {
    (void)thread;
    struct choices *choices = argument;
    for (long row; (row = atomic_fetch_add(&choices->next, 1)) < choices->num_rows;)
        NAME(choose_one)(&choices->rows[row], choices->vocab_size, choices->temperature);
}
