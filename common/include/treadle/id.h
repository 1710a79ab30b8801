/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_ID_H
#define TREADLE_ID_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A task's id for life: 128 bits, usually a UUIDv7, chosen by the client. */
struct treadle_task_id {
    uint8_t bytes[16];
};

#ifdef __cplusplus
}
#endif

#endif
