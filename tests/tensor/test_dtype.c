/* Every code of every small type, against the definition in plain double arithmetic. */
#include <math.h>

#include "../base/support.h"
#include "io/io.h"

static uint32_t bits_of(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* sign, exponent, fraction as any IEEE-like format reads them, with the usual subnormals. */
static double ieee_value(uint32_t code, int exponent_bits, int fraction_bits, int bias)
{
    int    sign     = (int)(code >> (exponent_bits + fraction_bits) & 1);
    int    exponent = (int)(code >> fraction_bits & ((1u << exponent_bits) - 1));
    double fraction = (double)(code & ((1u << fraction_bits) - 1)) / (double)(1 << fraction_bits);
    double value    = exponent == 0 ? ldexp(fraction, 1 - bias) : ldexp(1 + fraction, exponent - bias);

    return sign ? -value : value;
}

/* The same, and infinities and NaN at the largest exponent. */
static double ieee_value_inf(uint32_t code, int exponent_bits, int fraction_bits, int bias)
{
    uint32_t top = (1u << exponent_bits) - 1;

    if ((code >> fraction_bits & top) != top) return ieee_value(code, exponent_bits, fraction_bits, bias);
    if ((code & ((1u << fraction_bits) - 1)) != 0) return NAN;
    return code >> (exponent_bits + fraction_bits) & 1 ? -INFINITY : INFINITY;
}

static double expected(wf_dtype type, uint32_t code)
{
    switch (type) {
    case WF_F16:         return ieee_value_inf(code, 5, 10, 15);
    case WF_BF16:        return ieee_value_inf(code, 8, 7, 127);
    case WF_F8_E5M2:     return ieee_value_inf(code, 5, 2, 15);
    case WF_F8_E4M3:     return (code & 0x7f) == 0x7f ? NAN : ieee_value(code, 4, 3, 7);
    case WF_F8_E4M3FNUZ: return code == 0x80 ? NAN : ieee_value(code, 4, 3, 8);
    case WF_F8_E5M2FNUZ: return code == 0x80 ? NAN : ieee_value(code, 5, 2, 16);
    case WF_F8_E8M0:     return code == 0xff ? NAN : ldexp(1, (int)code - 127);
    case WF_BOOL:        return code != 0;
    case WF_U8:          return code;
    case WF_I8:          return (int8_t)code;
    case WF_U16:         return code;
    case WF_I16:         return (int16_t)code;
    default:             return NAN;
    }
}

static const wf_dtype small_types[] = {
    WF_F16, WF_BF16, WF_F8_E5M2, WF_F8_E4M3, WF_F8_E4M3FNUZ, WF_F8_E5M2FNUZ, WF_F8_E8M0,
    WF_BOOL, WF_U8, WF_I8, WF_U16, WF_I16,
};

/* Source at an odd address, as in files of old writers. */
START_TEST(every_code_widens_exactly)
{
    static uint8_t source[1 + 65536 * 2];
    static float   out[65536];
    const wf_dtype type  = small_types[_i];
    const size_t   bytes = (size_t)wf_dtype_bits(type) / 8, n = bytes == 1 ? 256 : 65536;

    for (uint32_t code = 0; code < n; code++) {
        source[1 + code * bytes] = (uint8_t)code;
        if (bytes == 2) source[1 + code * 2 + 1] = (uint8_t)(code >> 8);
    }
    ck_assert(wf_widen_any(out, source + 1, type, n));
    for (uint32_t code = 0; code < n; code++) {
        double want = expected(type, code);

        if (isnan(want) ? isnan(out[code]) : bits_of(out[code]) == bits_of((float)want)) continue;
        ck_abort_msg("%s 0x%x is %a, expected %a", wf_dtype_name(type), code, (double)out[code], want);
    }
}
END_TEST

START_TEST(known_codes)
{
    static const struct { wf_dtype type; uint8_t bytes[2]; float value; } cases[] = {
        { WF_F16, { 0x01, 0x00 }, 0x1p-24f },     { WF_F16, { 0xff, 0x7b }, 65504 },
        { WF_F16, { 0x00, 0x3c }, 1 },            { WF_BF16, { 0x80, 0x3f }, 1 },
        { WF_F8_E4M3, { 0x7e }, 448 },            { WF_F8_E4M3, { 0x01 }, 0x1p-9f },
        { WF_F8_E5M2, { 0x7b }, 57344 },          { WF_F8_E4M3FNUZ, { 0x7f }, 240 },
        { WF_F8_E5M2FNUZ, { 0x7f }, 57344 },      { WF_F8_E8M0, { 127 }, 1 },
        { WF_BOOL, { 3 }, 1 },                    { WF_I8, { 0x80 }, -128 },
    };
    float out;

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        ck_assert(wf_widen_any(&out, cases[i].bytes, cases[i].type, 1));
        ck_assert_float_eq(out, cases[i].value);
    }
}
END_TEST

