/* The forward pass of a decoder in bfloat16, for processors with AVX-512.
 *
 * `rillm_forward` runs all layers over the tokens of a step; `rillm_logits` scores the next token.
 * Between the phases of a layer stand barriers:
 *
 *   normalise rows | q, k, v | rotate, write to the cache | attend | output, add
 *   normalise rows | gate, up, SiLU | down, add
 *
 * The sums along the way, and the residual stream, are float32. A token's result depends on its
 * sequence alone: not on the batch, nor on how its prompt was cut into steps.
 */
#include <stdbool.h>

#include "attention.h"
#include "product.h"

typedef struct {
    const float *attention_norm, *mlp_norm; /* [hidden] */
    const float *qk_norm;                   /* [heads + kv_heads, head_dim], or NULL */
    Matrix qkv, output, gate_up, down;      /* gate and up in turns, a panel each */
    int64_t window;                         /* 0: all positions */
} Layer;

typedef struct {
    int64_t num_layers, hidden, heads, kv_heads, head_dim, mlp; /* mlp: padded to whole panels */
    float eps;
    const float *norm;
    Matrix head;      /* hidden -> vocabulary */
    Matrix embedding; /* the same layout; the rows are its outputs */
    const Layer *layers;
} Decoder;

typedef struct {
    int64_t tokens, sequences, block_size, table_width;
    const int64_t *token_ids, *slots;     /* [tokens] */
    const int64_t *block_tables;          /* [sequences, table_width] */
    const int64_t *query_lens, *seq_lens; /* [sequences] */
    const int64_t *positions;             /* [tokens] */
    const float *cos, *sin; /* [position, head_dim]; the first half of the sines negated */
    bf16 *const *keys, *const *values; /* for each layer [slot, kv_heads, head_dim] */
} Batch;

typedef struct {
    Parallel parallel;      /* or NULL: one thread */
    int (*team_size)(void); /* omp_get_num_threads */
    int64_t count;
} Threads;

/* What of a layer nobody has taken yet: items of attention, and the last panels of products. */
typedef struct {
    atomic_int items, qkv, output, gate_up, down;
} Counters;

typedef struct {
    float *qkv;     /* [tokens, (heads + 2 kv_heads) * head_dim] */
    bf16 *rows;     /* [tokens, hidden]: normalised */
    bf16 *queries;  /* [tokens, heads * head_dim]; then what they found */
    bf16 *mlp;      /* [tokens, mlp] */
    int64_t *items; /* [sequences + 1]: work items of attention before each sequence */
    Counters *next; /* [layers] */
} Buffers;

typedef struct {
    const Decoder *decoder;
    const Batch *batch;
    float *hidden; /* [tokens, hidden]: the residual stream */
    const Threads *threads;
    Buffers buffers;
    Team team;
} Forward;

static int64_t qkv_width(const Decoder *d) {
    return (d->heads + 2 * d->kv_heads) * d->head_dim;
}

static int64_t rows_of_block(const Decoder *d) {
    return MAX_QUERIES / (d->heads / d->kv_heads);
}

/* Divide a workspace; returns its bytes. */
static int64_t divide(const Decoder *d, int64_t tokens, int64_t sequences, char *at,
                      Buffers *buffers) {
    char *start = at;
#define TAKE(FIELD, COUNT) \
    buffers->FIELD = (void *)at; \
    at += round_up((COUNT) * (int64_t)sizeof *buffers->FIELD, 64);
    TAKE(qkv, tokens * qkv_width(d))
    TAKE(rows, tokens * d->hidden)
    TAKE(queries, tokens * d->heads * d->head_dim)
    TAKE(mlp, tokens * d->mlp)
    TAKE(items, sequences + 1)
    TAKE(next, d->num_layers)
#undef TAKE
    return at - start;
}

int64_t rillm_workspace_bytes(const Decoder *decoder, int64_t tokens, int64_t sequences) {
    Buffers buffers;
    return divide(decoder, tokens, sequences, NULL, &buffers);
}

typedef struct {
    void *data;
    int64_t ld;
} Output;

