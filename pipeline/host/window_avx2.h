/* What AVX2 machines have for window.c, which includes it: sums of rows, and 32 pixels of a row in one go. */
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

AVX2 static inline void weigh_avx2(
    const uint8_t *above, const uint8_t *below, int16_t *upper, int16_t *lower, int begin, int end)
{
    const __m256i of_upper = _mm256_set1_epi16(1 << 8 | 3), of_lower = _mm256_set1_epi16(3 << 8 | 1);
    for (int i = begin; i < end; i += 32) { /* quarters are swapped, for unpacking to keep the order */
        __m256i a = _mm256_permute4x64_epi64(_mm256_loadu_si256((const __m256i *)(above + i)), 0xD8);
        __m256i b = _mm256_permute4x64_epi64(_mm256_loadu_si256((const __m256i *)(below + i)), 0xD8);
        __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
        _mm256_storeu_si256((__m256i *)(upper + i), _mm256_maddubs_epi16(low, of_upper));
        _mm256_storeu_si256((__m256i *)(upper + i + 16), _mm256_maddubs_epi16(high, of_upper));
        _mm256_storeu_si256((__m256i *)(lower + i), _mm256_maddubs_epi16(low, of_lower));
        _mm256_storeu_si256((__m256i *)(lower + i + 16), _mm256_maddubs_epi16(high, of_lower));
    }
}

AVX2 static inline __m256i sums_at(const int16_t *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

/* Twice the chroma of 16 columns of pixels: `near` and `far` sums; 8 or 7 rounds. */
AVX2 static inline __m256i upsampled16(__m256i near, __m256i far, short round)
{
    __m256i sum = _mm256_add_epi16(_mm256_add_epi16(near, near), _mm256_add_epi16(near, far));
    sum = _mm256_srai_epi16(_mm256_add_epi16(sum, _mm256_set1_epi16((short)(round - (128 << 4)))), 3);
    return _mm256_and_si256(sum, _mm256_set1_epi16(~1));
}

/* 16 sums become the chroma of every other of 32 columns, and of those between; the first may be an odd one. */
AVX2 static inline void upsample32(const int16_t *sums, int odd, __m256i chroma[2])
{
    __m256i here = sums_at(sums), right = sums_at(sums + 1);
    chroma[0] = odd ? upsampled16(here, right, 7) : upsampled16(here, sums_at(sums - 1), 8);
    chroma[1] = odd ? upsampled16(right, here, 8) : upsampled16(here, right, 7);
}

/* Of eight pairs of cb and cr, both doubled. */
AVX2 static inline __m256i green16(__m256i pairs)
{
    const __m256i factors = _mm256_set1_epi32((int)((uint32_t)GREEN_CR << 16 | (uint16_t)GREEN_CB));
    return _mm256_srai_epi32(_mm256_add_epi32(_mm256_madd_epi16(pairs, factors), _mm256_set1_epi32(1 << 15)), 16);
}

/* 16 pixels of luma and of doubled chroma. */
AVX2 static inline void convert16(__m256i y, __m256i cb, __m256i cr, __m256i rgb[3])
{
    __m256i green = _mm256_packs_epi32(green16(_mm256_unpacklo_epi16(cb, cr)), green16(_mm256_unpackhi_epi16(cb, cr)));
    rgb[0] = _mm256_add_epi16(y, _mm256_mulhrs_epi16(cr, _mm256_set1_epi16(RED)));
    rgb[1] = _mm256_add_epi16(y, green);
    rgb[2] = _mm256_add_epi16(y, _mm256_mulhrs_epi16(cb, _mm256_set1_epi16(BLUE)));
}

/* Fill in, for 16 bytes of the output, which byte of a lane each is, or 128 for a zero. A lane holds one colour of every
 * other of 16 columns, then of those between; it becomes 16 bytes of a plane, or a third of three times 16 bytes.
 */
static void fill_orders(struct crop *crop)
{
    for (int c = 0; c < 3; c++)
        for (int part = 0; part < 3; part++)
            for (int i = 0; i < 16; i++) {
                int at = 16 * part + i, x = crop->planar ? i : at / 3, from = crop->mirror ? 15 - x : x;
                int is_there = crop->planar || at % 3 == c;
                crop->orders[c][part][i] = (uint8_t)(is_there ? from / 2 + from % 2 * 8 : 128);
            }
}

AVX2 static inline __m256i shuffled(__m256i v, const uint8_t order[16])
{
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)order)));
}

AVX2 static inline void put_lanes(uint8_t *left, uint8_t *right, __m256i v)
{
    _mm_storeu_si128((__m128i *)left, _mm256_castsi256_si128(v));
    _mm_storeu_si128((__m128i *)right, _mm256_extracti128_si256(v, 1));
}

/* Put 32 pixels from column i on to where they belong in the order of the output. */
AVX2 static inline void put32(const struct crop *crop, int i, __m256i rgb[3])
{
    int mirror = crop->mirror, left = mirror ? crop->columns - 16 - i : i, right = mirror ? left - 16 : left + 16;
    uint8_t *to = crop->ordered;
    if (crop->planar) {
        for (int c = 0; c < 3; c++, to += crop->apart)
            put_lanes(to + left, to + right, shuffled(rgb[c], crop->orders[c][0]));
        return;
    }
    for (int part = 0; part < 3; part++, to += 16) {
        __m256i v = _mm256_or_si256(shuffled(rgb[0], crop->orders[0][part]), shuffled(rgb[1], crop->orders[1][part]));
        put_lanes(to + 3 * left, to + 3 * right, _mm256_or_si256(v, shuffled(rgb[2], crop->orders[2][part])));
    }
}

AVX2 static inline __attribute__((always_inline)) void make_from(
    const struct crop *crop, const uint8_t *luma, int16_t *const sums[2], int odd)
{
    const int16_t *sums_cb = sums[CB] + crop->x / 2, *sums_cr = sums[CR] + crop->x / 2;
    for (int i = 0; i < crop->columns; i += 32) {
        __m256i cb[2], cr[2], rgb[3], between[3], y = _mm256_loadu_si256((const __m256i *)(luma + i));
        upsample32(sums_cb + i / 2, odd, cb);
        upsample32(sums_cr + i / 2, odd, cr);
        convert16(_mm256_and_si256(y, _mm256_set1_epi16(0xFF)), cb[0], cr[0], rgb);
        convert16(_mm256_srli_epi16(y, 8), cb[1], cr[1], between);
        for (int c = 0; c < 3; c++)
            rgb[c] = _mm256_packus_epi16(rgb[c], between[c]);
        put32(crop, i, rgb);
    }
}

AVX2 static void make_avx2(const struct crop *crop, const uint8_t *luma, int16_t *const sums[2])
{
    if (crop->x % 2)
        make_from(crop, luma, sums, 1);
    else
        make_from(crop, luma, sums, 0);
}
