/* Picking tokens, included by body.h: what choose.h would choose from all scores, without computing most of them.
 *
 * A float32 head is a third of GPT-2's weights, and of its scores one is wanted. So the head is kept in 8 bits too. From
 * that come for each token of the vocabulary two numbers that its score lies between, and only the tokens whose upper
 * number reaches the greatest lower one are scored in float32: a handful. What is picked is the same, bit for bit.
 *
 * With weights w = scale * c + e, |e| <= scale / 2, and activations x = x̂ + r, x̂ in one or two digits of 8 bits,
 *
 *     |w x - scale c x̂| <= Σ |e x| + Σ |scale c r| <= scale (Σ |x| / 2 + 127 Σ |r|)
 *
 * for each group of inputs, and what the sums of w x round by in float32 is at most 2^-24 times their number times
 * Σ |w x| <= 128 scale Σ |x|. Numbers that are none (NaN) compare as false, and what they are in is scored or fails.
 */

/* The activations of a token in one digit or two, and of each group what the bound has for a scale of 1. */
static TARGET void NAME(take_digits)(struct call *call, int64_t token, int digits, const float *x, float *rest) {
    struct quantised *q = &call->picking.digits;
    const struct linear *rounded = &call->model->rounded_head;
    int64_t size = group_size(rounded->format), tokens = digits * call->num_scored;
    float *factors = call->picking.factors + token * q->groups;
    float rounding = 0.501f + 128 * 0x1p-23f * (float)(rounded->in + 64);
    for (int64_t group = 0; group < q->groups; group++) {
        float total = 0;
        for (int64_t i = 0; i < size; i++) total += fabsf(x[group * size + i]);
        factors[group] = rounding * total;
    }
    for (int digit = 0; digit < digits; digit++, x = rest) {
        int64_t slot = digit * call->num_scored + token;
        NAME(quantise)(q, slot, tokens, x, size);
        struct tile tile = tile_at(slot, tokens, QTILE);
        const int8_t *values = q->values + tile.first * q->stride + (slot - tile.first) * QUAD;
        const float *scales = q->scales + tile.first * q->groups + slot - tile.first;
        for (int64_t group = 0; group < q->groups; group++) {
            float total = 0, scale = scales[group * tile.tokens];
            for (int64_t i = group * size; i < (group + 1) * size; i++) {
                rest[i] = x[i] - scale * (float)values[i / QUAD * QUAD * tile.tokens + i % QUAD];
                total += fabsf(rest[i]);
            }
            if (digit == digits - 1) factors[group] += 127.5f * total;
        }
    }
}

/* The lower and upper numbers of a panel's tokens, of all tokens scored. */
static TARGET void NAME(bound_panel)(struct call *call, int digits, int64_t panel) {
    const struct linear *rounded = &call->model->rounded_head;
    const struct picking *picking = &call->picking;
    const struct quantised *q = &picking->digits;
    int64_t size = group_size(INT8), scored = call->num_scored, tokens = digits * scored, place = panel * PANEL;
    const uint8_t *weights = (const uint8_t *)rounded->weights + panel * panel_bytes(INT8, rounded->in);
    const uint16_t *scales = rounded->scales + panel * q->groups * PANEL;
    for (int64_t token = 0, few; token < tokens; token += few) {
        float sums[QTILE * PANEL] __attribute__((aligned(64)));
        few = tile_at(token, tokens, QTILE).tokens;
        NAME(few_quantised)(few, INT8, token == 0 ? WEIGHTS : WEIGHTS_FETCHED, q, token, size, weights, scales, sums);
        for (int64_t t = 0; t < few; t++) {
            int64_t slot = token + t, row = slot % scored;
            NAME(finish)(1, PANEL, sums + t * PANEL, PANEL, call->logits + row * call->logits_stride + place, 0, NULL,
                         slot < scored ? STORE : ADD);
        }
    }
    for (int64_t token = 0; token < scored; token += BOUNDED) {
        int64_t some = scored - token < BOUNDED ? scored - token : BOUNDED;
        for (int64_t i = 0; i < PANEL; i += LANES) {
            floats bounds[BOUNDED] = {{0}};
            for (int64_t group = 0; group < q->groups; group++) {
                floats scale = NAME(load_at)(scales, group * PANEL + i, 1);
                for (int64_t t = 0; t < some; t++)
                    bounds[t] += scale * picking->factors[(token + t) * q->groups + group];
            }
            for (int64_t t = 0; t < some; t++) {
                int64_t index = (token + t) * call->logits_stride + place + i;
                floats score = load(call->logits + index);
                store(call->logits + index, score - bounds[t]);
                store(picking->uppers + index, score + bounds[t]);
            }
        }
        for (int64_t t = 0; t < some; t++)
            for (int64_t i = rounded->out; i < place + PANEL; i++) {
                int64_t index = (token + t) * call->logits_stride + i;
                call->logits[index] = picking->uppers[index] = -INFINITY;
            }
    }
}

