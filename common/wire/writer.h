/* SPDX-License-Identifier: MPL-2.0 */
/* What the encoder needs of a writer beside message.h. */
#ifndef TREADLE_WIRE_WRITER_H
#define TREADLE_WIRE_WRITER_H

#include "common/wire/message.h"

/* Makes room for `more` bytes behind those written; false, and nothing changed, when memory is out.
 */
bool writer_grow(struct writer *writer, size_t more);

#endif
