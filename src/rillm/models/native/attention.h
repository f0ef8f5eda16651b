/* Causal attention over the paged KV cache, for one KV head and a block of queries at a time.
 *
 * Keys and values are taken 64 positions at a time and laid out as panels, so that scores and
 * weighted sums are products; the softmax is kept up to date as positions come in (Milakov and
 * Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention",
 * 2022). Blocks of positions begin at multiples of 64: a query sees the same sums in the same order
 * in whatever block of queries it stands.
 */
#pragma once

#include "product.h"

enum {
    MAX_HEAD = 256,
    MAX_QUERIES = 64, /* of one block: its rows times the query heads of a KV head */
};

typedef struct {
    int64_t heads, kv_heads, head_dim, window; /* window 0: all positions */
} AttentionShape;

/* One sequence's place in the cache: [slot, kv_head, head_dim] of one layer. */
typedef struct {
    const bf16 *keys, *values;
    const int64_t *block_table;
    int64_t block_size;
} CachedSequence;

typedef struct {
    _Alignas(64) bf16 queries[MAX_QUERIES * MAX_HEAD];
    _Alignas(64) bf16 panel[PANEL * MAX_HEAD]; /* keys, then values */
    _Alignas(64) float scores[MAX_QUERIES * PANEL];
    _Alignas(64) bf16 weights[MAX_QUERIES * PANEL];
    _Alignas(64) float sums[MAX_QUERIES * MAX_HEAD];
    float highest[MAX_QUERIES], totals[MAX_QUERIES];
    int64_t slots[PANEL];
} AttentionScratch;

static const bf16 NO_VECTOR[MAX_HEAD];

static inline int64_t round_up(int64_t value, int64_t step) {
    return (value + step - 1) / step * step;
}

/* Transpose 16 x 16 elements of 32 bits, in place. */
static inline void transpose(__m512i rows[16]) {
    __m512i a[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            rows[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + j + 2]);
            rows[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + j + 2]);
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            a[i + j] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0x88);
            a[i + j + 4] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        rows[j] = _mm512_shuffle_i32x4(a[j], a[j + 8], 0x88);
        rows[j + 8] = _mm512_shuffle_i32x4(a[j], a[j + 8], 0xdd);
    }
}

/* Where the slots of 64 positions from `base` on begin, in elements; -1 from `end` on. */
static void find_slots(const CachedSequence *sequence, int64_t slot_width, int64_t base,
                       int64_t end, int64_t *slots) {
    const int64_t size = sequence->block_size;
    const int64_t *block = sequence->block_table + base / size;
    int64_t within = base % size;
    for (int64_t i = 0; i < PANEL; i++) {
        if (base + i >= end) {
            slots[i] = -1;
            continue;
        }
        slots[i] = (*block * size + within) * slot_width;
        if (++within == size) {
            within = 0;
            block++;
        }
    }
}

static inline const bf16 *vector_at(const bf16 *cache, int64_t slot) {
    return slot < 0 ? NO_VECTOR : cache + slot;
}

/* Ask for the vectors of 64 positions. They lie apart, so the processor does not see them coming.
 */
static void fetch(const bf16 *cache, const int64_t *slots, int64_t head_dim) {
    for (int64_t i = 0; i < PANEL && slots[i] >= 0; i++)
        for (int64_t element = 0; element < head_dim; element += 32)
            _mm_prefetch((const char *)(cache + slots[i] + element), _MM_HINT_T1);
}

/* A panel of keys: positions are its outputs, the head's elements its inputs. Of those that nobody
 * looks at, from `positions` on, some stay what they were. */
