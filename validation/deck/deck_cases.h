/// @file deck_cases.h
/// Key tables for the deck tests, and decks that are to be accepted (with values) or refused (with messages). The same
/// decks are given to gfortran: what we accept it must read with the same values; what we refuse says whether it does too.
#ifndef HIRL_DECK_CASES_H
#define HIRL_DECK_CASES_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hirl/deck.h"

typedef struct case_num {
    int64_t i, j, n, fx, e1, nan_policy;
    double x, y, tau, inf;
    int64_t v[HIRL_DECK_LIST_MAX], w[HIRL_DECK_LIST_MAX];
    int n_v, n_w;
    double r[HIRL_DECK_LIST_MAX];
    int n_r;
    bool l, m;
} case_num_t;

typedef struct case_txt {
    char s[HIRL_DECK_TEXT_MAX], mode[HIRL_DECK_TEXT_MAX], need[HIRL_DECK_TEXT_MAX];
    char c[HIRL_DECK_LIST_MAX][HIRL_DECK_TEXT_MAX];
    int n_c;
    int64_t count;
} case_txt_t;

typedef struct case_run {
    char base[HIRL_DECK_TEXT_MAX];
    int64_t seed;
} case_run_t;

// Some keys are named like values, so that a reader must look ahead to tell them apart.
static const hirl_key_t CASE_NUM_KEYS[] = {
    HIRL_ROW_INT(case_num_t, i, "-1", -0x1p63, 0x1p63, "", "Any integer."),
    HIRL_ROW_INT(case_num_t, j, "-1", -0x1p63, 0x1p63, "", "Any integer."),
    HIRL_ROW_INT(case_num_t, n, "10", 1, 100, "epochs", "Some epochs."),
    HIRL_ROW_INT(case_num_t, fx, "0", 0, 1e9, "", "Begins like a logical value."),
    HIRL_ROW_INT(case_num_t, e1, "0", 0, 1e9, "", "Named like an exponent."),
    HIRL_ROW_INT(case_num_t, nan_policy, "0", 0, 1e9, "", "Begins like nan."),
    HIRL_ROW_REAL(case_num_t, x, "-1", -INFINITY, INFINITY, "", "Any real number."),
    HIRL_ROW_REAL(case_num_t, y, "0.5", 0, 1, "", "Some share."),
    HIRL_ROW_REAL(case_num_t, tau, "0.07", 0, 1e9, "", "Begins like a logical value."),
    HIRL_ROW_REAL(case_num_t, inf, "1", -INFINITY, INFINITY, "", "Named like a number."),
    HIRL_ROW_INT_LIST(case_num_t, v, "", -0x1p63, 0x1p63, "", "Any integers."),
    HIRL_ROW_INT_LIST(case_num_t, w, "30000,10000,1000", 1, 1e9, "clusters",
                      "Clusters of each level."),
    HIRL_ROW_REAL_LIST(case_num_t, r, "", -INFINITY, INFINITY, "", "Any real numbers."),
    HIRL_ROW_BOOL(case_num_t, l, "F", "A switch."),
    HIRL_ROW_BOOL(case_num_t, m, ".true.", "Another switch."),
};
static const hirl_key_t CASE_TXT_KEYS[] = {
    HIRL_ROW_TEXT(case_txt_t, s, "'def'", NULL, "Any text."),
    HIRL_ROW_TEXT(case_txt_t, mode, "'none'", "none|linear|sqrt", "One of a few."),
    HIRL_ROW_TEXT(case_txt_t, need, NULL, NULL, "A text without a default."),
    HIRL_ROW_TEXT_LIST(case_txt_t, c, "", "Any texts."),
    HIRL_ROW_INT(case_txt_t, count, "0", 0, 1e6, "samples", "A number among texts."),
};
static const hirl_key_t CASE_RUN_KEYS[] = {
    HIRL_ROW_TEXT(case_run_t, base, "''", NULL, "The deck that this one builds on."),
    HIRL_ROW_INT(case_run_t, seed, "1", 0, 0x1p63, "", "Seed of all random numbers."),
};

#define CASE_GROUP(T, name, keys, help) \
    { name, help, keys, (int)(sizeof keys / sizeof keys[0]), sizeof(T) }
static const hirl_group_t CASE_RUN = CASE_GROUP(case_run_t, "run", CASE_RUN_KEYS, "What to run.");
static const hirl_group_t CASE_NUM = CASE_GROUP(case_num_t, "num", CASE_NUM_KEYS, "Numbers.");
static const hirl_group_t CASE_TXT = CASE_GROUP(case_txt_t, "txt", CASE_TXT_KEYS, "Texts.");
static const hirl_group_t *const CASE_GROUPS[] = {&CASE_RUN, &CASE_NUM, &CASE_TXT};
enum { CASE_N_GROUPS = 3 };