static void store_sums(const float *sums, int64_t ld, int64_t row, int64_t rows, int64_t column,
                       int64_t columns, void *to) {
    const Output *out = to;
    for (int64_t r = 0; r < rows; r++)
        memcpy((float *)out->data + (row + r) * out->ld + column, sums + r * ld, columns * 4);
}

static void add_sums(const float *sums, int64_t ld, int64_t row, int64_t rows, int64_t column,
                     int64_t columns, void *to) {
    const Output *out = to;
    for (int64_t r = 0; r < rows; r++) {
        float *at = (float *)out->data + (row + r) * out->ld + column;
        for (int64_t i = 0; i < columns; i++) at[i] += sums[r * ld + i];
    }
}

/* A panel of gates and one of inputs, side by side. */
static void gate_sums(const float *sums, int64_t ld, int64_t row, int64_t rows, int64_t column,
                      int64_t columns, void *to) {
    const Output *out = to;
    (void)columns;
    for (int64_t r = 0; r < rows; r++) {
        const float *gates = sums + r * ld;
        bf16 *at = (bf16 *)out->data + (row + r) * out->ld + column / 2;
        for (int64_t i = 0; i < PANEL; i += 16) {
            floats gate = silu(_mm512_loadu_ps(gates + i));
            store_bf16(at + i, 0xffff, _mm512_mul_ps(gate, _mm512_loadu_ps(gates + PANEL + i)));
        }
    }
}

/* Row `id` of a weight in panels, as float32. */
static void embed(const Matrix *embedding, int64_t id, float *out) {
    const bf16 *panel = embedding->panels + id / PANEL * PANEL * embedding->inputs;
    for (int64_t i = 0; i < embedding->inputs; i++) {
        uint32_t bits = (uint32_t)panel[(i / 2 * PANEL + id % PANEL) * 2 + i % 2] << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}

/* Norm, where there is one, and rotation of one head. */
static void rotate(const float *head, const float *norm, float eps, const float *cos,
                   const float *sin, int64_t dim, bf16 *out) {
    float values[MAX_HEAD];
    float scale = norm ? inverse_rms(head, dim, eps) : 1.0f;
    for (int64_t i = 0; i < dim; i++) values[i] = norm ? head[i] * scale * norm[i] : head[i];
    for (int64_t half = 0; half < 2; half++) {
        int64_t start = half * dim / 2, other = dim / 2 - start;
        for (int64_t i = 0; i < dim / 2; i += 16) {
            __mmask16 mask = lanes(dim / 2 - i);
            floats turned = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, values + start + i),
                                          _mm512_maskz_loadu_ps(mask, cos + start + i));
            turned = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, values + other + i),
                                     _mm512_maskz_loadu_ps(mask, sin + start + i), turned);
            store_bf16(out + start + i, mask, turned);
        }
    }
}

/* Rotate the queries and the key of a token that belong to one KV head, and write key and value to
 * the cache. */
static void place_heads(const Forward *f, int64_t layer, int64_t token, int64_t kv_head) {
    const Decoder *d = f->decoder;
    const Batch *b = f->batch;
    const int64_t dim = d->head_dim, group = d->heads / d->kv_heads;
    const float *heads = f->buffers.qkv + token * qkv_width(d);
    const float *norms = d->layers[layer].qk_norm;
    const float *cos = b->cos + b->positions[token] * dim,
                *sin = b->sin + b->positions[token] * dim;
    const int64_t slot = (b->slots[token] * d->kv_heads + kv_head) * dim;
    for (int64_t i = 0; i <= group; i++) {
        bool is_key = i == group;
        int64_t head = is_key ? d->heads + kv_head : kv_head * group + i;
        bf16 *to =
            is_key ? b->keys[layer] + slot : f->buffers.queries + (token * d->heads + head) * dim;
        rotate(heads + head * dim, norms ? norms + head * dim : NULL, d->eps, cos, sin, dim, to);
    }
    const float *value = heads + (d->heads + d->kv_heads + kv_head) * dim;
    for (int64_t i = 0; i < dim; i += 16) {
        __mmask16 mask = lanes(dim - i);
        store_bf16(b->values[layer] + slot + i, mask, _mm512_maskz_loadu_ps(mask, value + i));
    }
}