/* Tokens that may win. */
struct NAME(candidates) {
    int64_t count, ids[MOST_CANDIDATES + LANES]; /* up to a vector too many */
};

/* Those whose upper number is not below a threshold. */
static TARGET void NAME(add_above)(struct NAME(candidates) *found, const float *uppers, int64_t padded,
                                   float threshold) {
    found->count = 0;
    for (int64_t i = 0; i < padded && found->count <= MOST_CANDIDATES; i += LANES) {
        ints below = load(uppers + i) < threshold;
        if (NAME(none)(~below)) continue;
        for (int lane = 0; lane < LANES; lane++)
            if (!below[lane]) found->ids[found->count++] = i + lane;
    }
}

/* Those that may win a draw among tokens from `floor` on, as in `draw`: by its upper number each is compared with the best
 * value so far, that of best_id or by a lower number. */
static TARGET void NAME(add_drawn)(struct NAME(candidates) *found, const float *lowers, const float *uppers,
                                   int64_t padded, uint64_t key, float temperature, float greatest, int64_t best_id,
                                   float floor) {
    float best = noise(key, best_id), allowed = 1.01f * expf(-best);
    found->count = 0;
    for (int64_t i = 0; i < padded && found->count <= MOST_CANDIDATES; i += LANES) {
        floats upper = (load(uppers + i) - greatest) / temperature;
        ints may_win = NAME(may_win)(i, key, upper, allowed) & ~(upper < floor);
        if (NAME(none)(may_win)) continue;
        for (int lane = 0; lane < LANES; lane++) {
            if (!may_win[lane]) continue;
            float lower = (lowers[i + lane] - greatest) / temperature, value = lower + noise(key, i + lane);
            found->ids[found->count++] = i + lane;
            if (lower >= floor && value > best) best = value, allowed = 1.01f * expf(-best);
        }
    }
}

/* The float32 scores of a panel, and how one of them is asked for. */
struct NAME(scorer) {
    const struct linear *head;
    const float *x;
    int64_t panel; /* -1: none */
    float scores[PANEL] __attribute__((aligned(64)));
};

static TARGET float NAME(score_of)(struct NAME(scorer) *scorer, int64_t id) {
    int64_t in = scorer->head->in, panel = id / PANEL;
    struct product product = {.x = scorer->x, .weights = (const float *)scorer->head->weights + panel * in * PANEL,
                              .step = in * PANEL, .depth = in, .sums = scorer->scores, .stride = PANEL};
    if (panel != scorer->panel) NAME(few_tokens)(1, 1, WEIGHTS, &product);
    scorer->panel = panel;
    return scorer->scores[id % PANEL];
}

/* A token's numbers, on the way to its successor. */
struct NAME(screen) {
    const struct drawing *drawing;
    uint64_t key;
    int64_t padded, greatest_id;
    float *lowers, *uppers, greatest; /* greatest: in float32, once it is known */
    struct NAME(scorer) scorer;
    struct NAME(candidates) found;
};

