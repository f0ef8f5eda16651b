/* Products of rows of bfloat16 with a weight in panels, summed in float32.
 *
 *   panel of 64 outputs:   inputs 0, 1   o0 o0 o1 o1 ... o63 o63     256 bytes, two inputs of
 *                          inputs 2, 3   o0 o0 o1 o1 ... o63 o63     each output side by side
 *                          ...
 *
 * A thread reads its panels from end to end, once, in the order in which they lie: for few rows the
 * memory's bandwidth is all there is. Each output is one sum in the order of its inputs, whatever
 * the number of rows, so a row's result does not depend on what else is in the batch.
 */
#pragma once

#include <string.h>

#include "team.h"
#include "vector.h"

enum {
    PANEL = 64,
    TILE_ROWS = 6,   /* 6 rows x 4 vectors of sums: 24 of 32 registers */
    BLOCK_ROWS = 96, /* rows whose sums are held in the first caches */
    FEW_ROWS = 32,
    CHUNK_OF_FEW = 256, /* inputs: what is read ahead while other rows are multiplied */
    CHUNK_OF_MANY = 512,
};

typedef struct {
    const bf16 *panels;
    const float *bias; /* padded to whole panels, or NULL */
    int64_t outputs;
    int64_t inputs; /* even */
} Matrix;

/* y[rows, 64] += x[rows, inputs] @ panel, fetching `lines` cache lines from `ahead` for each pair
 * of inputs. */
static inline __attribute__((always_inline)) void tile(const int rows, const int lines,
                                                       const bf16 *panel, const bf16 *x,
                                                       int64_t ldx, float *y, int64_t ldy,
                                                       int64_t inputs, const char *ahead) {
    floats sums[TILE_ROWS][4];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) sums[r][c] = _mm512_loadu_ps(y + r * ldy + c * 16);
    for (int64_t k = 0; k < inputs; k += 2) {
        const bf16 *line = panel + k * PANEL;
#pragma GCC unroll 2
        for (int i = 0; i < lines; i++) _mm_prefetch(ahead + i * 64, _MM_HINT_T1);
        ahead += lines * 64;
#pragma GCC unroll 2
        for (int step = 0; step < STEPS; step++) {
            operand weights[4];
#pragma GCC unroll 4
            for (int c = 0; c < 4; c++)
                weights[c] = take_operand(_mm512_loadu_si512(line + c * 32), step);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                int32_t pair;
                memcpy(&pair, x + r * ldx + k, sizeof pair);
                operand factor = take_operand(_mm512_set1_epi32(pair), step);
#pragma GCC unroll 4
                for (int c = 0; c < 4; c++)
                    sums[r][c] = add_products(sums[r][c], factor, weights[c]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) _mm512_storeu_ps(y + r * ldy + c * 16, sums[r][c]);
}

/* `tile` for a number of rows, 1 to 6, and of lines, 0 to 2, that is known only here. */
static void any_tile(int rows, int lines, const bf16 *panel, const bf16 *x, int64_t ldx, float *y,
                     int64_t ldy, int64_t inputs, const char *ahead) {
#define TILE(R, LINES) \
    case 3 * R + LINES: \
        tile(R, LINES, panel, x, ldx, y, ldy, inputs, ahead); \
        break;
#define TILES(R) TILE(R, 0) TILE(R, 1) TILE(R, 2)
    switch (3 * rows + lines) { TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6) }
#undef TILES
#undef TILE
}

/* y[rows, 64] += x[rows, inputs] @ panel. With several tiles of rows, all but the first find the
 * panel in a cache, and the memory would rest: so they fetch the next chunk of inputs meanwhile,
 * the four cache lines of each pair of inputs spread over the tiles. */
static void panel_product(const bf16 *panel, const bf16 *x, int64_t ldx, float *y, int64_t ldy,
                          int64_t rows, int64_t inputs, int reads_ahead) {
    int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    int64_t chunk = tiles == 1 ? inputs : rows <= FEW_ROWS ? CHUNK_OF_FEW : CHUNK_OF_MANY;
    for (int64_t k = 0; k < inputs; k += chunk) {
        int64_t count = inputs - k < chunk ? inputs - k : chunk;
        const char *ahead = (const char *)(panel + (k + count) * PANEL);
        for (int64_t t = 0, row = 0; t < tiles; t++) {
            int tile_rows = (int)((rows - row + tiles - t - 1) / (tiles - t));
            int lines = !reads_ahead || tiles == 1 || t > 3 ? 0
                        : tiles == 2 || tiles + t == 3      ? 2
                                                            : 1;
            any_tile(tile_rows, lines, panel + k * PANEL, x + row * ldx + k, ldx, y + row * ldy,
                     ldy, count, ahead);
            ahead += count / 2 * lines * 64;
            row += tile_rows;
        }
    }
}

/* What becomes of sums [rows, ld]: those of outputs `column` to `column + columns`. */
typedef void Finish(const float *sums, int64_t ld, int64_t row, int64_t rows, int64_t column,
                    int64_t columns, void *to);

/* x[rows, inputs] @ weight, of which `group` panels at a time go to `finish`, side by side. */
typedef struct {
    const Matrix *weight;
    int64_t group;
    const bf16 *x;
    int64_t ldx, rows;
    Finish *finish;
    void *to;
} Product;

/* The outputs of one group of panels. */
static void multiply(const Product *p, int64_t index) {
    _Alignas(64) float sums[BLOCK_ROWS * 2 * PANEL];
    const Matrix *weight = p->weight;
    const int64_t width = p->group * PANEL, column = index * width;
    const int64_t left = weight->outputs - column;
    for (int64_t row = 0; row < p->rows; row += BLOCK_ROWS) {
        int64_t count = p->rows - row < BLOCK_ROWS ? p->rows - row : BLOCK_ROWS;
        for (int64_t r = 0; r < count; r++) {
            if (weight->bias)
                memcpy(sums + r * width, weight->bias + column, width * 4);
            else
                memset(sums + r * width, 0, width * 4);
        }
        for (int64_t g = 0; g < p->group; g++) {
            const bf16 *panel = weight->panels + (column + g * PANEL) * weight->inputs;
            panel_product(panel, p->x + row * p->ldx, p->ldx, sums + g * PANEL, width, count,
                          weight->inputs, row == 0);
        }
        p->finish(sums, width, row, count, column, left < width ? left : width, p->to);
    }
}

/* A thread's part of a product: neighbouring panels, and of the last eighth of all, which `next`
 * (0 at the beginning) counts, whatever is left. Cores do not read equally fast at every moment. */
static void multiply_share(const Product *p, int thread, int threads, atomic_int *next) {
    const int64_t width = p->group * PANEL;
    const int64_t groups = (p->weight->outputs + width - 1) / width;
    const int64_t fixed = threads == 1 ? groups : groups - groups / 8;
    Range mine = share(fixed, thread, threads);
    for (int64_t index = mine.begin; index < mine.end; index++) multiply(p, index);
    int64_t index;
    while ((index = fixed + atomic_fetch_add(next, 1)) < groups) multiply(p, index);
}