#define CHECK_WIDE(name, type, ...)                                                             \
    do {                                                                                        \
        const type values[] = { __VA_ARGS__ };                                                  \
        uint8_t    source[1 + sizeof values];                                                   \
        float      out[WF_LEN(values)];                                                         \
        memcpy(source + 1, values, sizeof values);                                              \
        ck_assert(wf_widen_any(out, source + 1, name, WF_LEN(values)));                         \
        for (size_t k = 0; k < WF_LEN(values); k++)                                             \
            ck_assert_uint_eq(bits_of(out[k]), bits_of((float)values[k]));                      \
    } while (0)

START_TEST(wide_types_convert_as_c_does)
{
    CHECK_WIDE(WF_F32, float, 0, -0.0f, 1e-45f, 3.4e38f, INFINITY, 0.1f);
    CHECK_WIDE(WF_F64, double, 0, -0.0, 0.1, 1e300, -1e300, 1e-300, 16777217, INFINITY);
    CHECK_WIDE(WF_U32, uint32_t, 0, 1, 16777217, UINT32_MAX);
    CHECK_WIDE(WF_I32, int32_t, 0, -1, INT32_MIN, INT32_MAX);
    CHECK_WIDE(WF_U64, uint64_t, 0, 1, UINT64_MAX);
    CHECK_WIDE(WF_I64, int64_t, 0, -1, INT64_MIN, INT64_MAX);
}
END_TEST

START_TEST(what_is_no_number_is_refused)
{
    static const wf_dtype types[] = { WF_C64, WF_F4, WF_F6_E2M3, WF_F6_E3M2, -1, 1000 };
    float   out;
    uint8_t source[8] = { 0 };

    for (size_t i = 0; i < WF_LEN(types); i++) ck_assert(!wf_widen_any(&out, source, types[i], 1));
}
END_TEST

START_TEST(names_go_both_ways)
{
    wf_dtype t;
    int      n = 0;

    for (; wf_dtype_bits(n) != 0; n++) {
        ck_assert(wf_dtype_from_name(wf_dtype_name(n), &t));
        ck_assert_int_eq(t, n);
    }
    ck_assert_int_eq(n, WF_F6_E3M2 + 1);
    ck_assert(!wf_dtype_from_name("f32", &t));
    ck_assert(!wf_dtype_from_name("", &t));
    ck_assert_str_eq(wf_dtype_name(-1), "unknown");
    ck_assert_int_eq(wf_dtype_bits(WF_F4), 4);
    ck_assert_int_eq(wf_dtype_bits(WF_C64), 64);
}
END_TEST

/* ---- narrowing to half ---- */

START_TEST(every_half_comes_back)
{
    for (uint32_t code = 0; code < 65536; code++) {
        uint16_t h = (uint16_t)code, back;
        float    f;

        wf_widen_any(&f, &h, WF_F16, 1);
        back = wf_f16_from_f32(f);
        if (isnan(f) ? (back & 0x7c00) == 0x7c00 && (back & 0x3ff) != 0 && (back & 0x8000) == (h & 0x8000) : back == h)
            continue;
        ck_abort_msg("0x%04x came back as 0x%04x", h, back);
    }
}
END_TEST