/// A deck, and lines of hirl_deck_write_values it leads to (without the group where that is num), separated by ';'.
typedef struct good_case {
    const char *deck;
    const char *values;
} good_case_t;

static const good_case_t GOOD_CASES[] = {
    // Layout
    {"&num i=1 /", "i = 1"},
    {"&num i=1/", "i = 1"},
    {"&num/", "i = -1;n = 10;w = 30000, 10000, 1000;l = F;m = T"},
    {"&num\n\n\n/", "i = -1"},
    {"  \t&num i=1 /\n\n", "i = 1"},
    {"&num i=1 j=2/", "i = 1;j = 2"},
    {"&num i=1,j=2,/", "i = 1;j = 2"},
    {"&num\ti=5\t,\tj=6\t/", "i = 5;j = 6"},
    {"&NUM I=5 J = 3 /", "i = 5;j = 3"},
    {"&num\n i = 1\n j\n = 2\n x = \n 3\n/", "i = 1;j = 2;x = 3.0000000000000000E+000"},
    {"&num\r\n i=5\r\n v = 1,\r\n 2\r\n/\r\n", "i = 5;v = 1, 2"},
    {"\xef\xbb\xbf&num i=4/", "i = 4"},
    {"&txt s='a' /\n&num i=4 /\n&run seed=3 /", "txt%s = 'a';i = 4;run%seed = 3"},
    {"&num i=4 /\n&txt count=2 /\n&num j=5 /", "i = 4;j = 5;txt%count = 2"},
    // Comments
    {"! a deck\n\n&num ! it's a comment / &num\n i=1! one\n ! c\n j=2 ! two\n!\n/ ! end\n! bye",
     "i = 1;j = 2"},
    {"&num!c\n i=1\n/!c", "i = 1"},
    {"! &num i=9 /\n&num i=5 /", "i = 5"},
    {"&num i=5,! c\n j=3/", "i = 5;j = 3"},
    {"&num v=1,2,! c\n j=3/", "v = 1, 2;j = 3"},
    {"&num v=1,\n ! c\n 2\n! c\n3 ! d\n 4 /", "v = 1, 2, 3, 4"},
    {"&num v =1! c\n 2\n j=3/", "v = 1, 2;j = 3"},
    {"&num i =\n ! c\n 1\n j=3/", "i = 1;j = 3"},
    {"&num i = ! nothing\n j=3/", "i = -1;j = 3"},
    {"&num v =\n\n ! c\n\n 1,2\n j=3/", "v = 1, 2;j = 3"},
    {"&txt c='a',\n! c's\n'c', count=3/", "txt%c = 'a', 'c';txt%count = 3"},
    // Repeats and nulls
    {"&num r = 2*1.5 /", "r = 1.5000000000000000E+000, 1.5000000000000000E+000"},
    {"&num v = 3*5 4 /", "v = 5, 5, 5, 4"},
    {"&num v = 64*7 /", "v = 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, "
                        "7, 7, 7, 7, 7, 7, 7, "
                        "7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, "
                        "7, 7, 7, 7, 7, 7, 7, 7, "
                        "7, 7"},
    {"&num i=1*5 j=3 /", "i = 5;j = 3"},
    {"&num w = 2* /", "w = 30000, 10000, 1000"},
    {"&num w = 2*,4 /", "w = 30000, 10000, 4"},
    {"&num w = 2* 4 /", "w = 30000, 10000, 4"},
    {"&num w = 1,,3 /", "w = 1, 10000, 3"},
    {"&num w = ,,3 /", "w = 30000, 10000, 3"},
    {"&num w = 100,20 /", "w = 100, 20"},
    {"&num w = 100,20, j=3 /", "w = 100, 20;j = 3"},
    {"&num w = 100, 2* /", "w = 100, 10000, 1000"},
    {"&num w = 100,, /", "w = 100, 10000"},
    {"&num w = 100,,,,,, j=1 /", "w = 100, 10000, 1000;j = 1"},
    {"&num v = 1,2,,,,j=1 /", "v = 1, 2;j = 1"},
    {"&num i=\n j=3 /", "i = -1;j = 3"},
    {"&num i=, j=3 /", "i = -1;j = 3"},
    {"&num i=1* j=3 l=1* x=1* /", "i = -1;j = 3;l = F"},
    // Lists and subscripts
    {"&num v=1 2 ,3 , 4 /", "v = 1, 2, 3, 4"},
    {"&num v=5\t6\n7\n\n8 /", "v = 5, 6, 7, 8"},
    {"&num w(2)=7 /", "w = 30000, 7, 1000"},
    {"&num w(2:3)=7,8 /", "w = 30000, 7, 8"},
    {"&num w(2:)=7 /", "w = 30000, 7, 1000"},
    {"&num w(:2)=7,8 /", "w = 7, 8, 1000"},
    {"&num w(:)=7 /", "w = 7, 10000, 1000"},
    {"&num w(4)=7 /", "w = 30000, 10000, 1000, 7"},
    {"&num w(3:5)=7,8,9 /", "w = 30000, 10000, 7, 8, 9"},
    {"&num w(1:3:2)=7,8 /", "w = 7, 10000, 8"},
    {"&num v(3:1:-1)=7,8,9 /", "v = 9, 8, 7"},
    {"&num w(2:3)=,8 /", "w = 30000, 10000, 8"},
    {"&num w( 2 )=7 /", "w = 30000, 7, 1000"},
    {"&num w( 2: 3)=7 /", "w = 30000, 7, 1000"},
    {"&num w(02)=7 w(+3)=8 /", "w = 30000, 7, 8"},
    {"&num w(2)\n= 7 /", "w = 30000, 7, 1000"},
    {"&num v(2)=2 v(1)=1 /", "v = 1, 2"},
    {"&txt c(2)='b' c(1)='a' /", "txt%c = 'a', 'b'"},
    {"&num v=3 4 j=5 /", "v = 3, 4;j = 5"},
    {"&num r=3 4 inf=5 /",
     "r = 3.0000000000000000E+000, 4.0000000000000000E+000;inf = 5.0000000000000000E+000"},
    {"&num r=1\n inf\n=3 /", "r = 1.0000000000000000E+000;inf = 3.0000000000000000E+000"},
    {"&num r=1 inf w(1)=3 /", "r = 1.0000000000000000E+000, inf;w = 3, 10000, 1000"},
    {"&num l= tau=5 /", "l = F;tau = 5.0000000000000000E+000"},
    {"&num l=,tau=5 fx=2 /", "l = F;tau = 5.0000000000000000E+000;fx = 2"},
    {"&num x= nan_policy=5 e1 = 3/", "x = -1.0000000000000000E+000;nan_policy = 5;e1 = 3"},
    {"&num x=1 e1=5 /", "x = 1.0000000000000000E+000;e1 = 5"},
    // Integers
    {"&num i=+5 j=-5 /", "i = 5;j = -5"},
    {"&num i=007 /", "i = 7"},
    {"&num i=9223372036854775807 j=-9223372036854775808 /",
     "i = 9223372036854775807;j = -9223372036854775808"},
    {"&num n=1 /", "n = 1"},
    {"&num n=100 /", "n = 100"},
    // Reals
    {"&num x=1 /", "x = 1.0000000000000000E+000"},
    {"&num x=1. /", "x = 1.0000000000000000E+000"},
    {"&num x=.5 /", "x = 5.0000000000000000E-001"},
    {"&num x=1d0 /", "x = 1.0000000000000000E+000"},
    {"&num x=1D+2 /", "x = 1.0000000000000000E+002"},
    {"&num x=1q0 /", "x = 1.0000000000000000E+000"},
    {"&num x=.5e-3 /", "x = 5.0000000000000001E-004"},
    {"&num x=+.5E-3 /", "x = 5.0000000000000001E-004"},
    {"&num x=1.e5/", "x = 1.0000000000000000E+005"},
    {"&num x=1+5 /", "x = 1.0000000000000000E+005"},
    {"&num x=-1.5-3 /", "x = -1.5000000000000000E-003"},
    {"&num x=1e0000000000000000005/", "x = 1.0000000000000000E+005"},
    {"&num x=0.1 /", "x = 1.0000000000000001E-001"},
    {"&num x=4.9e-324 /", "x = 4.9406564584124654E-324"},
    {"&num x=1e-400 /", "x = 0.0000000000000000E+000"},
    {"&num x=-0. /", "x = -0.0000000000000000E+000"},
    {"&num x=1.7976931348623157e308 /", "x = 1.7976931348623157E+308"},
    {"&num x=inf /", "x = inf"},
    {"&num x=-Infinity inf=+INF /", "x = -inf;inf = inf"},
    {"&num x=nan inf=NaN(123) /", "x = nan;inf = nan"},
    {"&num r=2*inf nan,-4 /", "r = inf, inf, nan, -4.0000000000000000E+000"},
    {"&num r=nan() /", "r = nan"},
    {"&num y=0 /", "y = 0.0000000000000000E+000"},
    {"&num y=1 /", "y = 1.0000000000000000E+000"},
    // Logicals
    {"&num l=T m=F /", "l = T;m = F"},
    {"&num l=t,m=f/", "l = T;m = F"},
    {"&num l=.true. m=.false. /", "l = T;m = F"},
    {"&num l=.TRUE. m=.False. /", "l = T;m = F"},
    {"&num l=true m=FALSE\n/", "l = T;m = F"},
    {"&num m=false, /", "m = F"},
    {"&num l=.t m=.f. /", "l = T;m = F"},
    {"&num l=1*T! c\n/", "l = T"},
    // Texts
    {"&txt s='abc'/", "txt%s = 'abc'"},
    {"&txt s=\"abc\" need=''/", "txt%s = 'abc';txt%need = ''"},
    {"&txt s='it''s' need=\"it's\" /", "txt%s = 'it''s';txt%need = 'it''s'"},
    {"&txt s=\"say \"\"hi\"\"\" need='say \"hi\"' /",
     "txt%s = 'say \"hi\"';txt%need = 'say \"hi\"'"},
    {"&txt s='''' need='a''''b' /", "txt%s = '''';txt%need = 'a''''b'"},
    {"&txt s='a!b/c&d$e = ,' count=3 /", "txt%s = 'a!b/c&d$e = ,';txt%count = 3"},
    {"&txt s='  lead' need='trail   ' /", "txt%s = '  lead';txt%need = 'trail'"},
    {"&txt s='tab\there' /", "txt%s = 'tab\there'"},
    {"&txt s='caf\xc3\xa9 \xe2\x88\x9e' /", "txt%s = 'caf\xc3\xa9 \xe2\x88\x9e'"},
    {"&txt s=1*'abc' c=2*'abc' 'd' /", "txt%s = 'abc';txt%c = 'abc', 'abc', 'd'"},
    {"&txt c='a' 'b'\n'c',\"d\" /", "txt%c = 'a', 'b', 'c', 'd'"},
    {"&txt c='a'! d\n'b' /", "txt%c = 'a', 'b'"},
    {"&txt s= , count=3 /", "txt%s = 'def';txt%count = 3"},
    {"&txt s='a' , count=3 /", "txt%s = 'a';txt%count = 3"},
    {"&txt mode='sqrt' s='&number $runs &' /", "txt%mode = 'sqrt';txt%s = '&number $runs &'"},
    {"&txt s='\\n\\' /", "txt%s = '\\n\\'"},
};

