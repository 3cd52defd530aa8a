/* What AVX2 machines have for rows.c, which includes it: casts, copies past the caches, and a row of floats in one go. */
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,f16c")))

AVX2 static void float16_f16c(const float *values, uint16_t *out, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++)
        out[i] = to_float16(values[i]);
}

/* Copy whole lines past the caches: a batch does not fit them, and an ordinary store first reads the line that it is
 * about to overwrite. Parts of lines go the ordinary way: the rest of the line follows with the next row.
 */
AVX2 static void copy_past(void *out, const void *from, size_t bytes)
{
    char *to = out;
    const char *values = from;
    size_t i = -(uintptr_t)to % LINE_BYTES < bytes ? -(uintptr_t)to % LINE_BYTES : bytes;
    memcpy(to, values, i);
    for (; i + LINE_BYTES <= bytes; i += LINE_BYTES) {
        _mm256_stream_si256((__m256i *)(to + i), _mm256_loadu_si256((const __m256i *)(values + i)));
        _mm256_stream_si256((__m256i *)(to + i + 32), _mm256_loadu_si256((const __m256i *)(values + i + 32)));
    }
    memcpy(to + i, values + i, bytes - i);
}

AVX2 static inline __m256 scaled8(const uint8_t *pixels, const float *mean, const float *scale)
{
    __m256 values = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)pixels)));
    return _mm256_mul_ps(_mm256_sub_ps(values, _mm256_loadu_ps(mean)), _mm256_loadu_ps(scale));
}

/* As `to_bfloat16`, in the low half of each 32 bits; looking for what is no number costs a tenth of all. */
AVX2 static inline __m256i bfloat16_of(__m256 values, int finite)
{
    __m256i bits = _mm256_castps_si256(values), high = _mm256_srli_epi32(bits, 16);
    __m256i up = _mm256_add_epi32(_mm256_set1_epi32(0x7FFF), _mm256_and_si256(high, _mm256_set1_epi32(1)));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, up), 16);
    if (finite)
        return rounded;
    __m256i quiet_nan = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    return _mm256_blendv_epi8(rounded, quiet_nan, _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q)));
}

AVX2 static inline __m256i cast16(enum kind kind, __m256 low, __m256 high, int finite)
{
    if (kind == KIND_FLOAT16)
        return _mm256_set_m128i(_mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT),
                                _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT));
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(bfloat16_of(low, finite), bfloat16_of(high, finite)), 0xD8);
}

/* Shift, scale, cast and write whole lines past the caches, with no step in between: 1.6 times as fast for bfloat16. */
AVX2 static void lines_avx2(
    enum kind kind, const uint8_t *pixels, const float *mean, const float *scale, void *out, size_t bytes, int finite)
{
    __m256i *to = out;
    int n = (int)(bytes / kind_bytes[kind]);
    for (int i = 0; i < n && kind == KIND_FLOAT32; i += 8)
        _mm256_stream_ps((float *)to++, scaled8(pixels + i, mean + i, scale + i));
    for (int i = 0; i < n && kind != KIND_FLOAT32; i += 16) {
        __m256 low = scaled8(pixels + i, mean + i, scale + i);
        __m256 high = scaled8(pixels + i + 8, mean + i + 8, scale + i + 8);
        _mm256_stream_si256(to++, cast16(kind, low, high, finite));
    }
}