/* Between two halves the middle goes to the even one, and each side to its own. */
START_TEST(halves_round_to_nearest_even)
{
    for (uint16_t low = 0; low < 0x7c00; low++) {
        uint16_t high = (uint16_t)(low + 1), even = low & 1 ? high : low;
        double   a = ieee_value(low, 5, 10, 15), b = low == 0x7bff ? 65536 : ieee_value(high, 5, 10, 15);
        float    middle = (float)((a + b) / 2);  /* exact: one more bit of fraction */

        for (int sign = 0; sign < 2; sign++) {
            float    s = sign ? -1.0f : 1.0f;
            uint16_t m = sign ? 0x8000 : 0;

            if (wf_f16_from_f32(s * middle) != (m | even)) ck_abort_msg("middle above 0x%04x", low);
            if (wf_f16_from_f32(s * nextafterf(middle, 0)) != (m | low)) ck_abort_msg("below it, 0x%04x", low);
            if (wf_f16_from_f32(s * nextafterf(middle, INFINITY)) != (m | high)) ck_abort_msg("above it, 0x%04x", low);
        }
    }
    ck_assert_uint_eq(wf_f16_from_f32(INFINITY), 0x7c00);
    ck_assert_uint_eq(wf_f16_from_f32(-1e38f), 0xfc00);
    ck_assert_uint_eq(wf_f16_from_f32(1e-45f), 0);
    ck_assert_uint_eq(wf_f16_from_f32(-0.0f), 0x8000);
}
END_TEST

/* Some 3800 floats and what torch makes of them. torch saturates in F8_E4M3; of a NaN only that it is one is compared. */
START_TEST(floats_narrow_as_in_torch)
{
    static const wf_dtype types[] = { WF_F32, WF_F16, WF_BF16, WF_F8_E4M3, WF_F8_E5M2 };
    const weft_allocator  plain = wf_allocator(NULL);
    const wf_dtype        type  = types[_i];
    const wf_tensor      *x, *want;
    const size_t          item = (size_t)wf_dtype_bits(type) / 8;
    weft_tensors         *t;
    weft_error            err;
    float                *v, *back;
    uint8_t              *codes;

    ck_assert_int_eq(wf_tensors_open(test_path("data/golden/narrow.safetensors"), false, &plain, &t, &err), WEFT_OK);
    x    = wf_tensors_find(t, "x");
    want = wf_tensors_find(t, type == WF_F32 ? "x" : wf_dtype_name(type));
    ck_assert_uint_ge(x->count, 3800);
    ck_assert_uint_eq(x->count, want->count);
    v     = malloc(x->bytes);
    back  = malloc(x->bytes);
    codes = malloc(want->bytes + 1);
    memcpy(v, x->data, x->bytes);
    ck_assert(wf_narrow(codes + 1, type, v, x->count));
    wf_widen_any(back, codes + 1, type, x->count);
    for (size_t i = 0; i < x->count; i++) {
        bool fails = wf_narrow_fails(type, &v[i], 1) == 0; /* E4M3 has no infinity: what is beyond becomes 448 */
        ck_assert_msg(fails == (type == WF_F8_E4M3 ? !(fabsf(v[i]) <= 464) : !isfinite(back[i])), "%a in %s", (double)v[i],
                      wf_dtype_name(type));
        if (isnan(v[i]) ? isnan(back[i]) : memcmp(codes + 1 + i * item, want->data + i * item, item) == 0) continue;
        ck_abort_msg("%a in %s becomes %a", (double)v[i], wf_dtype_name(type), (double)back[i]);
    }
    free(v);
    free(back);
    free(codes);
    weft_tensors_free(t);
}
END_TEST