/// What gfortran makes of a deck that we refuse.
typedef enum gfortran_says {
    REFUSES,  // as we do
    TAKES,    // but nobody would expect how, or a mistake would pass
    STANDARD, // takes it as an extension, and refuses it where it holds to a standard
    UNASKED   // it depends on the array's size, or on how the file ends
} gfortran_says_t;

typedef struct bad_case {
    const char *deck;
    gfortran_says_t gfortran;
    const char *message; // must occur in ours; the file's name is t.nml
} bad_case_t;

static const bad_case_t BAD_CASES[] = {
    // Groups
    {"", TAKES, "t.nml:1:1: found no group, expected at least one, as in '&run ... /'"},
    {"! nothing\n", TAKES, "t.nml:2:1: found no group"},
    {"hello\n", TAKES,
     "t.nml:1:1: found 'h' outside of a group, expected '&name ... /'; comments begin with '!'"},
    {"{\"a\": 1}\n", TAKES, "t.nml:1:1: found '{' outside of a group"},
    {"\x7f"
     "ELF",
     TAKES, "t.nml:1:1: found byte 0x7f, expected text"},
    {"&num i=1 /\nx = 3\n", TAKES, "t.nml:2:1: found 'x' outside of a group"},
    {"&num i=1 / j=2\n", TAKES, "t.nml:1:12: found 'j' after the '/' that ends group 'num'"},
    {"&num i=1 / &num j=2 /\n", TAKES, "t.nml:1:12: found '&' after the '/'"},
    {"&num i=1 //\n", TAKES, "t.nml:1:11: found '/' after the '/'"},
    {"$num i=1 $end\n", TAKES,
     "t.nml:1:1: found '$' outside of a group, expected '&name ... /'; groups begin with '&'"},
    {"&num i=1 &end\n", TAKES,
     "t.nml:1:10: found '&' inside group 'num' of line 1, expected '/' to end it instead of "
     "'&end'"},
    {"& num i=1 /\n", TAKES, "t.nml:1:2: found ' ' after '&', expected the name of a group"},
    {"&num,i=1 /\n", TAKES, "t.nml:1:5: found ',' right after '&num'"},
    {"&num,i=1 /\n", TAKES, "expected a blank or the end of the line"},
    {"&\n", TAKES, "t.nml:1:2: found the end of the line after '&'"},
    {"&num i=1\n", REFUSES,
     "t.nml:2:1: found the end inside group 'num' of line 1, expected '/' to end it"},
    {"&num i=1\n&txt s='a' /\n", REFUSES, "t.nml:2:1: found '&' inside group 'num' of line 1"},
    {"&num i=1", UNASKED, "t.nml:1:9: found the end inside group 'num'"},
    {"&nums i=1 /\n", TAKES,
     "t.nml:1:2: unknown group 'nums', expected a group of the manual; the nearest is 'num'"},
    {"\n &mmm i=1 /\n", TAKES, "t.nml:2:3: unknown group 'mmm'"},
    {"&somethingelse i=1 /\n", TAKES,
     "unknown group 'somethingelse', expected one of run, num, txt"},
    // Keys
    {"&num zz=5 /\n", REFUSES, "t.nml:1:6: group 'num' has no key 'zz'"},
    {"&num nanpolicy=5 /\n", REFUSES,
     "group 'num' has no key 'nanpolicy'; the nearest is 'nan_policy'"},
    {"&num mode='x' /\n", REFUSES, "t.nml:1:6: group 'num' has no key 'mode'; there is txt%mode"},
    {"&num sede=4 /\n", REFUSES, "group 'num' has no key 'sede'; the nearest is run%seed"},
    {"&num something_different=4 /\n", REFUSES,
     "has no key 'something_different', expected one of i, j, n, fx, "},
    {"&num i=1 i=2 /\n", TAKES,
     "t.nml:1:10: num%i is given twice in this file, expected once; see line 1"},
    {"&num\n i=1\n I=2\n/\n", TAKES,
     "t.nml:3:2: num%i is given twice in this file, expected once; see line 2"},
    {"&num i=1 /\n&txt s='a' /\n&num i=1 /\n", TAKES,
     "t.nml:3:6: num%i is given twice in this file"},
    {"&num i= i= /\n", TAKES, "num%i is given twice"},
    {"&num w=1 w(2)=3 /\n", TAKES, "t.nml:1:10: num%w is given twice"},
    {"&num w(2)=3 w=1 /\n", TAKES, "t.nml:1:13: num%w is given twice"},
    {"&num w(2)=3 w(1:2)=1,2 /\n", TAKES, "t.nml:1:13: num%w: item 2 is given twice"},
    {"&num w(2)=3,4 /\n", STANDARD,
     "t.nml:1:13: num%w: found one value too many, '4', expected at most 1 here; several items "
     "take a range"},
    {"&num i 5 /\n", REFUSES, "t.nml:1:8: num%i: found '5' after the key, expected '='"},
    {"&num i=5 j /\n", TAKES,
     "t.nml:1:10: num%i: found a second value 'j', expected one value; a key needs '='"},
    {"&num j /\n", TAKES, "t.nml:1:8: num%j: found '/' after the key, expected '='"},
    {"&num i ! c\n = 5 /\n", TAKES,
     "t.nml:1:8: num%i: found '!' after the key, expected '='; a comment can follow the value"},
    {"&num i%k=5 /\n", REFUSES,
     "t.nml:1:7: num%i: found '%' after the key, expected '='; inside a group keys are written "
     "without it"},
    {"&num 5 /\n", REFUSES, "t.nml:1:6: group 'num': found '5', expected a key or '/'"},
    {"&num = 5 /\n", REFUSES, "t.nml:1:6: group 'num': found '=', expected a key or '/'"},
    {"&num i==5 /\n", REFUSES, "t.nml:1:8: num%i: found '=5', expected an integer"},
    {"&num i=5=6 /\n", REFUSES, "t.nml:1:8: num%i: found '5=6', expected an integer"},
    {"&num i(1)=5 /\n", REFUSES,
     "t.nml:1:7: num%i: found a subscript, expected '=': the key takes one value"},
    // Subscripts
    {"&num v(0)=5 /\n", REFUSES, "t.nml:1:7: num%v: found an item below 1 in its subscript"},
    {"&num v(65)=5 /\n", REFUSES,
     "t.nml:1:8: num%v: found a number out of range in its subscript, expected an item (2) or a "
     "range (2:3) or (1:5:2) within 1 to 64"},
    {"&num v(99999999999999999999)=5 /\n", REFUSES, "out of range in its subscript"},
    {"&num v()=5 /\n", REFUSES, "t.nml:1:7: num%v: found nothing in its subscript"},
    {"&num v(1,2)=5 /\n", REFUSES, "t.nml:1:9: num%v: found ',' in its subscript"},
    {"&num v(1=5 /\n", REFUSES, "t.nml:1:9: num%v: found '=' in its subscript"},
    {"&num v(a)=5 /\n", REFUSES, "t.nml:1:8: num%v: found 'a' in its subscript"},
    {"&num v(1.0)=5 /\n", REFUSES, "t.nml:1:9: num%v: found '.' in its subscript"},
    {"&num v(-)=5 /\n", REFUSES, "t.nml:1:8: num%v: found a sign without a number"},
    {"&num v(4:2)=5 /\n", REFUSES, "t.nml:1:7: num%v: found an empty range in its subscript"},
    {"&num v(1:3:0)=5 /\n", REFUSES, "found a step of zero in its subscript"},
    {"&num v(::2)=5 /\n", REFUSES, "found a range with a step that lacks a bound"},
    {"&num v(1:2:1:1)=5 /\n", REFUSES, "t.nml:1:14: num%v: found a third ':' in its subscript"},
    {"&num v (2)=5 /\n", REFUSES,
     "t.nml:1:8: num%v: found '(' after the key, expected '='; no blank goes before a subscript"},
    {"&num v(1:2 )=5 /\n", REFUSES, "t.nml:1:11: num%v: found ' ' in its subscript"},
    {"&txt s(2:3)='xx' /\n", TAKES, "t.nml:1:7: txt%s: found a subscript"},
    {"&txt c='a' /\n&txt c(1)(1:2)='xx' /\n", TAKES, "t.nml:2:10: txt%c: found '(' after the key"},
    {"&num v(2)=5 /\n", TAKES,
     "t.nml:1:6: num%v: items up to 2 are given, but item 1 has no value, expected a list without "
     "gaps"},
    {"&num v=1,,3 /\n", TAKES, "num%v: items up to 3 are given, but item 2 has no value"},
    {"&num w=3*,, 5 /\n", TAKES, "num%w: items up to 5 are given, but item 4 has no value"},
    // Values: how many
    {"&num i=1 2 /\n", REFUSES, "t.nml:1:10: num%i: found a second value '2', expected one value"},
    {"&num i=,5 /\n", REFUSES, "t.nml:1:9: num%i: found a second value '5'"},
    {"&num x=1,5 /\n", REFUSES,
     "t.nml:1:10: num%x: found a second value '5', expected one value; decimals are written with a "
     "point"},
    {"&num x=1,000 /\n", REFUSES, "num%x: found a second value '000'"},
    {"&num x=1 e5 /\n", REFUSES, "num%x: found a second value 'e5'"},
    {"&num l=T F /\n", REFUSES, "num%l: found a second value 'F'"},
    {"&txt s='abc' 'def' /\n", REFUSES, "t.nml:1:14: txt%s: found a second value ''def''"},
    {"&num i=1,,j=2 /\n", TAKES,
     "t.nml:1:11: num%i: found ',' and with it one null value too many, expected at most 1"},
    {"&num i=1,,, j=2 /\n", REFUSES,
     "t.nml:1:11: num%i: found ',' and with it one null value too many"},
    {"&num v(1:2)=1,2,,j=2 /\n", TAKES, "expected at most 2"},
    {"&num i=3*4 /\n", REFUSES,
     "t.nml:1:8: num%i: found repeat count '3*', expected at most 1: the key takes one value"},
    {"&num i=2* j=3 /\n", REFUSES, "found repeat count '2*', expected at most 1"},
    {"&num i=0*4 /\n", REFUSES,
     "t.nml:1:8: num%i: a repeat count of zero, found '0*', expected at least 1"},
    {"&num v=1000000000*1 /\n", REFUSES,
     "t.nml:1:8: num%v: found repeat count '1000000000*', expected at most 64: there is no room "
     "for more items"},
    {"&num v=99999999999999999999999999*1 /\n", REFUSES, "expected at most 64"},
    {"&num v=65*1 /\n", REFUSES, "num%v: found repeat count '65*', expected at most 64"},
    {"&num v=65* /\n", REFUSES, "num%v: found repeat count '65*', expected at most 64"},
    {"&num v=64*1 2 /\n", REFUSES,
     "num%v: found one value too many, '2', expected at most 64 here"},
    {"&num v(2:3)=7,8,9 /\n", REFUSES,
     "t.nml:1:17: num%v: found one value too many, '9', expected at most 2 here"},
    {"&num v=2*3*4 /\n", REFUSES, "num%v: found '3*4', expected an integer"},
    {"&num v=2 *5 /\n", REFUSES, "num%v: found '*5', expected an integer"},
    {"&num v=-2*5 /\n", REFUSES, "num%v: found '-2*5', expected an integer"},
    // Values: what
    {"&num i=1.0 /\n", REFUSES,
     "t.nml:1:8: num%i: found '1.0' (a real number), expected an integer"},
    {"&num i=1e3 /\n", REFUSES, "num%i: found '1e3' (a real number), expected an integer"},
    {"&num i=5. /\n", REFUSES, "num%i: found '5.' (a real number)"},
    {"&num i=5a /\n", REFUSES, "num%i: found '5a', expected an integer"},
    {"&num i='5' /\n", REFUSES,
     "t.nml:1:8: num%i: found the text '5', expected an integer; leave the quotes out"},
    {"&num i=z'ff' /\n", REFUSES, "num%i: found 'z'ff'', expected an integer"},
    {"&num i=- /\n", TAKES, "num%i: found '-', expected an integer"},
    {"&num i=+-5 /\n", REFUSES, "num%i: found '+-5'"},
    {"&num i=5;j=6 /\n", TAKES, "num%i: found '5;j=6'"},
    {"&num i=9223372036854775808 /\n", REFUSES,
     "num%i: found '9223372036854775808' (more than 64 bits hold)"},
    {"&num i=-9223372036854775809 /\n", REFUSES, "(more than 64 bits hold)"},
    {"&num n=0 /\n", TAKES,
     "t.nml:1:8: num%n: found '0' (out of range), expected an integer in epochs, 1 to 100"},
    {"&num n=101 /\n", TAKES,
     "num%n: found '101' (out of range), expected an integer in epochs, 1 to 100"},
    {"&num w=5,0 /\n", TAKES,
     "t.nml:1:10: num%w: found '0' (out of range), expected an integer in clusters, 1 to "
     "1000000000"},
    {"&num y=1.0000001 /\n", TAKES,
     "num%y: found '1.0000001' (out of range), expected a real number, 0 to 1"},
    {"&num y=nan /\n", TAKES, "num%y: found 'nan' (out of range), expected a real number, 0 to 1"},
    {"&num y=-inf /\n", TAKES, "num%y: found '-inf' (out of range)"},
    {"&num x=. /\n", REFUSES, "num%x: found '.', expected a real number"},
    {"&num x=1e /\n", REFUSES, "num%x: found '1e', expected a real number"},
    {"&num x=.e5 /\n", REFUSES, "num%x: found '.e5'"},
    {"&num x=1.5.2 /\n", REFUSES, "num%x: found '1.5.2'"},
    {"&num x=1e5.0 /\n", REFUSES, "num%x: found '1e5.0'"},
    {"&num x=--1 /\n", REFUSES, "num%x: found '--1'"},
    {"&num x=0x10 /\n", REFUSES, "num%x: found '0x10', expected a real number"},
    {"&num x=1_8 /\n", REFUSES, "num%x: found '1_8'"},
    {"&num x=(1,2) /\n", REFUSES, "num%x: found '(1'"},
    {"&num x=T /\n", REFUSES, "num%x: found 'T', expected a real number"},
    {"&num x='1' /\n", REFUSES, "num%x: found the text '1', expected a real number"},
    {"&num x=infi /\n", REFUSES, "num%x: found 'infi'"},
    {"&num x=nan( ) /\n", REFUSES, "num%x: found 'nan('"},
    {"&num x=1e999 /\n", TAKES, "num%x: found '1e999' (more than a double holds)"},
    {"&num x=-1e999 /\n", TAKES, "(more than a double holds)"},
    {"&num l=yes /\n", REFUSES, "t.nml:1:8: num%l: found 'yes', expected a logical value, T or F"},
    {"&num l=1 /\n", REFUSES,
     "num%l: found '1' (an integer), expected a logical value, T or F; numbers are no logical "
     "values"},
    {"&num l='T' /\n", REFUSES, "num%l: found the text 'T', expected a logical value"},
    {"&num l=true /\n", REFUSES,
     "t.nml:1:8: num%l: found 'true' before '/', which gfortran takes as part of it, expected T, "
     "F, .true. or .false."},
    {"&num m=FALSE/\n", REFUSES, "num%m: found 'FALSE' before '/'"},
    {"&num l=Tuesday i=1 /\n", TAKES, "num%l: found 'Tuesday'"},
    {"&num l=two\n/\n", TAKES, "num%l: found 'two'"},
    {"&txt s=abc /\n", REFUSES,
     "t.nml:1:8: txt%s: found 'abc', expected a text in quotes of at most 511 bytes; texts need "
     "quotes"},
    {"&txt s=5 /\n", TAKES, "txt%s: found '5' (an integer), expected a text in quotes"},
    {"&txt s=/data/x\n/\n", TAKES,
     "t.nml:1:9: found 'd' after the '/' that ends group 'txt', expected the end of the line "
     "(gfortran skips the rest of it); a text that holds '/' needs quotes"},
    {"&txt s='abc /\n", REFUSES,
     "t.nml:1:8: txt%s: the text ''abc /' has no closing ' on its line"},
    {"&txt s='abc\ndef' /\n", TAKES, "t.nml:1:8: txt%s: the text ''abc' has no closing '"},
    {"&txt s='abc'\"def\" /\n", REFUSES,
     "t.nml:1:13: txt%s: found '\"' right after the text, expected a blank, ',' or '/'"},
    {"&txt s='it's' /\n", REFUSES,
     "t.nml:1:12: txt%s: found 's' right after the text, expected a blank, ',' or '/'; quotes "
     "within a text are doubled"},
    {"&txt s='abc'count=3 /\n", REFUSES, "txt%s: found 'c' right after the text"},
    {"&txt mode='Linear' /\n", TAKES,
     "t.nml:1:11: txt%mode: found 'Linear', expected one of 'none', 'linear', 'sqrt'; the nearest "
     "is 'linear'"},
    {"&txt mode='cubicspline' /\n", TAKES,
     "txt%mode: found 'cubicspline', expected one of 'none', 'linear', 'sqrt'"},
    {"&txt mode=linear /\n", REFUSES,
     "txt%mode: found 'linear', expected one of 'none', 'linear', 'sqrt'; texts need quotes"},
    {"&txt s='see &num i' /\n&num i=1 /\n", REFUSES,
     "t.nml:1:8: txt%s: found 'see &num i', where a Fortran program would see the group 'num' "
     "begin"},
    {"&txt s='$num/x' /\n", TAKES, "where a Fortran program would see the group 'num' begin"},
    // Where gfortran 12 counts null values that nobody wrote
    {"&num w=1,! c\n 2 /\n", TAKES,
     "t.nml:1:10: num%w: found a comment between ',' and the next value, where gfortran reads a "
     "null value"},
    {"&num w= ! c\n 1 /\n", TAKES,
     "t.nml:1:9: num%w: found a comment between '=' and the next value"},
    {"&num i= ! c\n 1 /\n", REFUSES, "num%i: found a comment between '=' and the next value"},
    {"&txt c='a', ! c\n 'b' /\n", REFUSES, "txt%c: found a comment between ',' and the next value"},
    {"&num w=1,,! c\n j=2 /\n", TAKES, "t.nml:1:11: num%w: found a comment after a null value"},
    {"&num i=,! c\n j=2 /\n", TAKES, "num%i: found a comment after a null value"},
    {"&num v=1\n,2 /\n", TAKES, "t.nml:2:1: num%v: found ',' at the beginning of a line"},
    {"&num v=\n,2 /\n", TAKES, "t.nml:2:1: num%v: found ',' at the beginning of a line"},
    {"&num v=1,\n,2 /\n", TAKES, "t.nml:2:1: num%v: found ',' at the beginning of a line"},
    // Bytes
    {"&num i=1 /\n\x01\n", TAKES, "t.nml:2:1: found byte 0x01, expected text: a Fortran namelist"},
    {"&num\r i=1 /\n", UNASKED, "t.nml:1:5: found byte 0x0d"},
    {"&num i=\xc3\xa9 /\n", UNASKED, "t.nml:1:8: num%i: found '\xc3\xa9', expected an integer"},
    {"&num \xc3\xa9=1 /\n", UNASKED,
     "t.nml:1:6: group 'num': found '\xc3\xa9', expected a key or '/'"},
    {"&txt s='\xc3\xa9\xc3\xa9' zz=1 /\n", REFUSES, "t.nml:1:13: group 'txt' has no key 'zz'"},
};

#define CASE_COUNT(table) ((int)(sizeof(table) / sizeof(table)[0]))

#endif