static void pack_keys(const bf16 *keys, const int64_t *slots, int64_t positions, int64_t head_dim,
                      bf16 *panel) {
    for (int64_t pair = 0; pair < head_dim / 2; pair += 16) {
        __mmask16 mask = lanes(head_dim / 2 - pair);
        for (int64_t first = 0; first < positions; first += 16) {
            __m512i block[16];
            for (int i = 0; i < 16; i++)
                block[i] =
                    _mm512_maskz_loadu_epi32(mask, vector_at(keys, slots[first + i]) + 2 * pair);
            transpose(block);
            for (int i = 0; i < 16 && pair + i < head_dim / 2; i++)
                _mm512_storeu_si512(panel + ((pair + i) * PANEL + first) * 2, block[i]);
        }
    }
}

/* Panels of values, of 64 of the head's elements each: these are outputs, positions are inputs. */
static void pack_values(const bf16 *values, const int64_t *slots, int64_t positions,
                        int64_t head_dim, bf16 *panel) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int64_t column = 0; column < head_dim; column += 32) {
        int64_t left = head_dim - column;
        __mmask32 mask = left >= 32 ? 0xffffffff : (1u << left) - 1;
        bf16 *to = panel + column / PANEL * PANEL * PANEL + column % PANEL * 2;
        for (int64_t i = 0; i < positions; i += 2) {
            __m512i even = _mm512_maskz_loadu_epi16(mask, vector_at(values, slots[i]) + column);
            __m512i odd = _mm512_maskz_loadu_epi16(mask, vector_at(values, slots[i + 1]) + column);
            _mm512_storeu_si512(to + i * PANEL, _mm512_permutex2var_epi16(even, low, odd));
            _mm512_storeu_si512(to + i * PANEL + 32, _mm512_permutex2var_epi16(even, high, odd));
        }
    }
}

/* y[queries, 64] += x[queries, inputs] @ panel. */
static void small_product(const bf16 *panel, const bf16 *x, int64_t ldx, float *y, int64_t ldy,
                          int64_t queries, int64_t inputs) {
    panel_product(panel, x, ldx, y, ldy, queries, inputs, 0);
}

/* Take 64 scores of a query into its softmax: those at `first` to before `end` count.
 * Leaves the weights of the positions, and rescales what was summed before. */
static void update_softmax(AttentionScratch *s, int64_t query, float *scores, bf16 *weights,
                           int64_t first, int64_t end, float scale, int64_t width) {
    __mmask16 masks[4];
    floats highest = _mm512_set1_ps(s->highest[query]);
    for (int c = 0; c < 4; c++) {
        int64_t from = first - c * 16, to = end - c * 16;
        masks[c] = to <= 0 ? 0 : lanes(to) & (from <= 0 ? 0xffff : (__mmask16)~lanes(from));
        floats scaled = _mm512_mul_ps(_mm512_loadu_ps(scores + c * 16), _mm512_set1_ps(scale));
        _mm512_storeu_ps(scores + c * 16, scaled);
        highest = _mm512_mask_max_ps(highest, masks[c], highest, scaled);
    }
    float top = _mm512_reduce_max_ps(highest);
    floats total = _mm512_setzero_ps();
    for (int c = 0; c < 4; c++) {
        floats difference = _mm512_sub_ps(_mm512_loadu_ps(scores + c * 16), _mm512_set1_ps(top));
        floats weight = _mm512_maskz_mov_ps(masks[c], exponential(difference));
        total = _mm512_add_ps(total, weight);
        store_bf16(weights + c * 16, 0xffff, weight);
    }
    if (top > s->highest[query]) {
        floats decay = exponential(_mm512_set1_ps(s->highest[query] - top));
        for (int64_t i = 0; i < width; i += 16) {
            float *sums = s->sums + query * width + i;
            _mm512_storeu_ps(sums, _mm512_mul_ps(_mm512_loadu_ps(sums), decay));
        }
        s->totals[query] *= _mm512_cvtss_f32(decay);
        s->highest[query] = top;
    }
    s->totals[query] += _mm512_reduce_add_ps(total);
}

/* `rows` neighbouring tokens of a sequence, the first of them at `position`, with `num_heads` KV
 * heads: at most MAX_QUERIES queries. */
