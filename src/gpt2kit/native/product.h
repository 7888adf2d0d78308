/* Products of large matrices in a training step, included by body.h: as Goto and van de Geijn (2008) cut them up, so that
 * what is read again lies in a near cache. Of a part of the depth the rows are laid side by side, a tile of them at a time,
 * for all threads; each thread takes some columns, lays them in memory of its own, which stays in its second cache, and
 * multiplies every tile of rows with them. A number of the result is summed in one order, whatever the threads do.
 */
#define COLUMNS (2 * LANES) /* of a tile */

/* `count` lines of `depth` numbers, `width` of them side by side; lines that are not there are zeros. */
INLINE void NAME(lay_lines)(int64_t width, int64_t count, int64_t depth, const float *from, int64_t line, int64_t step,
                            float *to) {
    if (count == width && step == 1)
        NAME(lay_tile)(width, from, line, depth, to);
    else if (count == width && line == 1)
        for (int64_t i = 0; i < depth; i++, from += step, to += width) memcpy(to, from, (size_t)width * sizeof(float));
    else
        for (int64_t i = 0; i < depth; i++, from += step, to += width)
            for (int64_t l = 0; l < width; l++) to[l] = l < count ? from[l * line] : 0;
}

/* c (=, +=) scale · a b, and with `bias` what that holds, for a tile and a part of the depth; the rows of a are laid side by
 * side, or `as_given`. */
INLINE void NAME(large_tile)(const struct large_product *p, const float *a, int as_given, const float *b, float *c,
                             int64_t c_row, const float *bias, int adds) {
    int64_t row = as_given ? p->a_row : 1;
    floats sums[TILE][2], scale = (floats){0} + (float)p->scale;
    UNROLL for (int r = 0; r < TILE; r++) {
        sums[r][0] = sums[r][1] = (floats){0};
        __builtin_prefetch(c + r * c_row, 1);
        __builtin_prefetch(c + r * c_row + COLUMNS - 1, 1);
    }
    UNROLL_4 for (int64_t i = 0; i < p->part; i++, a += as_given ? 1 : TILE, b += COLUMNS) {
        floats w[2] = {load(b), load(b + LANES)};
        if (!as_given) __builtin_prefetch(a + TILE * p->part); /* the next rows, for which a page may end */
        UNROLL for (int r = 0; r < TILE; r++) NAME(add_products)(2, sums[r], w, a + r * row, r % 4 == 1);
    }
    UNROLL for (int r = 0; r < TILE; r++)
        UNROLL for (int v = 0; v < 2; v++) {
            floats sum = sums[r][v] * scale;
            if (adds) sum += load(c + r * c_row + v * LANES);
            if (bias) sum += load(bias + v * LANES);
            store(c + r * c_row + v * LANES, sum);
        }
}

/* The same at the end of rows or columns. */
static TARGET __attribute__((noinline)) void NAME(last_tile)(const struct large_product *p, const float *a, int as_given,
                                                             const float *b, float *c, const float *bias, int adds,
                                                             int64_t rows, int64_t columns) {
    float tile[TILE * COLUMNS];
    if (as_given)
        NAME(large_tile)(p, a, 1, b, tile, COLUMNS, NULL, 0);
    else
        NAME(large_tile)(p, a, 0, b, tile, COLUMNS, NULL, 0);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t column = 0; column < columns; column++) {
            float *to = c + r * p->c_row + column;
            *to = tile[r * COLUMNS + column] + (adds ? *to : 0) + (bias ? bias[column] : 0);
        }
}

/* A tile of rows times some panels of columns, the first of which is given. */
static TARGET __attribute__((noinline)) void NAME(large_row)(const struct large_product *p, int64_t row, const float *b,
                                                             int64_t panel, int64_t panels) {
    int64_t rows = p->first_row + p->num_rows - row;
    int adds = p->adds || p->start > 0, as_given = rows >= TILE && p->a_column == 1;
    const float *a = as_given ? p->a + row * p->a_row + p->start : p->rows_laid + (row - p->first_row) * p->part;
    for (int64_t column = panel * COLUMNS, end = column + panels * COLUMNS; column < end;
         column += COLUMNS, b += COLUMNS * p->part) {
        float *c = p->c + row * p->c_row + column;
        const float *bias = p->bias && p->start == 0 ? p->bias + column : NULL;
        if (rows < TILE || p->columns - column < COLUMNS)
            NAME(last_tile)(p, a, as_given, b, c, bias, adds, rows < TILE ? rows : TILE,
                            p->columns - column < COLUMNS ? p->columns - column : COLUMNS);
        else if (as_given && adds)
            NAME(large_tile)(p, a, 1, b, c, p->c_row, NULL, 1);
        else if (as_given)
            NAME(large_tile)(p, a, 1, b, c, p->c_row, bias, 0);
        else if (adds)
            NAME(large_tile)(p, a, 0, b, c, p->c_row, NULL, 1);
        else
            NAME(large_tile)(p, a, 0, b, c, p->c_row, bias, 0);
    }
}

/* What each thread does first: lay rows. */
TARGET void NAME(lay_rows)(void *argument) {
    struct large_product *p = argument;
    const float *a = p->a + p->first_row * p->a_row + p->start * p->a_column;
    for (long begin; (begin = atomic_fetch_add(&p->next, 4 * TILE)) < p->num_rows;)
        for (int64_t row = begin; row < begin + 4 * TILE && row < p->num_rows; row += TILE)
            if (p->a_column != 1 || p->num_rows - row < TILE) NAME(lay_lines)(TILE, p->num_rows - row < TILE ? p->num_rows - row : TILE, p->part, a + row * p->a_row,
                            p->a_row, p->a_column, p->rows_laid + row * p->part);
}

/* And then: take columns. */
TARGET void NAME(multiply_large)(void *argument) {
    struct large_product *p = argument;
    float *laid = p->columns_laid + atomic_fetch_add(&p->next_thread, 1) * BLOCK;
    int64_t panels = (p->columns + COLUMNS - 1) / COLUMNS, most = BLOCK / (p->part * COLUMNS);
    for (int64_t first, count; (count = take_share(&p->next, p->threads, &first, panels, most)) > 0;) {
        for (int64_t panel = first; panel < first + count; panel++) {
            int64_t column = panel * COLUMNS, left = p->columns - column;
            NAME(lay_lines)(COLUMNS, left < COLUMNS ? left : COLUMNS, p->part,
                            p->b + column * p->b_column + p->start * p->b_row, p->b_column, p->b_row,
                            laid + (panel - first) * COLUMNS * p->part);
        }
        for (int64_t row = 0; row < p->num_rows; row += TILE)
            NAME(large_row)(p, p->first_row + row, laid, first, count);
    }
}
#undef COLUMNS