/* KV heads of a work item: all for a decode, where there are enough decodes for all threads. */
static int64_t heads_of_item(const Forward *f, int64_t sequence) {
    const Decoder *d = f->decoder;
    if (f->batch->query_lens[sequence] > 1) return 1;
    int64_t most = MAX_QUERIES / (d->heads / d->kv_heads);
    int64_t shared = f->batch->sequences >= 4 * f->threads->count
                         ? d->kv_heads
                         : (d->kv_heads + f->threads->count - 1) / f->threads->count;
    return shared < most ? shared : most;
}

static int64_t items_of_block(const Forward *f, int64_t sequence) {
    int64_t heads = heads_of_item(f, sequence);
    return (f->decoder->kv_heads + heads - 1) / heads;
}

/* Take work items until none is left. */
static void attend_all(const Forward *f, int64_t layer) {
    const Decoder *d = f->decoder;
    const Batch *b = f->batch;
    const AttentionShape shape = {d->heads, d->kv_heads, d->head_dim, d->layers[layer].window};
    const int64_t *items = f->buffers.items, most_rows = rows_of_block(d);
    AttentionScratch scratch;
    int64_t item, sequence = 0, first_token = 0;
    while ((item = atomic_fetch_add(&f->buffers.next[layer].items, 1)) < items[b->sequences]) {
        for (; item >= items[sequence + 1]; sequence++) first_token += b->query_lens[sequence];
        int64_t num_heads = heads_of_item(f, sequence), per_block = items_of_block(f, sequence);
        /* The last blocks of a prompt have the most to look at: they come first. */
        int64_t offset = (items[sequence + 1] - 1 - item) / per_block * most_rows;
        int64_t rows = b->query_lens[sequence] - offset;
        int64_t kv_head = item % per_block * num_heads;
        QueryBlock block = {
            .kv_head = kv_head,
            .num_heads = d->kv_heads - kv_head < num_heads ? d->kv_heads - kv_head : num_heads,
            .position = b->seq_lens[sequence] - b->query_lens[sequence] + offset,
            .rows = rows < most_rows ? rows : most_rows,
        };
        CachedSequence cached = {b->keys[layer], b->values[layer],
                                 b->block_tables + sequence * b->table_width, b->block_size};
        bf16 *queries = f->buffers.queries + (first_token + offset) * d->heads * d->head_dim;
        attend(&shape, &cached, &block, queries, queries, &scratch);
    }
}

static void normalize_rows(const Forward *f, const float *weight, bf16 *out, int thread) {
    const Decoder *d = f->decoder;
    Range tokens = share(f->batch->tokens, thread, f->team.size);
    for (int64_t t = tokens.begin; t < tokens.end; t++)
        normalize(f->hidden + t * d->hidden, weight, d->hidden, d->eps, out + t * d->hidden);
}

static void run_layer(Forward *f, int64_t index, int thread) {
    const Decoder *d = f->decoder;
    const Layer *layer = d->layers + index;
    const Buffers *u = &f->buffers;
    Counters *next = u->next + index;
    const int64_t tokens = f->batch->tokens;
    const int size = f->team.size;
    Output to_qkv = {u->qkv, qkv_width(d)}, to_hidden = {f->hidden, d->hidden};
    Output to_mlp = {u->mlp, d->mlp};
    Product qkv = {&layer->qkv, 1, u->rows, d->hidden, tokens, store_sums, &to_qkv};
    Product output = {&layer->output, 1,        u->queries, d->heads * d->head_dim,
                      tokens,         add_sums, &to_hidden};
    Product gate_up = {&layer->gate_up, 2, u->rows, d->hidden, tokens, gate_sums, &to_mlp};
    Product down = {&layer->down, 1, u->mlp, d->mlp, tokens, add_sums, &to_hidden};

    normalize_rows(f, layer->attention_norm, u->rows, thread);
    barrier(&f->team);
    multiply_share(&qkv, thread, size, &next->qkv);
    barrier(&f->team);
    Range mine = share(tokens * d->kv_heads, thread, size);
    for (int64_t i = mine.begin; i < mine.end; i++)
        place_heads(f, index, i / d->kv_heads, i % d->kv_heads);
    barrier(&f->team);
    attend_all(f, index);
    barrier(&f->team);
    multiply_share(&output, thread, size, &next->output);
    barrier(&f->team);
    normalize_rows(f, layer->mlp_norm, u->rows, thread);
    barrier(&f->team);
    multiply_share(&gate_up, thread, size, &next->gate_up);
    barrier(&f->team);
    multiply_share(&down, thread, size, &next->down);
    barrier(&f->team);
}