/* The largest float that is rounded down to a type's largest number, and the next. */
START_TEST(what_a_type_cannot_hold_is_found)
{
    static const struct { wf_dtype type; float most; const char *others; } edges[] = {
        { WF_F16, 0x1.ffdffep15f, "BF16 or F32" }, { WF_BF16, 0x1.fefffep127f, "F32" }, { WF_F8_E5M2, 0x1.dffffep15f, "F16, BF16 or F32" },
        { WF_F8_E4M3, 464, "F16, BF16 or F32" },
    };

    for (size_t i = 0; i < WF_LEN(edges); i++) {
        float v[] = { 1, edges[i].most, -edges[i].most, 0, -nextafterf(edges[i].most, INFINITY), 1 };
        ck_assert_uint_eq(wf_narrow_fails(edges[i].type, v, WF_LEN(v)), 4);
        ck_assert_uint_eq(wf_narrow_fails(edges[i].type, v, 4), 4);
        ck_assert_str_eq(wf_dtype_for(v[4]), edges[i].others);
    }
    float wild[] = { 3e38f, NAN, INFINITY };
    ck_assert_uint_eq(wf_narrow_fails(WF_F32, wild, 3), 1);
    ck_assert_uint_eq(wf_narrow_fails(WF_F64, wild + 2, 1), 0);
    ck_assert_ptr_null(wf_dtype_for(NAN));
}
END_TEST

START_TEST(no_other_type_is_narrowed_to)
{
    const float one = 1;
    uint8_t     code[8];

    for (wf_dtype type = 0; wf_dtype_bits(type) != 0; type++)
        ck_assert(wf_narrow(code, type, &one, 1) == (type <= WF_F8_E5M2 && type != WF_F64));
}
END_TEST

/* Every exponent, both signs: exactly those of all ones are found, at every place of every length. */
START_TEST(what_is_not_finite_is_found_where_it_is)
{
    static float v[200];
    float        one[1];

    for (uint32_t top = 0; top < 512; top++)
        for (uint32_t fraction = 0; fraction < 4; fraction++) {
            uint32_t bits = top << 23 | fraction | (fraction == 3) << 22;
            memcpy(one, &bits, sizeof bits);
            ck_assert_uint_eq(wf_not_finite(one, 1), isfinite(one[0]) ? 1 : 0);
        }
    for (size_t n = 0; n < WF_LEN(v); n++) {
        v[n] = n % 2 ? -3.4e38f : 1e-45f;
        ck_assert_uint_eq(wf_not_finite(v, n), n);
    }
    for (size_t at = WF_LEN(v); at-- > 0;) { /* the first of several */
        v[at] = at % 3 == 0 ? NAN : at % 3 == 1 ? INFINITY : -INFINITY;
        ck_assert_uint_eq(wf_not_finite(v, WF_LEN(v)), at);
        ck_assert_uint_eq(wf_not_finite(v, at), at);
    }
}
END_TEST

/* The last element of each type that can be infinite, behind more than a piece of others. */
START_TEST(infinities_are_found_in_every_type)
{
    static const wf_dtype types[] = { WF_F32, WF_F16, WF_BF16, WF_F8_E5M2 };
    static float   f[700];
    static uint8_t source[1 + sizeof f];
    const wf_dtype type = types[_i];

    for (size_t n = 1; n < WF_LEN(f); n += 233) {
        memset(f, 0, sizeof f);
        ck_assert(wf_narrow(source + 1, type, f, n));
        ck_assert(wf_finite_any(source + 1, type, n));
        f[n - 1] = -INFINITY;
        ck_assert(wf_narrow(source + 1, type, f, n));
        ck_assert(!wf_finite_any(source + 1, type, n));
        ck_assert(wf_finite_any(source + 1, type, n - 1));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dtype");
    TCase *c = tcase_create("all");

    tcase_add_test(c, what_is_not_finite_is_found_where_it_is);
    tcase_add_loop_test(c, infinities_are_found_in_every_type, 0, 4);
    tcase_add_loop_test(c, every_code_widens_exactly, 0, WF_LEN(small_types));
    tcase_add_test(c, known_codes);
    tcase_add_test(c, wide_types_convert_as_c_does);
    tcase_add_test(c, what_is_no_number_is_refused);
    tcase_add_test(c, names_go_both_ways);
    tcase_add_test(c, every_half_comes_back);
    tcase_add_test(c, halves_round_to_nearest_even);
    tcase_add_loop_test(c, floats_narrow_as_in_torch, 0, 5);
    tcase_add_test(c, what_a_type_cannot_hold_is_found);
    tcase_add_test(c, no_other_type_is_narrowed_to);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
