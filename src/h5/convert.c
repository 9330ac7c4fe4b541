// Stored numbers as the program's own. Rounding is that of a C conversion; an integer that its new type
// cannot hold is an error.
#include "h5_impl.h"

#include <math.h>
#include <string.h>

static const size_t SIZES[] = {4, 8, 4, 8, 8, 1};

// The `size` <= 8 bytes of a number as an integer, without its sign.
static uint64_t bits_of(const uint8_t *at, uint32_t size, bool is_big_endian) {
    uint64_t value = 0;
    for (uint32_t i = 0; i < size; i++) {
        value |= (uint64_t)at[is_big_endian ? size - 1 - i : i] << 8 * i;
    }
    return value;
}

// Half precision: 5 bits of exponent and 10 of mantissa. All its values are floats.
static double half_of(uint64_t bits) {
    const int exponent = (int)(bits >> 10 & 0x1f), mantissa = (int)(bits & 0x3ff);
    double value;
    if (exponent == 0x1f)
        value = mantissa ? (double)NAN : (double)INFINITY;
    else if (exponent == 0)
        value = ldexp(mantissa, -24);
    else
        value = ldexp(mantissa + 1024, exponent - 25);
    return bits >> 15 ? -value : value;
}

static double real_of(uint64_t bits, const hirl_h5_type_t *type) {
    if (type->size == 8) {
        double value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    if (type->size == 2 && type->n_exponent == 5) return half_of(bits);
    const uint32_t word = (uint32_t)(type->size == 2 ? bits << 16 : bits);
    float value;
    memcpy(&value, &word, sizeof value);
    return (double)value;
}

static void put_real(double value, hirl_h5_number_t number, void *out, int64_t i) {
    if (number == HIRL_H5_F64)
        ((double *)out)[i] = value;
    else
        ((float *)out)[i] = (float)value;
}

// Integers round once: by way of a double they would round twice.
static void put_integer_as_real(uint64_t bits, bool is_negative, hirl_h5_number_t number, void *out,
                                int64_t i) {
    if (number == HIRL_H5_F64)
        ((double *)out)[i] = is_negative ? (double)(int64_t)bits : (double)bits;
    else
        ((float *)out)[i] = is_negative ? (float)(int64_t)bits : (float)bits;
}

// False if the number's type cannot hold the value.
static bool put_integer(uint64_t bits, bool is_negative, hirl_h5_number_t number, void *out,
                        int64_t i) {
    const int64_t value = (int64_t)bits;
    switch (number) {
        case HIRL_H5_I32:
            if (is_negative ? value < INT32_MIN : bits > INT32_MAX) return false;
            ((int32_t *)out)[i] = (int32_t)value;
            return true;
        case HIRL_H5_I64:
            if (!is_negative && bits > INT64_MAX) return false;
            ((int64_t *)out)[i] = value;
            return true;
        case HIRL_H5_U64: ((uint64_t *)out)[i] = bits; return !is_negative;
        case HIRL_H5_U8:
            if (is_negative || bits > UINT8_MAX) return false;
            ((uint8_t *)out)[i] = (uint8_t)bits;
            return true;
        default: put_integer_as_real(bits, is_negative, number, out, i); return true;
    }
}

static const char *name_number(hirl_h5_number_t number) {
    static const char *const names[] = {"f32", "f64", "i32", "i64", "u64", "u8"};
    return names[number];
}

// True if the stored bytes are the program's already.
static bool is_same(const hirl_h5_type_t *type, hirl_h5_number_t number) {
    if (type->is_big_endian || type->size != SIZES[number]) return false;
    const bool is_real = number == HIRL_H5_F32 || number == HIRL_H5_F64;
    if (is_real || type->form == HIRL_H5_REAL) return is_real && type->form == HIRL_H5_REAL;
    return type->is_signed == (number == HIRL_H5_I32 || number == HIRL_H5_I64);
}

hirl_status_t hirl_h5_convert(const hirl_h5_t *file, const char *name, const hirl_h5_type_t *type,
                              const void *stored, int64_t n, hirl_h5_number_t number, void *out) {
    const bool is_real = number == HIRL_H5_F32 || number == HIRL_H5_F64;
    HIRL_REQUIRE(type->form == HIRL_H5_INTEGER || (is_real && type->form == HIRL_H5_REAL),
                 HIRL_ERR_MISMATCH, "%s: %s cannot be read as %s", file->path, name,
                 name_number(number));
    if (n == 0) return HIRL_OK;
    if (is_same(type, number)) {
        memcpy(out, stored, (size_t)n * SIZES[number]);
        return HIRL_OK;
    }
    const uint8_t *at = stored;
    for (int64_t i = 0; i < n; i++, at += type->size) {
        uint64_t bits = bits_of(at, type->size, type->is_big_endian);
        if (type->form == HIRL_H5_REAL) {
            put_real(real_of(bits, type), number, out, i);
            continue;
        }
        const bool is_negative = type->is_signed && bits >> (8 * type->size - 1) & 1;
        if (is_negative && type->size < 8) bits |= UINT64_MAX << 8 * type->size;
        HIRL_REQUIRE(put_integer(bits, is_negative, number, out, i), HIRL_ERR_MISMATCH,
                     is_negative ? "%s: cannot read %s as %s: item %lld is %lld"
                                 : "%s: cannot read %s as %s: item %lld is %llu",
                     file->path, name, name_number(number), (long long)i, (long long)bits);
    }
    return HIRL_OK;
}
