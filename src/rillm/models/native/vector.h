/* Vectors of 16 floats, rows of bfloat16, and the functions of single elements.
 *
 * With AVX512-BF16 one instruction multiplies pairs of bfloat16 and adds both products to float32.
 * Without, a bfloat16 is the upper half of a float32: the first of each pair is shifted there, the
 * second one stands there.
 */
#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

typedef uint16_t bf16;
typedef __m512 floats;

/* The lanes of a vector that starts `left` elements before the end of a row. */
static inline __mmask16 lanes(int64_t left) {
    return left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
}

#ifdef __AVX512BF16__
enum {
    STEPS = 1 /* that the products of a pair take */
};
typedef __m512bh operand;

static inline operand take_operand(__m512i pairs, int step) {
    (void)step;
    return (operand)pairs;
}

static inline floats add_products(floats sums, operand a, operand b) {
    return _mm512_dpbf16_ps(sums, a, b);
}

/* To nearest, ties to even. */
static inline __m256i round_to_bf16(floats values) {
    return (__m256i)_mm512_cvtneps_pbh(values);
}
#else
enum {
    STEPS = 2
};
typedef floats operand;

static inline operand take_operand(__m512i pairs, int step) {
    return _mm512_castsi512_ps(step ? _mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000))
                                    : _mm512_slli_epi32(pairs, 16));
}

static inline floats add_products(floats sums, operand a, operand b) {
    return _mm512_fmadd_ps(a, b, sums);
}

static inline __m256i round_to_bf16(floats values) {
    __m512i bits = _mm512_castps_si512(values);
    __m512i last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i half = _mm512_add_epi32(last, _mm512_set1_epi32(0x7fff));
    /* Of what is no number, no carry may make one. */
    __mmask16 is_nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
    bits = _mm512_mask_add_epi32(_mm512_or_si512(bits, _mm512_set1_epi32(0x400000)),
                                 (__mmask16)~is_nan, bits, half);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
}
#endif

static inline void store_bf16(bf16 *to, __mmask16 mask, floats values) {
    _mm256_mask_storeu_epi16(to, mask, round_to_bf16(values));
}

/* e^x with a relative error below 2e-7; below -88 as there, which is next to nothing.
 * 2^n * 2^f with n the nearest integer; 2^f on [-0.5, 0.5] by its Taylor polynomial. */
static inline floats exponential(floats x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-88.0f));
    floats power = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    floats whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    /* ln 2 in two parts: x - n ln 2 keeps its last bits. */
    floats rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693359375f), x);
    rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(-2.12194440e-4f), rest);
    static const float factors[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    floats sum = _mm512_set1_ps(1.0f / 5040);
    for (int i = 0; i < 7; i++) sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(factors[i]));
    return _mm512_scalef_ps(sum, whole);
}

static inline floats silu(floats x) {
    floats one = _mm512_set1_ps(1.0f);
    floats decay = exponential(_mm512_sub_ps(_mm512_setzero_ps(), x));
    return _mm512_div_ps(x, _mm512_add_ps(one, decay));
}

/* 1 / sqrt(mean(x^2) + eps) of a row. */
static inline float inverse_rms(const float *row, int64_t count, float eps) {
    floats sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += 16) {
        floats x = _mm512_maskz_loadu_ps(lanes(count - i), row + i);
        sum = _mm512_fmadd_ps(x, x, sum);
    }
    return 1.0f / sqrtf(_mm512_reduce_add_ps(sum) / (float)count + eps);
}

/* RMS normalisation of a row, rounded to bfloat16. */
static inline void normalize(const float *row, const float *weight, int64_t count, float eps,
                             bf16 *out) {
    floats scale = _mm512_set1_ps(inverse_rms(row, count, eps));
    for (int64_t i = 0; i < count; i += 16) {
        __mmask16 mask = lanes(count - i);
        floats x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, row + i), scale);
        store_bf16(out + i, mask, _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, weight + i)));
    }
}
