/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_EXPORT_H
#define TREADLE_EXPORT_H

/* What libtreadle exports; everything else in it is hidden. */
#if defined(TREADLE_BUILDING) && defined(__GNUC__)
#define TREADLE_API __attribute__((visibility("default")))
#else
#define TREADLE_API
#endif

/* The compiler warns where such a function's result is dropped. */
#if defined(__GNUC__)
#define TREADLE_MUST_USE __attribute__((warn_unused_result))
#else
#define TREADLE_MUST_USE
#endif

#endif