/* The greatest score in float32, and its first place; 0 where too many may be it, or one is no number. */
static TARGET int NAME(find_greatest)(struct NAME(screen) *screen) {
    struct NAME(candidates) *found = &screen->found;
    if (!(NAME(greatest)(screen->lowers, screen->padded, &screen->greatest_id) > -INFINITY)) return 0;
    screen->greatest = NAME(score_of)(&screen->scorer, screen->greatest_id);
    if (!isfinite(screen->greatest)) return 0;
    NAME(add_above)(found, screen->uppers, screen->padded, screen->greatest);
    if (found->count > MOST_CANDIDATES) return 0;
    for (int64_t i = 0; i < found->count; i++) {
        int64_t id = found->ids[i];
        if (screen->uppers[id] < screen->greatest) continue;
        float score = NAME(score_of)(&screen->scorer, id);
        if (!isfinite(score)) return 0;
        if (score > screen->greatest || (score == screen->greatest && id < screen->greatest_id))
            screen->greatest = score, screen->greatest_id = id;
    }
    return 1;
}

/* What is drawn of the tokens from `floor` on, and its h; -1 where too many may be it, or one is no number. */
static TARGET int64_t NAME(screened_draw)(struct NAME(screen) *screen, float floor, float *drawn) {
    const float slack = 1e-3f, T = (float)screen->drawing->temperature; /* slack: of values, which round too */
    struct NAME(candidates) *found = &screen->found;
    int64_t best_id = screen->greatest_id;
    float best = noise(screen->key, best_id);
    NAME(add_drawn)(found, screen->lowers, screen->uppers, screen->padded, screen->key, T, screen->greatest, best_id, floor);
    if (found->count > MOST_CANDIDATES) return -1;
    *drawn = 0;
    for (int64_t i = found->count - 1; i >= 0; i--) { /* the best is likely among the last */
        int64_t id = found->ids[i];
        float luck = noise(screen->key, id);
        if ((screen->uppers[id] - screen->greatest) / T + luck + slack < best) continue;
        float score = NAME(score_of)(&screen->scorer, id), heated = (score - screen->greatest) / T;
        if (!isfinite(score)) return -1;
        if (!(heated >= floor) || heated + luck < best || (heated + luck == best && id >= best_id)) continue;
        best = heated + luck, best_id = id, *drawn = heated;
    }
    return best_id;
}

/* Whether top-k or top-p leaves a token, given its score and h; -1: that cannot be told. What comes before it is scored
 * in float32, and the rest of the probability lies between two numbers. */
static TARGET int NAME(is_left)(struct NAME(screen) *screen, float score, float heated) {
    const float T = (float)screen->drawing->temperature, greatest = screen->greatest;
    struct NAME(candidates) *found = &screen->found;
    if (!(heated < 0)) return 1;
    NAME(add_above)(found, screen->uppers, screen->padded, score);
    if (found->count > MOST_BEFORE) return -1;
    int64_t num_before = 0;
    double before = 0, least = 0, most = 0, p = screen->drawing->top_p; /* least, most: all of the probability */
    for (int64_t i = 0; i < found->count; i++) {
        int64_t id = found->ids[i];
        float found_score = NAME(score_of)(&screen->scorer, id), its = (found_score - greatest) / T;
        if (!isfinite(found_score)) return -1;
        num_before += its > heated;
        if (its > heated) before += exp((double)its);
        least += exp((double)its) - exp((double)((screen->lowers[id] - greatest) / T));
        most += exp((double)its) - exp((double)((screen->uppers[id] - greatest) / T));
    }
    if (screen->drawing->top_k > 0) return num_before < screen->drawing->top_k;
    least += NAME(mass_from)(screen->lowers, screen->padded, T, greatest, -INFINITY);
    if (before < 0.9999 * p * least) return 1;
    most += NAME(mass_from)(screen->uppers, screen->padded, T, greatest, -INFINITY);
    return before > 1.0001 * p * most ? 0 : -1;
}