typedef struct {
    int64_t kv_head, num_heads, position, rows;
} QueryBlock;

/* Scores, softmax and weighted sums of 64 positions from `base` on, for one KV head of the block:
 * its queries are `count`, from `first` on. */
static void take_positions(const AttentionShape *shape, const bf16 *keys, const bf16 *values,
                           const QueryBlock *block, int64_t first, int64_t count, int64_t base,
                           AttentionScratch *s) {
    const int64_t dim = shape->head_dim, width = round_up(dim, PANEL), window = shape->window;
    const int64_t group = count / block->rows, left = block->position + block->rows - base;
    const int64_t positions = left < PANEL ? round_up(left, 2) : PANEL;

    fetch(values, s->slots, dim);
    pack_keys(keys, s->slots, positions, dim, s->panel);
    memset(s->scores, 0, count * PANEL * 4);
    small_product(s->panel, s->queries + first * dim, dim, s->scores, PANEL, count, dim);
    for (int64_t q = 0; q < count; q++) {
        int64_t own = block->position + q / group;
        int64_t seen = window && own >= window ? own - window + 1 : 0;
        update_softmax(s, first + q, s->scores + q * PANEL, s->weights + q * PANEL, seen - base,
                       own + 1 - base, 1.0f / sqrtf((float)dim), width);
    }
    /* Those of the next head, where there is one. */
    fetch(keys + dim, s->slots, dim);
    pack_values(values, s->slots, positions, dim, s->panel);
    for (int64_t column = 0; column < dim; column += PANEL)
        small_product(s->panel + column * PANEL, s->weights, PANEL,
                      s->sums + first * width + column, width, count, positions);
}

/* Attend with a block of queries. `queries` and `out` are [rows, heads, head_dim], and may be the
 * same; the keys and values of all its tokens are in the cache. */
static void attend(const AttentionShape *shape, const CachedSequence *sequence,
                   const QueryBlock *block, const bf16 *queries, bf16 *out, AttentionScratch *s) {
    const int64_t dim = shape->head_dim, width = round_up(dim, PANEL);
    const int64_t group = shape->heads / shape->kv_heads, count = block->rows * group;
    const int64_t stride = shape->heads * dim, all = block->num_heads * count;
    for (int64_t h = 0; h < block->num_heads; h++)
        for (int64_t row = 0; row < block->rows; row++)
            memcpy(s->queries + (h * count + row * group) * dim,
                   queries + row * stride + (block->kv_head + h) * group * dim, group * dim * 2);
    memset(s->sums, 0, all * width * 4);
    for (int64_t q = 0; q < all; q++) {
        s->highest[q] = -INFINITY;
        s->totals[q] = 0;
    }
    const int64_t end = block->position + block->rows;
    const int64_t seen = shape->window ? block->position - shape->window + 1 : 0;
    const int64_t start = seen > 0 ? seen / PANEL * PANEL : 0;
    const bf16 *keys = sequence->keys + block->kv_head * dim;
    const bf16 *values = sequence->values + block->kv_head * dim;
    for (int64_t base = start; base < end; base += PANEL) {
        find_slots(sequence, shape->kv_heads * dim, base, end, s->slots);
        for (int64_t h = 0; h < block->num_heads; h++)
            take_positions(shape, keys + h * dim, values + h * dim, block, h * count, count, base,
                           s);
    }
    for (int64_t q = 0; q < all; q++) {
        int64_t head = (block->kv_head + q / count) * group + q % group;
        bf16 *to = out + q % count / group * stride + head * dim;
        floats inverse = _mm512_set1_ps(1.0f / s->totals[q]);
        for (int64_t i = 0; i < dim; i += 16)
            store_bf16(to + i, lanes(dim - i),
                       _mm512_mul_ps(_mm512_loadu_ps(s->sums + q * width + i), inverse));
    }
}