/* This thread's number, in the team that came: there may be fewer than were asked for. */
static int enter(Team *team, const Threads *threads) {
    atomic_store(&team->size, threads->parallel ? threads->team_size() : 1);
    return atomic_fetch_add(&team->entered, 1);
}

static void run(const Threads *threads, void (*part)(void *), void *argument) {
    if (threads->parallel)
        threads->parallel(part, argument, (unsigned)threads->count, 0);
    else
        part(argument);
}

static void forward_part(void *argument) {
    Forward *f = argument;
    const Decoder *d = f->decoder;
    int thread = enter(&f->team, f->threads);
    Range mine = share(f->batch->tokens, thread, f->team.size);
    for (int64_t t = mine.begin; t < mine.end; t++)
        embed(&d->embedding, f->batch->token_ids[t], f->hidden + t * d->hidden);
    for (int64_t index = 0; index < d->num_layers; index++) run_layer(f, index, thread);
}

/* Run the layers; leaves the residual stream in `hidden` [tokens, hidden]. */
void rillm_forward(const Decoder *decoder, const Batch *batch, const Threads *threads,
                   void *workspace, float *hidden) {
    Forward f = {.decoder = decoder, .batch = batch, .hidden = hidden, .threads = threads};
    divide(decoder, batch->tokens, batch->sequences, workspace, &f.buffers);
    int64_t block = rows_of_block(decoder);
    f.buffers.items[0] = 0;
    for (int64_t i = 0; i < batch->sequences; i++) {
        int64_t blocks = (batch->query_lens[i] + block - 1) / block;
        f.buffers.items[i + 1] = f.buffers.items[i] + blocks * items_of_block(&f, i);
    }
    memset(f.buffers.next, 0, decoder->num_layers * sizeof *f.buffers.next);
    run(threads, forward_part, &f);
}

typedef struct {
    const Decoder *decoder;
    const float *hidden;
    int64_t count;
    bf16 *normalized;
    float *out;
    const Threads *threads;
    Team team;
    atomic_int next; /* the last panels that nobody has taken */
} Logits;

static void logits_part(void *argument) {
    Logits *l = argument;
    const Decoder *d = l->decoder;
    Output to = {l->out, d->head.outputs};
    Product product = {&d->head, 1, l->normalized, d->hidden, l->count, store_sums, &to};
    int thread = enter(&l->team, l->threads);
    Range mine = share(l->count, thread, l->team.size);
    for (int64_t row = mine.begin; row < mine.end; row++)
        normalize(l->hidden + row * d->hidden, d->norm, d->hidden, d->eps,
                  l->normalized + row * d->hidden);
    barrier(&l->team);
    multiply_share(&product, thread, l->team.size, &l->next);
}

/* Scores [count, vocabulary] of the next token after rows [count, hidden] of `rillm_forward`;
 * `normalized` has their shape. */
void rillm_logits(const Decoder *decoder, const float *hidden, int64_t count,
                  const Threads *threads, bf16 *normalized, float *out) {
    Logits l = {.decoder = decoder,
                .hidden = hidden,
                .count = count,
                .normalized = normalized,
                .out = out,
                .threads = threads};
    run(threads, logits_part, &l);
}