/* Pick a token's successor among those that may win; 0 where that cannot be told, or what is no number. */
static TARGET int NAME(pick_one)(struct call *call, int64_t token, const float *x) {
    struct picking *picking = &call->picking;
    const struct drawing *drawing = &picking->drawing;
    struct pick *pick = &picking->picks[token];
    int64_t row = token * call->logits_stride;
    struct NAME(screen) screen = {.drawing = drawing, .key = pick->key, .padded = round_up(call->model->head.out, PANEL),
                                  .lowers = call->logits + row, .uppers = picking->uppers + row,
                                  .scorer = {.head = &call->model->head, .x = x, .panel = -1}};
    for (int64_t i = 0; i < pick->num_forbidden; i++)
        screen.lowers[pick->forbidden[i]] = screen.uppers[pick->forbidden[i]] = -INFINITY;
    if (!NAME(find_greatest)(&screen)) return 0;
    pick->id = screen.greatest_id;
    if (drawing->temperature <= 0) return 1;
    float floor = drawing->min_p > 0 ? fminf(logf((float)drawing->min_p), 0) : -INFINITY, drawn;
    if (drawing->top_k > 0 && drawing->top_k < call->model->head.out) { /* the k-th score is no less than its lower number */
        float least = NAME(kth_greatest)(screen.lowers, screen.padded, drawing->top_k);
        floor = fmaxf(floor, (least - screen.greatest) / (float)drawing->temperature);
    }
    for (;;) {
        pick->id = NAME(screened_draw)(&screen, floor, &drawn);
        if (pick->id < 0) return 0;
        if (drawing->top_k == 0 && drawing->top_p >= 1) return 1;
        int is_left = NAME(is_left)(&screen, NAME(score_of)(&screen.scorer, pick->id), drawn);
        if (is_left != 0) return is_left > 0;
        floor = nextafterf(drawn, INFINITY);
    }
}

/* Pick the successors of all tokens scored by way of the rounded head; 0 where that fails. */
static TARGET int NAME(pick_all)(struct worker *worker, const float *normed) {
    struct call *call = worker->call;
    const struct linear *rounded = &call->model->rounded_head;
    struct picking *picking = &call->picking;
    const struct drawing *drawing = &picking->drawing;
    int cuts_off = drawing->top_k > 0 || drawing->top_p < 1; /* then a few tokens in a hundred cannot be told */
    if (!picking->is_screened || (cuts_off && call->num_scored > FEW_TOKENS)) return 0;
    if (drawing->top_k > 0 && drawing->top_p < 1) return 0;
    int digits = call->num_scored <= FEW_TOKENS ? 2 : 1;
    SHARE(token, call->num_scored,
          NAME(take_digits)(call, token, digits, normed + token * call->stride_D,
                            call->qkv_N3D + token * call->stride_3D));
    SHARE(panel, round_up(rounded->out, PANEL) / PANEL, NAME(bound_panel)(call, digits, panel));
    SHARE(token, call->num_scored,
          if (!NAME(pick_one)(call, token, normed + token * call->stride_D)) atomic_store(&picking->has_failed, 1));
    return !atomic_load(&picking->has_failed);
}

/* The same from all scores; what stood at forbidden places is put where there would be upper numbers. */
static TARGET void NAME(pick_from_scores)(struct call *call, int64_t token) {
    struct pick *pick = &call->picking.picks[token];
    int64_t row = token * call->logits_stride;
    struct choice choice = {.logits = call->logits + row, .scores = call->logits + row, .forbidden = pick->forbidden,
                            .kept = call->picking.uppers + row, .num_forbidden = pick->num_forbidden, .key = pick->key};
    NAME(choose_one)(&choice, call->model->head.out, &call->picking.drawing);
    pick->id = isfinite(choice.log_probability) ? choice.id : -1;
}
