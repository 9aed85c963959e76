/* double.h - put before a file by the compiler's -include, so that what it calls float is a double.
 *
 * So the networks are compiled a second time, from the same sources, in a precision in which a difference quotient tells
 * the slope to ten digits (test_double.c). What they include of the system comes first and keeps its floats. Constants
 * are rounded as they are: both passes have the same. */
#ifndef WF_TEST_DOUBLE_H
#define WF_TEST_DOUBLE_H

#include <check.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wkeyword-macro"
#endif
#define float  double
#define expf   exp
#define erff   erf
#define tanhf  tanh
#define log1pf log1p
#define fabsf  fabs
#define sqrtf  sqrt

#endif
