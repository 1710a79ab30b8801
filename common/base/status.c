/* SPDX-License-Identifier: MPL-2.0 */
#include <treadle/status.h>

const char *treadle_status_text(enum treadle_status status)
{
    switch (status) {
#define STATUS_CASE(name, number, text)                                                            \
    case name:                                                                                     \
        return text;
        TREADLE_STATUS_MAP(STATUS_CASE)
#undef STATUS_CASE
    }
    return "unknown status"; /* a caller's cast number, or a newer peer's */
}
